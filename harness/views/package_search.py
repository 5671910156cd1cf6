"""What ``harness bisect --package`` says."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from harness.compare.package_search import PackageCulprit, Step
from harness.maybe import Unavailable, explain
from harness.views.duel import half_width, ratio_text
from harness.views.operators_compared import changes_table
from harness.views.terminal import render_table
from harness.views.text import plain

Ratio = tuple[float, float, float]


def render_package(found: PackageCulprit) -> RenderableType:
    """The answer in a sentence, and the steps to it."""
    rows = [row for step in found.steps for row in _rows(step)]
    table = render_table(("version", "time of the first", "95 %", "is", "wrong by chance"), rows)
    parts: list[RenderableType] = [Text(_sentence(found), style="bold"), Text(""), table, Text("")]
    if found.version:
        parts += [*_operators(found), Text("")]
    return Group(*parts)


def _operators(found: PackageCulprit) -> Iterator[RenderableType]:
    if isinstance(found.operators, Unavailable):
        yield Text(f"operators: {plain(explain(found.operators))}", style="dim")
    else:
        yield Text(f"A is {plain(found.before)}, B {plain(found.version)}")
        yield from changes_table(found.operators)


def _sentence(found: PackageCulprit) -> str:
    name = plain(found.distribution)
    if not found.version or found.ratio is None:
        first, last = found.versions[0], found.versions[-1]
        return f"{name}: no change of 1 % is proven between {plain(first)} and {plain(last)}"
    taken = f"takes {_ratio(found.ratio)} of {plain(found.before)}'s time"
    rest = "" if found.whole else "; it is not the only version that changed something"
    return f"{name} {plain(found.version)} {taken} (error rate {found.error:.1g}){rest}"


def _rows(step: Step) -> list[tuple[str, str, str, str, str]]:
    first, *others = step.versions
    last = len(others) - 1
    return [
        (
            plain(version),
            f"{_ratio(ratio)} of {plain(first)}",
            f"{ratio[1]:.4g} to {ratio[2]:.4g}",
            step.side if last == 0 or index < last else "the last",
            f"{step.error:.1g}" if last == 0 or index < last else "",
        )
        for index, (version, ratio) in enumerate(zip(others, step.ratios, strict=True))
    ]


def _ratio(found: Ratio) -> str:
    ratio, low, high = found
    return f"{ratio_text(ratio, (low, high))} ± {half_width(ratio, (low, high))}"
