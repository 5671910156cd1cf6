"""The throughput scenario: N streams at once, each of them a closed loop.

A thread each; where no session blocks in ``enqueue``, one thread that keeps an inference in flight
on each (`harness.engine.loads.pipelined`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.engine.loads.load import Drive, Load
from harness.engine.loads.threads import Threads
from harness.protocols import Asynchronous

if TYPE_CHECKING:
    from harness.engine.wire.messages import Job, Peer
    from harness.engine.wire.timeline import Timeline
    from harness.protocols import Session


class Throughput(Load):
    """Closed loops beside each other."""

    def drive(self, timeline: Timeline, sessions: Sequence[Session], job: Job, peer: Peer) -> Drive:
        if is_pipelined(sessions):
            from harness.engine.loads.pipelined import InFlight

            return InFlight(timeline, sessions)
        return Threads(timeline, sessions)


def is_pipelined(sessions: Sequence[Session]) -> bool:
    """Whether one thread keeps an inference in flight on each of ``sessions``."""
    return len(sessions) > 1 and all(
        isinstance(session, Asynchronous) and session.asynchronous for session in sessions
    )
