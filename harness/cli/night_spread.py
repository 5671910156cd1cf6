"""How far nights lie apart, by the history of a results folder: what two nights must allow for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.maybe import Unavailable

if TYPE_CHECKING:
    from harness.records.result import Result


def night_spread(
    old: Iterable[Result], new: Iterable[Result], metrics: Sequence[str], results: str
) -> dict[tuple[str, str, str], float]:
    """`harness.analysis.verdicts.NightSd` of the cells that the two sides measured in different
    nights. What the folder's history does not tell is left out, and the verdict says so."""
    from harness.analysis.cells import group, same_night
    from harness.analysis.history import history
    from harness.analysis.metrics import METRICS
    from harness.records.index import Index
    from harness.records.nights import nights

    a, b = group(old), group(new)
    both = [key for key in a if key in b and a[key].finished and b[key].finished]
    apart = [key for key in both if not same_night(a[key], b[key])]
    kinds = [METRICS[name] for name in metrics if METRICS[name].rule not in ("exact", "paired")]
    found: dict[tuple[str, str, str], float] = {}
    if not apart:
        return found
    try:
        with Index(Path(results)) as index:
            index.refresh()
            for key, fingerprint in apart:
                for kind in kinds:
                    points = nights(index.series(key, fingerprint, kind.name))
                    if points:
                        values = [night.value for night in points]
                        sd = history(values, kind.better, kind.minimum_effect).night_sd
                        if not isinstance(sd, Unavailable):
                            found[key, fingerprint, kind.name] = sd
    except HarnessError:  # a folder that cannot be indexed has no history
        return {}
    return found
