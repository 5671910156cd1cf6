"""The sections of an HTML report that say how far its figures can be believed, and the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import get_args

from harness.compare.verdicts import MetricVerdict
from harness.compression.model import METRICS, Entry
from harness.maybe import Maybe, Unavailable, explain, present
from harness.records.metric import FIGURES
from harness.records.result import Check, CheckVerdict, Machine, Result
from harness.report import gather as reports
from harness.report.gather import Judged, Report
from harness.report.sections import chip, table, td
from harness.views.compression import missing_lines, setting_of
from harness.views.markup import Html, h, join
from harness.views.text import Line, number, plain, rows, title
from harness.views.text import subtitle as conditions

_OPEN_RUNS = 3  # with more, their details are folded


def certain(report: Report) -> Html | None:
    """The verdicts of `harness compare`, with their intervals and reasons."""
    body = [row for judged in report.judged for row in _verdicts(judged)]
    if not body:
        return None
    head = ("comparison", "quantity", "ratio", "95 % interval", "verdict", "because")
    return join(
        h(
            "p",
            "Launches are compared, not iterations: a launch is a fresh process, and what differs"
            " between processes is what a comparison must see. A ratio is the compressed model's"
            " figure over the reference's; where a duel let the two take turns, the paired one.",
            class_="dim",
        ),
        *([h("p", f"{report.undecided}.")] if str(report.undecided) else []),
        table(head, body, "Verdicts", "stack sortable"),
    )


def _verdicts(judged: Judged) -> Iterator[Html]:
    entry = judged.entry
    name = plain(f"{entry.model}, {entry.precision} against {judged.reference.precision}")
    name = f"{name} ({setting_of(entry)})" if setting_of(entry) else name
    if not judged.rows and not judged.refusal:
        yield from _logged(name, entry)
    if judged.refusal:
        yield h(
            "tr", h("th", name, scope="row"), td("quantity", "all"), td("ratio", ""), td("", ""),
            td("verdict", chip("not comparable")), td("because", plain(judged.refusal)),
        )  # fmt: skip
    for row in judged.rows:
        label = FIGURES[row.metric].title
        yield h(
            "tr",
            h("th", name, scope="row"),
            td("quantity", label),
            td("ratio", _optional(row.ratio), "tight", present(row.ratio)),
            td("95 %", _range(row.interval), "tight"),
            td("verdict", chip(row.verdict or "n/a")),
            td("because", _because(row)),
        )


def _logged(name: str, entry: Entry) -> Iterator[Html]:
    """What can be said without launches."""
    for metric, found in entry.judged.items():
        ratio = "" if found.ratio is None else number(found.ratio)
        yield h(
            "tr", h("th", name, scope="row"), td("quantity", METRICS[metric].title.lower()),
            td("ratio", ratio, "tight", found.ratio), td("95 %", "", "tight"),
            td("verdict", chip(found.verdict)), td("because", plain(found.reason)),
        )  # fmt: skip


def _because(row: MetricVerdict) -> str:
    sides = [side for side in (row.a, row.b) if isinstance(side, Unavailable)]
    return plain(explain(sides[0]) if sides else "; ".join(filter(None, (row.reason, row.doubt))))


def _optional(value: Maybe[float]) -> str:
    return "" if isinstance(value, Unavailable) else number(value)


def _range(interval: Maybe[tuple[float, float]]) -> str:
    if isinstance(interval, Unavailable):
        return ""
    return f"{number(interval[0])} to {number(interval[1])}"


def caveats(report: Report) -> Html | None:
    found = reports.caveats(report)
    items = [h("li", h("b", plain(what)), ": ", plain(why)) for what, why in found]
    return h("ul", *items, class_="caveats") if items else None


def validity(report: Report) -> Html | None:
    """Every check that some run did not pass; then those that all passed."""
    if not report.results:
        return None
    found: defaultdict[Check, list[str]] = defaultdict(list)
    for result in report.results:
        for check in reports.doubts(result):
            found[check].append(plain(title(result)))
    body = [
        h(
            "tr",
            h("th", plain(check.name), scope="row"),
            td("verdict", chip(check.verdict)),
            td("runs", _which(runs, len(report.results))),
            td("because", join(plain(check.reason), _small(check.threshold))),
        )
        for check, runs in found.items()
    ]
    failed = {check.name for result in report.results for check in reports.doubts(result)}
    passed = {c.name for r in report.results for c in r.validity if c.verdict == "pass"} - failed
    listed = plain(", ".join(sorted(passed)))
    line = h("p", f"Passed by every run that has them: {listed}.", class_="dim") if passed else None
    if not body:
        return join(line)
    return join(line, table(("check", "verdict", "runs", "because"), body, "Checks", "stack"))


def _which(runs: Sequence[str], total: int) -> str:
    return f"all {total}" if len(runs) == total > 1 else "; ".join(dict.fromkeys(runs))


def _small(text: str) -> Html | None:
    return h("small", plain(text)) if text else None


def method(report: Report) -> Html | None:
    """Each machine, and how its runs were measured."""
    if not report.results:
        return None
    found = [_machine(machine, runs) for machine, runs in reports.machines(report.results)]
    return join(
        h(
            "p",
            "The worker is a fresh process that loads the model and loops; sensors are read from"
            " outside. Warm-up ends when latencies are steady; no iteration is removed. What could"
            " not be measured has its reason in its place, never 0.",
            class_="dim",
        ),
        h("div", *(panel for panels in found for panel in panels), class_="columns"),
    )


def _machine(machine: Machine, runs: Sequence[Result]) -> tuple[Html, Html]:
    facts = {**machine.factors, **machine.context, "fingerprint": machine.fingerprint}
    versions = {name: v for run in runs for name, v in run.software.versions.items()}
    ways = {key: text for run in runs for key, text in _method(run).items()}
    return (
        _facts("Machine", facts),
        _facts("Method and software", {**ways, **versions}),
    )


def _method(result: Result) -> dict[str, str]:
    spec, timing = result.spec, result.timing
    if isinstance(timing, Unavailable):
        return {}
    energy = result.energy
    source = explain(energy) if isinstance(energy, Unavailable) else energy.primary
    return {
        "clock": timing.clock,
        "boundary": timing.boundary,
        "scenario": spec.scenario,
        "interval of the median": timing.method.get("median", "none"),
        "energy": source,
    }


def _facts(heading: str, facts: dict[str, str]) -> Html:
    pairs = [
        part
        for name, value in facts.items()
        if value
        for part in (h("dt", plain(name.replace("_", " "))), h("dd", plain(value)))
    ]
    return h("div", h("h3", heading), h("dl", *pairs), class_="panel")


def missing(report: Report) -> Html | None:
    lines = missing_lines(report.board.entries)
    items = []
    for line in lines:
        what, _, why = line.partition(": ")
        items.append(h("tr", h("th", what, scope="row"), h("td", why)))
    return table(("quantity", "why"), items, "Missing") if items else None


def runs(report: Report) -> Html | None:
    """All figures of each run, as `harness show` prints them."""
    if not report.results:
        return None
    few = len(report.results) <= _OPEN_RUNS
    return join(*(_run(result, few) for result in report.results))


def _run(result: Result, opened: bool) -> Html:
    body = [line for row in rows(result) for line in _lines(row)]
    return h(
        "details",
        h("summary", title(result), h("small", f"{result.status}; {conditions(result)}")),
        h("div", h("table", h("tbody", *body)), h("dl", *_origin(result))),
        open=opened,
    )


def _lines(row: Line) -> Iterator[Html]:
    """A section has a line of its own, so that a phone has room for the figures."""
    if row.section:
        yield h("tr", h("th", row.section, scope="rowgroup", colspan="3"))
    value = chip(row.value) if row.value in get_args(CheckVerdict) else row.value
    yield h("tr", h("td", row.name), h("td", value), h("td", row.note))


def _origin(result: Result) -> list[Html]:
    facts = {"run": result.id, "started": result.started_at, **result.tags}
    if result.software.commit:
        facts["commit"] = result.software.commit
    return [part for k, v in facts.items() for part in (h("dt", plain(k)), h("dd", plain(v)))]
