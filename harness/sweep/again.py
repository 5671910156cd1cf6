"""Measure what a result measured once more, as things are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import spec as specs
from harness.analysis.culprit import Known
from harness.analysis.figures import figures
from harness.errors import MeasurementFailed, ResultError
from harness.machine import fingerprint
from harness.maybe import Unavailable
from harness.records.result import Result
from harness.spec import RunSpec
from harness.sweep.runner import HARNESS, process, reason, result_in

LIMIT_S = 3600.0


def run_again(
    spec: RunSpec,
    launches: int,
    out: Path,
    *,
    harness: Sequence[str] = HARNESS,
    folder: Path | None = None,
    limit_s: float = LIMIT_S,
) -> Result:
    """A new run of ``spec`` by the command ``harness``, in ``folder``; its result goes to ``out``.

    Raises `MeasurementFailed` where it leaves no finished result.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"{str(out)!r} cannot be made: {error.strerror}", "name a writable folder"
        ) from error
    log = out / "runs.log"
    again = specs.again(spec, launches, str(out.absolute()))
    command = [*harness, "run", *again, "--json"]
    code, printed = process(command, log, limit_s, folder=folder)
    result = result_in(printed)
    if code != 0 or result is None:
        raise MeasurementFailed(
            f"measuring again failed: {reason(code, log, limit_s)}", f"see {str(log)!r}"
        )
    return result


def measure_again(known: Known, metric: str, launches: int, out: Path) -> tuple[float, ...]:
    """``metric`` of each launch of a new run of what was ``known``.

    Raises `MeasurementFailed` where it has none, or this is another machine.
    """
    here = fingerprint(device=known.spec.device).fingerprint
    if here != known.fingerprint:
        raise MeasurementFailed(
            f"this machine is {here}, and {known.run} was measured on {known.fingerprint}",
            "bisect on the machine that regressed",
        )
    values = figures([run_again(known.spec, launches, out)], metric)
    if isinstance(values, Unavailable):
        raise MeasurementFailed(f"{metric} was not measured: {values.reason}", values.remedy)
    return values
