"""`harness.run`, `duel` and `read`: the command line's work, for a script or a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from harness import spec as specs
from harness.errors import MeasurementFailed
from harness.maybe import Maybe, Unavailable
from harness.records.refs import resolve_one
from harness.records.result import Result
from harness.views import notebook as notebook  # by which results and comparisons show themselves

if TYPE_CHECKING:
    from harness.compare.comparison import Comparison
    from harness.compare.paired import PairedVerdict
    from harness.compare.verdicts import Verdict
    from harness.engine.driver.conductor import Outcome

T = TypeVar("T")


def run(spec: specs.RunSpec | None = None, /, **fields: Any) -> Result:
    """Measure one model on one backend. Blocks; every launch is a fresh process.

    ``fields`` are those of `RunSpec`, as Python values or as texts of the command line; they go
    over ``spec``. The run's folder, with its samples and TensorBoard events, is ``id`` in ``out``.

    A result may be ``degraded``: ``validity`` says why. Raises `UsageError` or another
    `HarnessError` for what is wrong before anything is measured, `MeasurementFailed` for a run that
    failed, lacks what it requires or could not be saved (what there is, is kept), and
    KeyboardInterrupt for an interrupted one.
    """
    from harness.engine import driver
    from harness.tensorboard.live import TensorBoardSink

    given = specs.texts(fields)
    wanted = specs.parse(given if spec is None else {**specs.unparse(spec), **given})
    outcome = driver.run(wanted, lambda folder: [TensorBoardSink(folder, wanted)])
    require_complete(outcome)
    return outcome.result


class Duel(NamedTuple):
    """What a duel has shown. ``results``: one a variant, the reference first; ``folder`` holds them
    and ``comparison.json``, which is ``comparison``."""

    comparison: Comparison
    results: tuple[Result, ...]
    folder: Path

    @property
    def verdicts(self) -> tuple[PairedVerdict, ...]:
        """Of each variant against the first."""
        return self.comparison.paired.verdicts if self.comparison.paired else ()

    @property
    def ratio(self) -> float:
        """Latency of the second variant over the first's. Raises `MeasurementFailed` for none."""
        return _present(self.verdicts[0].ratio)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of `ratio`. Raises `MeasurementFailed` where there is none."""
        return _present(self.verdicts[0].interval)

    @property
    def verdict(self) -> Verdict:
        """improved, regressed, unchanged, inconclusive or not comparable."""
        return self.verdicts[0].verdict


def duel(across: str | None = None, /, **fields: Any) -> Duel:
    """Let variants of one run take turns: their ratio, whatever the machine does meanwhile. Blocks.

    ``across``: what they differ in, such as ``"precision=fp32,int8"``, as for ``harness duel``;
    None for a variant against its twin. ``fields`` are those of `RunSpec`; ``launches`` means
    exactly so many, ``duration_s`` the seconds of a launch's turns, all variants together.

    Raises as `run` does; what had been measured by then is kept.
    """
    from harness.engine.driver.duel import duel as take_turns
    from harness.engine.driver.duel import rules_of
    from harness.engine.driver.homes import homes_of
    from harness.spec.variants import twins, variants
    from harness.tensorboard.live import TensorBoardSink

    given = specs.texts(fields)
    asked = twins(given) if across is None else variants(given, across)
    launches = asked.specs[0].launches if "launches" in given else None
    outcome = take_turns(
        asked.specs,
        asked.names,
        rules_of(asked.specs[0], launches),
        lambda folder, spec: [TensorBoardSink(folder, spec)],
        homes=homes_of(asked),
    )
    if outcome.paired.ended == "interrupted":
        raise KeyboardInterrupt
    if outcome.exit_code:
        why = outcome.paired.problem or "; ".join(outcome.problems) or "a side failed"
        raise MeasurementFailed(f"the duel failed: {why}", f"see {outcome.folder}")
    results = tuple(run.result for run in outcome.runs)
    return Duel(outcome.comparison, results, outcome.folder)


def _present(value: Maybe[T]) -> T:
    if isinstance(value, Unavailable):
        raise MeasurementFailed(f"the duel has no ratio: {value.reason}", value.remedy)
    return value


def read(ref: str | Path, results: str | Path = "results") -> Result:
    """The run that ``ref`` stands for: a run folder, a result file, a run id or its beginning,
    ``latest``, or whatever else the commands understand; ids are looked up in ``results``.

    Raises `ResultError` where it stands for none or several, or cannot be read.
    """
    result, _ = resolve_one(str(ref), results)
    return result


def require_complete(outcome: Outcome) -> None:
    """Raises `MeasurementFailed` for a run that failed, lacks what it requires, or is not saved."""
    result = outcome.result
    if result.status == "interrupted":
        raise KeyboardInterrupt
    if result.status == "failed":
        error = result.error
        why = next((check.reason for check in result.validity if check.verdict == "fail"), "")
        parts = (error.message, error.remedy) if error else (why,)
        where = f"see {outcome.folder}"
        raise MeasurementFailed(f"the measurement failed: {'; '.join(filter(None, parts))}", where)
    if outcome.exit_code:
        lacking = "; ".join([*outcome.missing, *outcome.problems])
        raise MeasurementFailed(lacking or f"exit code {outcome.exit_code}")
