"""How far nights lie apart, by the history of a results folder: what two nights must allow for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.records.result import Result


def night_spread(
    old: Iterable[Result], new: Iterable[Result], metrics: Sequence[str], results: str
) -> dict[tuple[str, str, str], float]:
    """`harness.analysis.verdicts.NightSd` of the cells that the two sides measured in different
    nights. What the folder's history does not tell is left out, and the verdict says so."""
    from harness.analysis.cells import group, same_night
    from harness.analysis.metrics import METRICS
    from harness.records.series import night_spreads

    a, b = group(old), group(new)
    both = [key for key in a if key in b and a[key].finished and b[key].finished]
    apart = [key for key in both if not same_night(a[key], b[key])]
    noisy = [name for name in metrics if METRICS[name].rule not in ("exact", "paired")]
    if not apart:
        return {}
    try:
        return night_spreads(Path(results), apart, noisy)
    except HarnessError:  # a folder that cannot be indexed has no history
        return {}
