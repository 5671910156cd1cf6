"""The latency scenario: one inference at a time, the next when the last has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.engine.loads.load import Drive, Load
from harness.engine.loads.threads import Threads

if TYPE_CHECKING:
    from harness.engine.wire.messages import Job, Peer
    from harness.engine.wire.timeline import Timeline
    from harness.protocols import Session


class Latency(Load):
    """A closed loop."""

    def drive(self, timeline: Timeline, sessions: Sequence[Session], job: Job, peer: Peer) -> Drive:
        return Threads(timeline, sessions)
