"""Two results side by side: what may be compared, and what comes out.

Two runs may differ in model, backend or precision: that is what they are put side by side for, and
``measured`` names it. Sets of runs are matched cell by cell instead (`harness.analysis.sets`).
"""

from __future__ import annotations

import msgspec

from harness.analysis.cells import Side, hardware_differences, spec_differences
from harness.analysis.figures import single
from harness.analysis.metrics import METRICS
from harness.analysis.verdicts import Pairing, Row, Settings, draft, judge_all
from harness.errors import NothingComparable
from harness.maybe import Unavailable
from harness.records.cell import cell_of
from harness.records.result import Result

# what a latency means depends on these; nothing of two results compares where they differ
_MUST_MATCH = ("scenario", "boundary", "device")
# these have a row even where both runs lack them: the reason is worth reading
_ALWAYS = ("latency_median", "throughput", "energy_per_inference", "memory_peak", "file_size")


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """``measured``: what the runs are measurements of, where that differs, as (in a, in b).
    ``differences``: whatever else differs besides the outcome."""

    a: str
    b: str
    measured: dict[str, tuple[str, str]]
    rows: tuple[Row, ...]
    differences: dict[str, tuple[str, str]]


def pair(a: Result, b: Result, settings: Settings | None = None) -> Pair:
    """Compare ``b`` with the reference ``a``.

    Raises `NothingComparable` for other hardware, another kind of run, or runs without figures.
    """
    same_conditions(a, b)
    settings = settings or Settings()
    pairing = Pairing(
        cell=cell_of(b).name,
        key=cell_of(b).key,
        fingerprint=b.machine.fingerprint,
        a=Side((a,)),
        b=Side((b,)),
    )
    drafts = [draft(pairing, METRICS[name], settings) for name in settings.metrics]
    rows = [row for row in judge_all(drafts, settings.alpha) if _worth_a_row(row)]
    if all(isinstance(row.a, Unavailable) or isinstance(row.b, Unavailable) for row in rows):
        broken = next((run for run in (a, b) if isinstance(run.timing, Unavailable)), a)
        why = broken.error.message if broken.error else broken.status
        raise NothingComparable(f"the two runs share no figure: {broken.id} is {why}")
    measured = spec_differences(a, b)
    return Pair(
        a=a.id,
        b=b.id,
        measured=measured,
        rows=(*rows, *_shown(a, b)),
        differences={k: v for k, v in differences(a, b).items() if k not in measured},
    )


def same_conditions(a: Result, b: Result) -> None:
    """Raises `NothingComparable` for other hardware or another kind of run."""
    if a.machine.fingerprint != b.machine.fingerprint:
        raise NothingComparable(
            f"the machines differ: {hardware_differences(a, b)}", "measure both on one machine"
        )
    for name in _MUST_MATCH:
        ours, theirs = getattr(a.spec, name), getattr(b.spec, name)
        if ours != theirs:
            raise NothingComparable(
                f"the runs differ in {name}: {ours} and {theirs}", "measure both alike"
            )


def differences(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """Spec, model, versions, commit and settings that differ, by name."""
    sides = [_conditions(run) for run in (a, b)]
    names = {**sides[0], **sides[1]}
    found = {name: (sides[0].get(name, "absent"), sides[1].get(name, "absent")) for name in names}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _conditions(run: Result) -> dict[str, str]:
    spec = {
        name: str(value)
        for name, value in msgspec.structs.asdict(run.spec).items()
        if name not in ("out", "tags", "timeout_s")
    }
    settings = {name: run.machine.context.get(name, "absent") for name in ("kernel", "governor")}
    model = {} if isinstance(run.model, Unavailable) else {"model file": run.model.sha256[:12]}
    commit = {"commit": run.software.commit[:12]} if run.software.commit else {}
    return {**spec, **model, **settings, **commit, **run.software.versions}


def _worth_a_row(row: Row) -> bool:
    present = not (isinstance(row.a, Unavailable) and isinstance(row.b, Unavailable))
    return present or row.metric in _ALWAYS


def _shown(a: Result, b: Result) -> list[Row]:
    """Macro F1: both values, without a verdict."""
    values = single(a, "f1"), single(b, "f1")
    if all(isinstance(value, Unavailable) for value in values):
        return []
    why = "shown, not tested"
    return [Row(metric="f1", unit="", better="higher", verdict=None, reason=why, a=values[0],
                b=values[1])]  # fmt: skip
