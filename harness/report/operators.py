"""The section of a report on operators: where the time of each profiled run goes, what changed."""

from __future__ import annotations

from collections.abc import Iterator

from harness.maybe import Maybe, Unavailable
from harness.records.operators import Operators
from harness.report.gather import Judged, Report
from harness.report.sections import chip, table, td
from harness.views.markup import Html, h, join
from harness.views.operators import half_width, named, operations_text, roof_text, summary
from harness.views.operators_compared import change_texts, headline, remarks, shown
from harness.views.text import count, plain, quantity, title
from harness.views.text import subtitle as conditions

_SLOWEST, _MOST_RUNS = 15, 12
_HEAD = ("operator", "type", "precision", "share", "time", "± 95 %", "operations", "of roof")
_CHANGES = ("operator", "A", "B", "ratio", "95 %", "verdict")
_NONE = Unavailable("not known of several together")


def operators(report: Report) -> Html | None:
    """A table for each profiled run, with its remainder; then what `harness compare` says of
    them."""
    profiled = [run for run in report.results if not isinstance(run.operators, Unavailable)]
    if not profiled:
        return None
    more = len(profiled) - _MOST_RUNS
    return join(
        h(
            "p",
            "Profiled after the timed window, under the runtime's own profiler, which makes an"
            " inference slower: shares are of the profiled inference. A roof is the fastest that"
            " this machine did such work through the same runtime.",
            class_="dim",
        ),
        *(
            part
            for run in profiled[:_MOST_RUNS]
            if not isinstance(run.operators, Unavailable)
            for part in (
                h("h3", title(run), " ", h("small", conditions(run))),
                table(_HEAD, list(_rows(run.operators)), f"Operators of {title(run)}", "stack"),
                h("ul", *(h("li", text) for text in summary(run.operators)), class_="notes"),
            )
        ),
        h("p", f"and {count(more, 'profiled run')} more", class_="dim") if more > 0 else None,
        *(part for judged in report.judged for part in _changes(judged)),
    )


def _rows(found: Operators) -> Iterator[Html]:
    """The slowest operators, the others together, the remainder."""
    ordered = sorted(found.rows, key=lambda row: -row.ms)
    longest = ordered[0].share if ordered else 1.0
    for row in ordered[:_SLOWEST]:
        work = operations_text(row.operations), roof_text(row.roof)
        texts = row.type, row.precision, *work
        yield _row(named(row), row.share, longest, row.ms, row.ci95_ms, texts)
    if rest := ordered[_SLOWEST:]:
        share, ms = sum(row.share for row in rest), sum(row.ms for row in rest)
        yield _row(f"{count(len(rest), 'operator')} more", share, longest, ms, _NONE)
    left = found.remainder
    if not isinstance(left, Unavailable):
        name = "remainder: the runtime, the profiler, the caller"
        yield _row(name, left.share, longest, left.ms, left.ci95_ms)


def _row(
    name: str,
    share: float,
    longest: float,
    ms: float,
    interval: Maybe[tuple[float, float]],
    others: tuple[str, str, str, str] = ("", "", "", ""),
) -> Html:
    kind, precision, work, roof = map(plain, others)
    width = max(0.0, min(1.0, share / longest)) if longest else 0.0
    bar = h("i", class_="share", style=f"width:{width:.1%}")
    times = quantity(ms, "ms"), half_width(ms, interval)
    return h(
        "tr", h("th", name, scope="row"), td("type", kind), td("precision", precision),
        h("td", h("span", f"{share:.1%}", bar), data_label="share"),
        *(td(label, text, "tight") for label, text in
          zip(_HEAD[4:], (*times, work, roof), strict=True)),
    )  # fmt: skip


def _changes(judged: Judged) -> Iterator[Html]:
    found, entry = judged.operators, judged.entry
    if isinstance(found, Unavailable):
        return
    name = plain(f"{entry.model}, {entry.precision} (B) against {judged.reference.precision} (A)")
    yield h("h3", name)
    yield h("p", headline(found))
    body = []
    for row in shown(found):
        *times, verdict, text = change_texts(row)
        cells = (td(label, one, "tight") for label, one in zip(_CHANGES[1:5], times, strict=True))
        verdict_cell = td("verdict", chip(verdict))
        body.append(h("tr", h("th", text, scope="row"), *cells, verdict_cell))
    if body:
        yield table(_CHANGES, body, f"Operators of {name}", "stack")
    yield h("ul", *(h("li", text) for text in remarks(found)), class_="notes")
