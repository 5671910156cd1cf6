"""The fixture ``hwbench``: measures in a process of its own, and tells pytest-benchmark.

pytest-benchmark times what it calls. Here everything is measured already, so it is given a clock
that replays: two readings a round, as far apart as the iteration took.

    rounds of the result     |-- a --|-- b --|-- c --|
    readings of the clock    0       a       .       .
                                     0       b       .      differences are exact, sums would not be
                                             0       c

The marker with that clock must be there before the fixture ``benchmark`` is set up, so collection
attaches it (`give_clock`) and the measurement fills it.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest
from pytest_benchmark.fixture import FixtureAlreadyUsed

from harness.errors import BackendUnavailable, HarnessError, UsageError
from harness.pytest_plugin.hardware import note, refuse_other_device
from harness.pytest_plugin.options import EARLIER, OPTIONS, option_name
from harness.spec import RunSpec, parse, texts

if TYPE_CHECKING:
    from harness.api import Duel
    from harness.engine.driver.conductor import Outcome
    from harness.records.result import Result

T = TypeVar("T")
CLOCK = pytest.StashKey["ReplayClock"]()
# of a run with --benchmark-disable, which shows that the test works and measures nothing
_TRIAL = {"iterations": 10, "warmup_s": 0, "max_warmup_s": 0, "launches": 1, "idle_s": 0}
_TRIAL_DUEL = {"duration_s": 0.05, "launches": 1, "warmup_s": 0, "max_warmup_s": 0.2,
               "power_source": "none"}  # fmt: skip
_WINDOW = ("duration_s", "max_duration_s", "precision_goal")


class ReplayClock:
    """A timer that replays ``rounds``, in seconds."""

    def __init__(self) -> None:
        self._rounds: Sequence[float] = ()
        self._reads = 0

    def load(self, rounds: Sequence[float]) -> None:
        self._rounds, self._reads = rounds, 0

    def __call__(self) -> float:
        """0.0 and a round's length in turn."""
        index, ends = divmod(self._reads, 2)
        self._reads += 1
        return self._rounds[index] if ends else 0.0

    def __str__(self) -> str:
        return "perf_counter_ns in the worker"  # in pytest-benchmark's file, as the timer


def give_clock(item: pytest.Item) -> None:
    """Attach a clock, beside what the test's own ``benchmark`` marker asks for."""
    clock = item.stash[CLOCK] = ReplayClock()
    own = item.get_closest_marker("benchmark") or pytest.mark.benchmark.mark
    mark = pytest.mark.benchmark(*own.args, **{**own.kwargs, "timer": clock})
    item.add_marker(mark, append=False)


class HwBench:
    """What a test gets as ``hwbench``."""

    def __init__(self, request: pytest.FixtureRequest, benchmark: Any) -> None:
        self._request = request
        self._benchmark = benchmark
        self._used = False

    def __call__(self, **fields: Any) -> Result:
        """Run a spec and return its result; ``fields`` are those of `harness.spec.RunSpec`.

        What the test does not say, the options ``--hwbench-...`` do. Skips where the runtime or
        device is absent; fails the test where the run fails. With ``--benchmark-disable`` a few
        iterations are run, without a table, and nothing is kept.
        """
        return self._guarded(
            lambda: self._measured(spec_of(fields, defaults(self._request.config)))
        )

    def duel(self, across: str | None = None, /, **fields: Any) -> Duel:
        """Let variants take turns and return what that has shown (`harness.duel`, which takes the
        same): assert on its ``ratio``, ``interval`` or ``verdict``.

        pytest-benchmark's table has a row a variant. Options, skips, failures and
        ``--benchmark-disable`` are as for a single measurement.
        """
        return self._guarded(lambda: self._duelled(across, fields))

    def _guarded(self, measure: Callable[[], T]) -> T:
        failure: HarnessError
        try:
            return measure()
        except HarnessError as error:
            failure = error
        if isinstance(failure, BackendUnavailable):
            pytest.skip(str(failure))
        with contextlib.suppress(HarnessError, FixtureAlreadyUsed):
            self._benchmark.pedantic(_raise, args=(failure,))  # or it warns that it was not used
        pytest.fail(str(failure), pytrace=False)

    def _once(self) -> None:
        if self._used:
            raise UsageError("hwbench was called twice in one test", "parametrize the test")
        self._used = True

    def _duelled(self, across: str | None, fields: Mapping[str, Any]) -> Duel:
        self._once()
        from harness import api

        told = defaults(self._request.config)
        told.pop((across or "").partition("=")[0].strip(), None)
        given = {**told, **{field: value for field, value in fields.items() if value is not None}}
        if not self._benchmark.enabled:
            self._refuse_company()
            given |= {**_TRIAL_DUEL, "out": self._scratch()}
        found = api.duel(across, **given)
        if self._benchmark.enabled:
            self._tell_duel(found)
        else:
            self._benchmark.pedantic(lambda: None)
        return found

    def _tell_duel(self, found: Duel) -> None:
        """A row a variant in pytest-benchmark's table and file, and the ratio in words."""
        import msgspec

        from harness.exports.pytest_benchmark import document as sink
        from harness.views.duel import sentence
        from harness.views.text import plain

        config, name = self._request.config, self._request.node.name
        paired = found.comparison.paired
        assert paired is not None
        verdicts = {one.b: msgspec.to_builtins(one) for one in found.verdicts}
        cells = [sink.full_name(result.spec, sink.LATENCY) for result in found.results]
        for cell in cells:
            refuse_other_device(config, cell, found.results[0].machine)
        for number, (variant, result) in enumerate(
            zip(paired.variants, found.results, strict=True)
        ):
            told, cell = plain(variant.name), cells[number]
            last = number == len(cells) - 1
            row = self._benchmark if last else copy.copy(self._benchmark)
            row.name = f"{name}[{told}]"
            row.fullname = cell if cells.count(cell) == 1 else f"{cell}[{told}]"
            row.group = row.group or f"{sink.LATENCY_GROUP}, in turns"
            taken = sink.rounds_of_runs([result], {result.id: found.folder / result.id})
            row.extra_info = {
                **row.extra_info, **sink.extra_info([result]), **sink.about(taken),
                "duel": verdicts.get(variant.name, "reference"),
            }  # fmt: skip
            self._request.node.stash[CLOCK].load(taken.seconds)
            row.pedantic(lambda: None, rounds=len(taken.seconds))
        for verdict in found.verdicts:
            line = f"{name}: {sentence(verdict)}: {verdict.verdict}; {found.folder}"
            note(config, found.results[0].machine, line)

    def _measured(self, spec: RunSpec) -> Result:
        self._once()
        from harness.api import require_complete

        outcome = self._run(spec)
        require_complete(outcome)
        if self._benchmark.enabled:
            self._tell(outcome)
        else:
            self._benchmark.pedantic(lambda: None)
        return outcome.result

    def _run(self, spec: RunSpec) -> Outcome:
        from harness.engine import driver

        if not self._benchmark.enabled:
            self._refuse_company()
            return driver.run(self._trial(spec))
        return driver.run(spec)

    def _refuse_company(self) -> None:
        config = self._request.config
        if _in_xdist(config) and not config.getoption("benchmark_disable"):
            raise UsageError(
                "hwbench does not measure while other tests run beside it",
                "run these tests with -n0, or only try them with --benchmark-disable",
            )

    def _scratch(self) -> str:
        factory: pytest.TempPathFactory = self._request.getfixturevalue("tmp_path_factory")
        return str(factory.mktemp("hwbench"))

    def _trial(self, spec: RunSpec) -> RunSpec:
        import msgspec

        changes: dict[str, Any] = {**_TRIAL, **dict.fromkeys(_WINDOW)}
        out = self._scratch()
        return msgspec.structs.replace(spec, **changes, out=out, require=(), overhead_check=False)

    def _tell(self, outcome: Outcome) -> None:
        """Feed pytest-benchmark's table and file."""
        from harness.exports.pytest_benchmark import document as sink

        result, benchmark, config = outcome.result, self._benchmark, self._request.config
        benchmark.fullname = sink.full_name(result.spec, sink.LATENCY)
        refuse_other_device(config, benchmark.fullname, result.machine)
        taken = sink.rounds_of_runs([result], {result.id: outcome.folder})
        benchmark.group = benchmark.group or sink.LATENCY_GROUP
        benchmark.extra_info.update(sink.extra_info([result]) | sink.about(taken))
        self._request.node.stash[CLOCK].load(taken.seconds)
        benchmark.pedantic(lambda: None, rounds=len(taken.seconds))
        note(config, result.machine, summary(self._request.node.name, outcome))


def _in_xdist(config: pytest.Config) -> bool:
    """Whether tests run beside each other: in a worker of pytest-xdist."""
    return hasattr(config, "workerinput") or "PYTEST_XDIST_WORKER" in os.environ


def defaults(config: pytest.Config) -> dict[str, Any]:
    """What options and ini file say, the options first."""
    told = {}
    for field in OPTIONS:
        name = option_name(field)
        ini = config.getini(f"hwbench_{name}") or config.getini(
            f"hwbench_{EARLIER.get(name, name)}"
        )
        value = config.getoption(f"hwbench_{field}") or ini
        if value:
            told[field] = value
    return told


def spec_of(fields: Mapping[str, Any], told: Mapping[str, Any]) -> RunSpec:
    """The spec of a test's ``fields``, else of what was ``told``. Raises `UsageError`.

    A test that counts iterations, or has a goal, is not given a duration as well.
    """
    kept = {k: v for k, v in told.items() if k != "duration_s" or not _counts(fields)}
    given = {field: value for field, value in fields.items() if value is not None}
    return parse(texts({**kept, **given}))


def _counts(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in ("iterations", "max_duration_s", "precision_goal"))


def summary(name: str, outcome: Outcome) -> str:
    """One line: what pytest-benchmark's table has no column for."""
    from harness.compare.sides import measured
    from harness.maybe import Unavailable
    from harness.views.comparison import metric_name, metric_value
    from harness.views.text import plain

    result = outcome.result
    names = ("latency_p99", "energy_per_inference", "memory_peak", "top1")
    found = [measured([result], one) for one in names]
    told = [f"{metric_name(one.metric.name)} {metric_value(one.value, one.metric.unit)}"
            for one in found if not isinstance(one.value, Unavailable)]  # fmt: skip
    doubts = [f"{check.name}: {check.reason}" for check in result.validity
              if check.verdict == "warn"]  # fmt: skip
    status = f"degraded ({'; '.join(doubts)})" if doubts else result.status
    return plain(f"{name}: {', '.join([*told, status])}; {outcome.folder}")


def _raise(error: HarnessError) -> NoReturn:
    raise error
