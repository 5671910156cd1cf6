"""``harness bisect --package``: which version of a distribution changed what a model takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from harness.cli.output import print_json
from harness.cli.tell import tell
from harness.maybe import Maybe, Unavailable

if TYPE_CHECKING:
    from harness.compare.operators import OperatorChanges
    from harness.compare.package_search import PackageCulprit
    from harness.stats.paired import PairedRatio

# of a run, what a bisection of versions takes
FIELDS = (
    "model", "backend", "precision", "batch_size", "batch_dim", "threads", "input_shapes",
    "inputs", "options", "cpus", "precision_goal",
)  # fmt: skip


def bisect(
    distribution: str, versions: str, values: dict[str, Any], results: str, as_json: bool
) -> int:
    """The exit code: 0, with or without a culprit. ``values``: of `FIELDS`, as flags give them."""
    from harness.compare.package_search import search
    from harness.sweep.packages import parse_range, versions_between

    low, high = parse_range(distribution, versions)
    duels = _Duels(distribution, {**values, "out": results})
    between = duels.versions = versions_between(distribution, low, high)
    if not as_json:
        tell(f"{len(between)} versions: {', '.join(between)}", prefix="")
    found = search(distribution, between, duels)
    if found.version:
        found = msgspec.structs.replace(found, operators=duels.changes)
    if as_json:
        print_json(found)
    else:
        from harness.views.text import count, plain

        _show(found)
        click.echo(f"Files: {count(len(duels.folders), 'duel')} in {plain(results)}")
    return 0


class _Duels:
    """Runs versions against each other, each in its own folder of packages."""

    def __init__(self, distribution: str, values: dict[str, Any]) -> None:
        from harness.spec.variants import twins
        from harness.sweep.packages import refuse_stranger

        self._distribution = distribution
        # no meter has a part in it
        self._spec = msgspec.structs.replace(twins(values).specs[0], sample_rate_hz=0.0)
        refuse_stranger(distribution, self._spec.backend)
        self.folders: list[Path] = []
        self.versions: Sequence[str] = ()  # all of them, in order
        # of the last two neighbours that were duelled: in the end, those of the answer
        self.changes: Maybe[OperatorChanges] = Unavailable("no neighbours were duelled")

    def __call__(self, versions: Sequence[str]) -> Sequence[PairedRatio]:
        from harness.compare.paired import ratio_of
        from harness.engine.driver.duel import duel, rules_of
        from harness.engine.driver.homes import home
        from harness.errors import MeasurementFailed
        from harness.sweep.packages import folder_of

        tell(f"{self._distribution} {', '.join(versions)}: taking turns", prefix="")
        homes = [
            home(sys.executable, self._spec.backend, [str(folder_of(self._distribution, one))])
            for one in versions
        ]
        neighbours = any(pair == tuple(versions) for pair in pairwise(self.versions))
        spec = msgspec.structs.replace(self._spec, operators=neighbours)
        outcome = duel([spec] * len(versions), versions, rules_of(spec, None), homes=homes)
        self.folders.append(outcome.folder)
        if outcome.paired.ended == "interrupted":
            raise KeyboardInterrupt
        if outcome.exit_code:
            raise MeasurementFailed(
                outcome.paired.problem or "a version could not be measured",
                f"see {outcome.folder}; leave that version out of the range",
            )
        if neighbours:
            self.changes = outcome.comparison.cells[0].operators
        ratios = [ratio_of(outcome.launches, index) for index in range(1, len(versions))]
        return [one for one in ratios if not isinstance(one, Unavailable)]


def _show(found: PackageCulprit) -> None:
    from harness.views.package_search import render_package
    from harness.views.terminal import print_out

    print_out(render_package(found), 100)
