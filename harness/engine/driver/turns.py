"""One worker of a duel: a launch whose window consists of turns.

    load ── first inference ── warm-up ── steady ┬ turn ┬ rest ┬ turn ┬ rest ... ── verify
                                                 └ others have theirs meanwhile ┘

While a worker has the turn the driver sleeps, and all others are stopped by the kernel, spinning
threads and all; the driver reads, publishes and saves between two turns. Sensors are read after
the last turn of the window alone, where there is a meter, for stretches that it can answer for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.engine.driver.launch import Launch
from harness.engine.driver.tick import Fresh
from harness.engine.driver.watch import Ended, WindowPlan
from harness.engine.outcome.evidence import Metered, TurnsTaken
from harness.engine.wire.messages import Event, Go, Job, Rested, Spent, Turn
from harness.engine.wire.timeline import ABORT
from harness.errors import MeasurementFailed
from harness.records.result import ErrorInfo

Times = NDArray[np.int64]


class Taken(NamedTuple):
    """One turn: the latencies of all its iterations in ns, and its processor time an inference."""

    latencies: Times
    cpu_ns: float


class TurnLaunch(Launch):
    """Conducts one worker, one turn at a time. What ends it early stands in its record."""

    warm_up_tick_s = 0.03  # of many short launches
    _parts: list[tuple[Times, Times]]  # of the turn, as they came
    _stopped: tuple[int, int | None] | None = None  # when, and its processor time until then

    def attempt(self, step: Callable[[], None]) -> bool:
        """Whether ``step`` came to its end."""
        try:
            step()
        except Ended:
            self.worker.kill()
            return False
        return True

    def come_up(self, job: Job) -> None:
        """Load, warm up until steady, then rest."""
        self._parts = []
        self._load(job)
        self._warm_up()
        self._enter("window", "resting between turns")
        self._send(Go())
        self._wait("resting")
        self._stand_still()

    def _stand_still(self) -> None:
        self.worker.stop()
        self._stopped = self._clock(), self.worker.cpu_ns()

    def _send(self, message: msgspec.Struct) -> None:
        self._carry_on()
        super()._send(message)

    def _carry_on(self) -> None:
        """End the rest, which the kernel's clock shows to have been one."""
        if self._stopped is None:
            return
        (since_ns, before_ns), self._stopped = self._stopped, None
        turns, after_ns = self.record.turns, self.worker.cpu_ns()
        if turns is not None and before_ns is not None and after_ns is not None:
            turns.rested_ns += self._clock() - since_ns
            turns.rest_cpu_ns += after_ns - before_ns
        self.worker.carry_on()

    def begin(self, block_ns: int, left_out: int) -> None:
        """From now on turns count, which the journal has to know to read them."""
        self.record.turns = TurnsTaken(block_ns, left_out)
        self._told_phase = ""
        self._tick()

    def turn(self, block_ns: int, at_least: int, round_: int = -1) -> Taken:
        """Have the turn; of the window where ``round_`` is one of it. Raises `Ended`."""
        self._parts = []
        self.doing = "in the timed window"
        self._last_progress_ns = self._clock()
        self.aside = True
        self._send(Turn(block_ns, at_least, timed=round_ >= 0))
        event = self._wait("rested")
        self._stand_still()
        self._drain()
        self.aside, self.doing = False, "resting between turns"
        assert event.rested is not None
        return self._keep(event.rested, round_)

    def _keep(self, rested: Rested, round_: int) -> Taken:
        empty = np.empty(0, np.int64)  # where Ctrl-C came before the first
        starts, ends = (np.concatenate([empty, *(part[i] for part in self._parts)]) for i in (0, 1))
        if len(starts) != rested.last - rested.first:
            raise MeasurementFailed("the worker's iterations and its turn do not agree")
        turns = self.record.turns
        if round_ >= 0 and turns is not None:
            cold = min(turns.left_out, len(starts))
            self.recorders[0].add_turn(rested.first, rested.last, cold, round_)
            spent = self.record.spent or Spent(0, 0)
            cpu_ns = rested.cpu_end_ns - rested.cpu_start_ns
            self.record.spent = Spent(spent.cpu_ns + cpu_ns, spent.iterations + len(starts))
            self.fresh = [
                Fresh(0, timed, starts[part], ends[part])
                for timed, part in ((False, slice(0, cold)), (True, slice(cold, None)))
                if len(starts[part])
            ]
            if self.tracker is not None:
                self.tracker.update((ends - starts)[cold:])
            self._tick()
            self.fresh = []
        each_ns = (rested.cpu_end_ns - rested.cpu_start_ns) / max(len(starts), 1)
        return Taken(ends - starts, each_ns)

    def _drain(self) -> None:
        if self.phase != "window":
            super()._drain()
            return
        for recorder in self.recorders:
            rows, _ = recorder.drain()
            if len(rows["start"]):
                self._last_progress_ns = self._clock()
                self._parts.append((rows["start"], rows["end"]))

    def _sample(self) -> None:
        """Not before `listen`: a sampler would wake in somebody's turn."""

    def listen(self) -> WindowPlan | None:
        """Begin to read the sensors; what those meters need, None where there is none."""
        self.record.unmetered = self._observer.unmetered
        if self.record.unmetered is None:
            super()._sample()
            self.idle_s = self._observer.idle_s()
        plan = self._observer.stretch_plan(self.iteration_s()) if self.sampler else None
        return plan if plan and plan.floor_s else None

    def idle_for(self, seconds: float) -> None:
        """Stand still so long, and listen. Raises `Ended`."""
        self._rest(seconds)

    def idled(self, which: str, since_ns: int, until_ns: int) -> None:
        """All sides stood still meanwhile, ``before`` the stretches or ``after`` them."""
        self.record.idle[which] = since_ns, until_ns

    def stretch(self, length_ns: int, guard_ns: int, pause_s: float) -> None:
        """Have the turn for so long, and as long again as the guards. Raises `Ended`."""
        timeline = self.worker.timeline
        timeline.pause_ns = round(1e9 * pause_s)
        self.turn(length_ns + 2 * guard_ns, 1)
        timeline.pause_ns = 0
        if not self._interrupt.requested:  # which may have cut it short
            starts, ends = (np.concatenate(column) for column in zip(*self._parts, strict=True))
            self.record.metered += (within(starts, ends, length_ns, guard_ns, paused=pause_s > 0),)
        if self.sampler is not None:
            self.sampler.drain()

    def close_window(self, why: str) -> None:
        """No more turns. ``why``: as `LaunchRecord.stop_reason`."""
        self._parts = []
        self._last_progress_ns = self._clock()
        self._send(Turn(0))
        timed: Event = self._wait("timed")
        self._snapshot("window", timed)
        self.record.yardstick_ns = (self.record.yardstick_ns[0], timed.yardstick_ns)
        self.record.stop_reason = why
        self.record.window_ns = self._window_bounds()

    def finish(self, verify: bool) -> None:
        """What is left to find out, and the worker's end."""
        if not self._profile():
            return
        self._verify(verify)

    def break_off(self, why: str, message: str) -> None:
        """End it where it stands: what it has measured is kept."""
        if self.record.error is None:
            self.record.error = ErrorInfo(
                kind="interrupted", message=message, remedy="", phase=self.doing, stderr_tail=""
            )
        self.worker.timeline.command = ABORT
        self._cut_short(why)
        self.worker.kill()

    def close(self) -> None:
        """Let go of the worker. Idempotent."""
        self._close()


def within(
    starts: Times, ends: Times, length_ns: int, guard_ns: int, *, paused: bool = False
) -> Metered:
    """The whole iterations of a stretch between its guards, which give way to its length."""
    spare_ns = int(ends[-1] - starts[0]) - length_ns
    guard_ns = max(min(guard_ns, spare_ns // 2), 0)
    first = int(np.searchsorted(starts, starts[0] + guard_ns))
    last = int(np.searchsorted(ends, ends[-1] - guard_ns, "right"))
    if last <= first:
        first, last = 0, len(starts)
    return Metered(
        began_ns=int(starts[0]),
        start_ns=int(starts[first]),
        end_ns=int(ends[last - 1]),
        ended_ns=int(ends[-1]),
        iterations=last - first,
        latency_ns=float((ends[first:last] - starts[first:last]).mean()),
        paused=paused,
    )
