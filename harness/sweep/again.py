"""Measure what a result measured once more, as things are now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harness import spec as specs
from harness.compare.culprit import Known
from harness.errors import MeasurementFailed, ResultError, UsageError
from harness.machine import fingerprint
from harness.maybe import Unavailable
from harness.records.figures import figures
from harness.records.result import Result
from harness.spec import RunSpec
from harness.sweep.process import HARNESS, process, reason, result_in

LIMIT_S = 3600.0


def run_again(
    spec: RunSpec,
    launches: int,
    out: Path,
    *,
    harness: Sequence[str] = HARNESS,
    code: Path | None = None,
    limit_s: float = LIMIT_S,
) -> Result:
    """A new run of ``spec`` by the command ``harness``; its result goes to ``out``.

    ``code`` is a checkout to run it in, whose modules come before those that are installed.
    Raises `MeasurementFailed` where it leaves no finished result.
    """
    make_folder(out)
    log = out / "runs.log"
    again = specs.again(spec, launches, str(out.absolute()))
    command = [*harness, "run", *again, "--json"]
    exit_code, printed = process(command, log, limit_s, code=code)
    result = result_in(printed)
    if exit_code != 0 or result is None:
        raise MeasurementFailed(
            f"measuring again failed: {reason(exit_code, log, limit_s)}", f"see {str(log)!r}"
        )
    return result


def make_folder(out: Path) -> None:
    """With all above it. Raises `ResultError`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"{str(out)!r} cannot be made: {error.strerror}", "name a writable folder"
        ) from error


def refuse_untrusted(spec: RunSpec, trusted: Collection[str], how: str) -> None:
    """Raises `UsageError` where ``spec``, which a file brought, names code that the user did not.

    ``how`` begins the remedy: the option or the key that names it.
    """
    for name in specs.code_named_by(spec):
        if name not in trusted:
            raise UsageError(
                f"the result would have {name!r} executed, which nobody named here",
                f"{how} if that is yours",
            )


def measure_again(known: Known, metric: str, launches: int, out: Path) -> tuple[float, ...]:
    """``metric`` of each launch of a new run of what was ``known``.

    Raises `MeasurementFailed` where it has none, or this is another machine, and `UsageError` for
    what took turns in a duel.
    """
    if known.spec.in_turns:
        raise UsageError(
            f"{known.run} took turns in a duel, and a run by itself says nothing of that",
            "let the builds take turns: harness duel --across python=A,B",
        )
    here = fingerprint(device=known.spec.device).fingerprint
    if here != known.fingerprint:
        raise MeasurementFailed(
            f"this machine is {here}, and {known.run} was measured on {known.fingerprint}",
            "bisect on the machine that regressed",
        )
    values = figures([run_again(known.spec, launches, out, code=Path.cwd())], metric)
    if isinstance(values, Unavailable):
        raise MeasurementFailed(f"{metric} was not measured: {values.reason}", values.remedy)
    return values
