"""Turns: the timed loop runs for a moment, then the process rests until it has the turn again.

    driver   Turn ─┐            ┌─ rested       Turn ─┐
    worker         └ iterations ┴ wait until quiet    └ iterations ...
    other                         └ its own turn ┘

A runtime's threads go on after a call: pools spin for milliseconds in the hope of more work. A side
that spins takes the processor from the one whose turn it is, so a worker says that it rests only
when its processor time stands still, or after `LONGEST_REST_NS`. What it burns while it rests is
read at its next turn and is part of what is reported.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness.engine.loads.closed import StreamLoop
from harness.engine.wire.messages import Event, Peer, Rested, Turn, Turns
from harness.engine.wire.timeline import Stream
from harness.maybe import decode

REST_STEP_S = 0.001
QUIET_NS = 150_000  # of processor time in a step: what waking up for it takes by itself is less
LONGEST_REST_NS = 100_000_000


def take_turns(loop: StreamLoop, stream: Stream, peer: Peer) -> None:
    """Take turns until the driver says that no more come. Raises `EOFError` when it is gone.

    The window starts with the first timed turn.
    """
    wait_until_quiet()
    peer.send(Event("resting"))
    while True:
        turn, cpu_ns = _next(peer)
        if not turn.ns:
            break
        start_ns = time.perf_counter_ns()
        first, last = loop.turn(turn.ns, turn.at_least)
        end_ns, cpu_end_ns = time.perf_counter_ns(), time.process_time_ns()
        if turn.timed and stream.window_start < 0:
            stream.window_start = first
        wait_until_quiet()
        rest_ns, cpu_rest_ns = time.perf_counter_ns(), time.process_time_ns()
        rested = Rested(first, last, start_ns, end_ns, rest_ns, cpu_ns, cpu_end_ns, cpu_rest_ns)
        peer.send(Event("rested", rested=rested))
    if stream.window_start >= 0:
        stream.window_end = stream.written


def _next(peer: Peer) -> tuple[Turn, int]:
    """The next turn, and this process's processor time when it came."""
    while True:
        lines = peer.receive()
        cpu_ns = time.process_time_ns()
        if lines is None:
            raise EOFError("the driver is gone")
        if lines:
            return decode(lines[0], Turn), cpu_ns


def wait_until_quiet() -> None:
    """Sleep in short steps until this process's threads use next to no processor time in one."""
    deadline = time.perf_counter_ns() + LONGEST_REST_NS
    before = time.process_time_ns()
    while time.perf_counter_ns() < deadline:
        time.sleep(REST_STEP_S)
        now = time.process_time_ns()
        if now - before < QUIET_NS:
            return
        before = now


def pin_busiest(turns: Turns) -> None:
    """Pin the threads that have worked most so far, each to a processor of its own.

    Where two threads of a pool share a processor for a while, one side of that launch is slower by
    far, for no reason of its own. Other threads stay where they may run.
    """
    if len(turns.cpus) < turns.threads or not hasattr(os, "sched_setaffinity"):
        return
    for cpu, thread in zip(turns.cpus, _by_work(), strict=False):
        try:
            os.sched_setaffinity(thread, {cpu})
        except OSError:  # it has ended, or a container forbids it
            continue


def _by_work() -> list[int]:
    """This process's threads, the busiest first."""
    found: list[tuple[int, int]] = []
    for folder in Path("/proc/self/task").glob("*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(fields[11]) + int(fields[12]), int(folder.name)))
    return [thread for _, thread in sorted(found, reverse=True)]
