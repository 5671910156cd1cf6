"""`harness.run` and `harness.read`: the command line's work, for a script or a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import spec as specs
from harness.errors import MeasurementFailed
from harness.records.refs import resolve_one
from harness.records.result import Result
from harness.views import notebook as notebook  # by which results and comparisons show themselves

if TYPE_CHECKING:
    from harness.engine.driver.conductor import Outcome


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
