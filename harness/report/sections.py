"""The sections of an HTML report that show figures.

A section is a function of the report; None where it has nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.compare.paired import DESIGN
from harness.compression.model import Entry, Judgement
from harness.compression.ratios import AURORA_TOLERANCE, AURORA_WEIGHTS
from harness.records.result import Machine
from harness.report import gather as reports
from harness.report.gather import Judged, Report
from harness.views.compression import (
    COLUMNS,
    HEADER,
    RATIO_COLUMNS,
    Cell,
    cell,
    cells,
    setting_of,
    value_text,
)
from harness.views.markup import Html, h, join
from harness.views.text import count, number, plain

_COMPONENTS = tuple(name.replace("_", " ") for name in AURORA_WEIGHTS)
_NUMBERS = {*HEADER, *_COMPONENTS, "score", "kept of it"} - {"model", "precision"}
_MOST_CARDS = 24
# components of the score, where there is little room
_SHORT = {"accuracy retention": "accuracy", "speedup": "speed", "size ratio": "size",
          "energy ratio": "energy"}  # fmt: skip
# ratio -> the words for more than 1 and for less
_WORDS = {
    "speedup": ("faster", "slower"),
    "size_ratio": ("smaller", "larger"),
    "energy_ratio": ("less energy", "more energy"),
}


def subtitle(report: Report) -> str:
    """How many runs, from when to when, where."""
    results = report.results
    logged = sum(entry.run not in report.sides for entry in report.board.entries)
    others = count(logged, "entry", "entries") + " imported or logged" if logged else ""
    if not results:
        return others
    first, last = results[0].started_at[:10], results[-1].started_at[:10]
    when = first if first == last else f"{first} to {last}"
    where = [_processor(machine) for machine, _ in reports.machines(results)]
    runs = f"{count(len(results), 'run')}, {when}, on {'; '.join(where)}"
    return f"{runs}, and {others}" if others else runs


def _processor(machine: Machine) -> str:
    factors = machine.factors
    device = factors.get("gpu") or factors.get("device_name")
    return plain(" with ".join(filter(None, (factors.get("cpu", machine.fingerprint), device))))


# -- at a glance -----------------------------------------------------------------------------------


def glance(report: Report) -> Html | None:
    """One card per comparison: what compression gained and cost."""
    found = [_card(judged) for judged in report.judged[:_MOST_CARDS]]
    more = len(report.judged) - len(found)
    rest = h("p", f"and {count(more, 'comparison')} more, in the tables", class_="dim")
    return join(h("div", *found, class_="cards"), rest if more else None) if found else None


def _card(judged: Judged) -> Html:
    entry, reference = judged.entry, judged.reference
    lines = [
        _change("Latency", entry, "latency_ms", "speedup"),
        _change("Energy", entry, "energy_j", "energy_ratio"),
        _change("Size", entry, "model_size_mb", "size_ratio"),
        _memory(entry),
        _accuracy(entry),
    ]
    backend, *others = setting_of(entry).split(", ")
    place = f"{backend} on {plain(entry.info['device'])}" if "device" in entry.info else backend
    where = ", ".join(filter(None, [place, *others]))
    against = f"{plain(entry.precision)} against {plain(reference.precision)}"
    told = ", ".join(filter(None, (against, where)))
    return h(
        "article", h("h3", plain(entry.model)), h("small", told),
        h("ul", *lines), _open_question(entry), _score(entry), class_="card",
    )  # fmt: skip


def _open_question(entry: Entry) -> Html | None:
    """Why the latencies are not told apart, and what would do it."""
    latency = entry.judged.get("latency_ms")
    if latency is None or latency.verdict not in ("inconclusive", "not comparable"):
        return None
    told = "; ".join(filter(None, (latency.reason, entry.advice)))
    return h("p", h("small", plain(f"Latency: {told}")), class_="open")


def _change(label: str, entry: Entry, metric: str, ratio: str) -> Html | None:
    value, judged = entry.ratios.get(ratio), entry.judged.get(metric)
    if value is None or value <= 0:  # a script of somebody's may have logged anything
        return _absent(label, entry, metric)
    side_by_side = judged is not None and judged.design == DESIGN and judged.ratio
    if side_by_side and judged is not None and judged.ratio:
        value = 1 / judged.ratio
    more, less = _WORDS[ratio]
    digits = 4 if side_by_side else 3
    if number(max(value, 1 / value), 3) == "1.00" and not side_by_side:
        return _fact(label, "the same", "", judged)
    text = f"{number(value, digits)}× {more}"
    if value < 1:
        text = f"{number(1 / value, digits)}× {less}"
    return _fact(label, text, "better" if value >= 1 else "worse", judged)


def _memory(entry: Entry) -> Html | None:
    saved, judged = entry.ratios.get("memory_reduction_mb"), entry.judged.get("memory_mb")
    if saved is None:
        return None
    if saved == 0:
        return _fact("Memory", "the same", "", judged)
    text = f"{value_text(abs(saved), 'memory_mb')} {'less' if saved > 0 else 'more'}"
    return _fact("Memory", text, "better" if saved > 0 else "worse", judged)


def _accuracy(entry: Entry) -> Html:
    drop, judged = entry.ratios.get("accuracy_drop"), entry.judged.get("accuracy")
    if drop is None:
        return _absent("Accuracy", entry, "accuracy")
    points = drop * (100 if entry.figures["accuracy"].value <= 1 else 1)
    kept = cell(entry, "accuracy").text
    if abs(points) < 0.005:
        return _fact("Accuracy", f"{kept}, nothing lost", "", judged)
    word, better = ("lost", "worse") if points > 0 else ("gained", "better")
    return _fact("Accuracy", f"{kept}, {abs(points):.2f} points {word}", better, judged)


def _fact(label: str, text: str, better: str, judged: Judgement | None) -> Html:
    """A line of a card. What is not certain has no colour."""
    verdict = judged.verdict if judged else "inconclusive"
    certain = verdict in ("improved", "regressed")
    value = h("b", text, class_=better if certain else "")
    bounds = judged_range(judged) if judged and judged.design == DESIGN else ""
    side_by_side = h("small", f" {bounds}, side by side") if bounds else None
    return h(
        "li", h("span", label),
        h("span", chip(verdict), " ", value, side_by_side),
    )  # fmt: skip


def judged_range(judged: Judgement) -> str:
    """``0.95 to 0.97``: the 95 % interval of the ratio; empty where there is none."""
    if judged.low is None or judged.high is None:
        return ""
    return f"ratio {number(judged.low)} to {number(judged.high)}"


def _absent(label: str, entry: Entry, metric: str) -> Html:
    why = plain(entry.missing.get(metric, "not measured for both"))
    return h("li", h("span", label), h("span", "n/a", title=why, class_="absent"))


def _score(entry: Entry) -> Html:
    if entry.aurora is None:
        why = plain(entry.missing.get("aurora", ""))
        return h("div", h("small", f"No AURORA score: {why}"), class_="score")
    left = ", ".join(name.replace("_", " ") for name in entry.aurora.missing)
    note = f"of {', '.join(name.replace('_', ' ') for name in entry.aurora.components)}"
    return h(
        "div", h("span", "AURORA", h("small", f" {note}{'; without ' + left if left else ''}")),
        h("b", f"{entry.aurora.score:.0f}"), class_="score",
    )  # fmt: skip


# -- charts and tables -----------------------------------------------------------------------------


def charts(report: Report) -> Html:
    """Filled by the script."""
    return h("div", class_="charts")


def figures(report: Report) -> Html:
    """Every model at every precision, with intervals and reasons."""
    notes = Notes()
    body = [_row(entry, notes) for entry in report.board.entries]
    head = (*HEADER[:2], "status", *HEADER[2:])
    return join(
        h(
            "p",
            "Latency is the median, memory the peak of the worker in the timed window, size that of"
            " the model's file (1 MB is 10⁶ bytes), energy gross of idle. Speedup, size and AURORA"
            " are against the reference. Launches of one cell are pooled: with several runs a"
            " figure is the median of their launches. In small: the 95 % interval, and of the"
            " score its components.",
            class_="dim",
        ),
        table(head, body, "Models and precisions", "wide stack sortable"),
        notes.html(),
    )


class Notes:
    """Reasons, each once, numbered in the order of their first use."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def mark(self, text: str) -> Html:
        """The number of ``text``, as a link to it."""
        number = self._texts.setdefault(text, len(self._texts) + 1)
        return h("sup", h("a", str(number), href=f"#note-{number}", title=text))

    def html(self) -> Html | None:
        items = (h("li", text, id=f"note-{number}") for text, number in self._texts.items())
        return h("ol", *items, class_="notes") if self._texts else None


def _row(entry: Entry, notes: Notes) -> Html:
    model, precision, *others = cells(entry)
    many = f"{count(entry.launches, 'launch', 'launches')}" if entry.launches else ""
    return h(
        "tr",
        h(
            "th",
            model.text,
            h("small", ", ".join(filter(None, (setting_of(entry), many)))),
            scope="row",
        ),
        td("precision", precision.text),
        td("status", _status(entry.status)),
        *(
            _figure(name, one, value, notes)
            for name, one, value in zip(HEADER[2:], others, _values(entry), strict=True)
        ),
    )


def _values(entry: Entry) -> list[float | None]:
    """By which a row is sorted, in the order of `HEADER`."""
    found = [entry.figures.get(metric) for metric in COLUMNS]
    return [
        *(figure.value if figure else None for figure in found),
        *(entry.ratios.get(name) for name in RATIO_COLUMNS),
        entry.aurora.score if entry.aurora else None,
    ]


def _figure(name: str, one: Cell, value: float | None, notes: Notes) -> Html:
    if not one.text:
        return h("td", class_="number", data_label=name)
    if one.text == "n/a":
        content = h("span", one.text, notes.mark(one.note))
        return h("td", content, class_="number absent", data_label=name)
    content = h("span", one.text, _beside(name, one.note, notes))
    key = {} if value is None else {"data_value": f"{value!r}"}
    return h("td", content, class_="number", data_label=name, **key)


def _beside(name: str, note: str, notes: Notes) -> Html | None:
    """What belongs to a figure: its interval, or how it came about, at the foot of the table."""
    if note.startswith("derived: "):
        return notes.mark(note)
    if name == "AURORA":
        for long, short in _SHORT.items():
            note = note.replace(long, short)
        return h("small", note, class_="parts")
    low, to, high = note.removeprefix("95 % interval ").partition(" to ")
    if to and high.split(" ")[0] == low:
        return None
    return h("small", f"{low} – {high}" if to else note) if note else None


def td(label: str, content: str, kind: str = "", value: float | None = None) -> Html:
    """Nothing at all where there is no content: a phone shows no empty line then. ``value`` is
    what the cell is sorted by."""
    if not content:
        return h("td", class_=kind, data_label=label)
    key = {} if value is None else {"data_value": f"{value!r}"}
    return h("td", h("span", content), class_=kind, data_label=label, **key)


def _status(status: str) -> Html:
    return h("span", plain(status), class_=f"chip {plain(status)}")


def table(head: Iterable[str], body: Sequence[Html], label: str, kind: str = "") -> Html:
    """A table that scrolls sideways where it must; `_NUMBERS` are the heads of its figures."""
    columns = (
        h("th", name, scope="col", class_="number" if name in _NUMBERS else "") for name in head
    )
    return h(
        "div", h("table", h("thead", h("tr", *columns)), h("tbody", *body), class_=kind),
        class_="panel", role="region", aria_label=label, tabindex="0",
    )  # fmt: skip


def chip(text: str) -> Html:
    return h("span", text, class_=f"chip {text.split()[0]}")


def aurora(report: Report) -> Html | None:
    """Each score with its components and weights."""
    scored = [entry for entry in report.board.entries if entry.aurora is not None]
    if not scored:
        return None
    head = ("model", "score", *_COMPONENTS, "kept of it")
    weights = ", ".join(f"{k.replace('_', ' ')} {number(w, 2)}" for k, w in AURORA_WEIGHTS.items())
    return join(
        h(
            "p",
            "The weighted geometric mean of what was kept and gained against the reference, times"
            f" 100: the reference itself has 100. Weights: {weights}; where one is missing, the"
            " others share its weight. Beyond a loss of"
            f" {AURORA_TOLERANCE:.0%} of the accuracy the score falls off (last column).",
            class_="dim",
        ),
        table(
            head,
            [_components(entry, setting_of(entry)) for entry in scored],
            "AURORA scores",
            "wide stack sortable",
        ),
    )


def _components(entry: Entry, runtime: str) -> Html:
    score = entry.aurora
    assert score is not None
    parts = [
        td(head, number(score.components[name], 3), "number", score.components[name])
        if name in score.components
        else td(head, "missing", "number absent")
        for name, head in zip(AURORA_WEIGHTS, _COMPONENTS, strict=True)
    ]
    label = f"{plain(entry.model)}, {plain(entry.precision)} ({runtime})"
    return h(
        "tr", h("th", label, scope="row"),
        td("score", h("b", f"{score.score:.1f}"), "number", score.score),
        *parts, td("kept of it", f"{score.penalty:.0%}", "number", score.penalty),
    )  # fmt: skip
