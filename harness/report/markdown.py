"""A report as Markdown for a pull request: the tables, short enough for a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.compare.paired import DESIGN
from harness.compare.verdicts import MetricVerdict
from harness.compression.model import METRICS, Entry
from harness.maybe import Unavailable
from harness.records.metric import FIGURES
from harness.report import gather as reports
from harness.report.gather import Judged, Report
from harness.report.sections import subtitle
from harness.version import __version__
from harness.views.compression import (
    HEADER,
    NO_INTERVAL,
    Cell,
    aurora_note,
    cells,
    missing_lines,
    setting_of,
)
from harness.views.markdown import table_line
from harness.views.operators_compared import change_texts, headline, shown
from harness.views.text import number, plain

LIMIT = 60_000  # characters; GitHub takes 65,536 in a comment
_LONGEST_TEXT = 300  # of one text that is not ours
_LONGEST_PART = 14_000  # of a table or list
_LEFT = (
    "model", "precision", "runtime", "status", "comparison", "quantity", "verdict", "operators of",
    "operator",
)  # fmt: skip


def render(report: Report) -> bytes:
    """The whole file, UTF-8, of at most `LIMIT` characters."""
    entries = report.board.entries
    blocks = [
        f"## {escape(report.title)}",
        escape(subtitle(report)),
        _table(
            ("model", "precision", "runtime", *HEADER[2:], "status"),
            (_figures(entry) for entry in entries),
        ),
        _table(
            ("comparison", "quantity", "ratio", "95 % interval", "verdict"),
            (line for judged in report.judged for line in _verdicts(judged)),
        ),
        _table(
            ("operators of", "operator", "A", "B", "ratio", "95 % interval", "verdict"),
            (line for judged in report.judged for line in _operators(judged)),
        ),
        escape(f"{report.undecided}." if str(report.undecided) else ""),
        _list("Caveats", (f"**{escape(a)}**: {escape(b)}" for a, b in reports.caveats(report))),
        _list("Missing", map(escape, missing_lines(entries))),
        _list("AURORA", (_score(entry) for entry in entries if entry.aurora)),
        f"Made by harness {__version__}, {report.made_at}.",
    ]
    return ("\n\n".join(filter(None, blocks)) + "\n").encode(errors="replace")


def escape(text: str) -> str:
    """One line of plain text: no markup, no mention of a user, no reference to an issue."""
    short = plain(text)
    short = short if len(short) <= _LONGEST_TEXT else f"{short[:_LONGEST_TEXT]}..."
    marked = re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", short)
    return re.sub(r"(@|://|www\.)", "\\1\u200b", marked)  # a space of no width breaks links


def _figures(entry: Entry) -> Sequence[str]:
    model, precision, *others = cells(entry)
    return [model.text, precision.text, setting_of(entry), *map(_figure, others), entry.status]


def _figure(cell: Cell) -> str:
    if cell.note == NO_INTERVAL:
        return f"{cell.text} ({cell.note})"
    if cell.text == "n/a" or not cell.note.startswith("95 %"):
        return cell.text
    return f"{cell.text} ({cell.note.removeprefix('95 % interval ')})"


def _verdicts(judged: Judged) -> Iterable[Sequence[str]]:
    entry = judged.entry
    name = f"{entry.model} {entry.precision} / {judged.reference.precision}"
    name += f", {setting_of(entry)}"
    if not judged.rows and not judged.refusal:
        for metric, found in entry.judged.items():
            ratio = "" if found.ratio is None else number(found.ratio)
            yield name, METRICS[metric].title.lower(), ratio, "", found.verdict
    if judged.refusal:
        yield name, "all", "", "", f"not comparable: {judged.refusal}"
    for row in judged.rows:
        yield name, FIGURES[row.metric].title, *_ratio(row)


def _operators(judged: Judged) -> Iterable[Sequence[str]]:
    """Those that changed, by name; where none is certain, the largest differences as such."""
    found, entry = judged.operators, judged.entry
    if isinstance(found, Unavailable):
        return
    name = f"{entry.model} {entry.precision} / {judged.reference.precision}"
    for row in shown(found):
        *texts, operator = change_texts(row)
        yield name, operator, *texts
    yield name, headline(found), "", "", "", "", ""


def _ratio(row: MetricVerdict) -> tuple[str, str, str]:
    ratio = "" if isinstance(row.ratio, Unavailable) else number(row.ratio)
    bounds = row.interval
    interval = "" if isinstance(bounds, Unavailable) else " to ".join(map(number, bounds))
    return ratio, interval, _verdict(row)


def _verdict(row: MetricVerdict) -> str:
    """With what a reader of a table has to know of it."""
    if row.reason.startswith(DESIGN):
        return f"{row.verdict}, {DESIGN}"
    changed = row.verdict == "inconclusive" and "harness duel" in row.reason
    return f"{row.verdict}: the machine changed; harness duel" if changed else row.verdict or ""


def _score(entry: Entry) -> str:
    score = entry.aurora.score if entry.aurora else 0.0
    name = f"{entry.model}, {entry.precision}, {setting_of(entry)}"
    return f"{escape(name)}: **{score:.1f}** of {escape(aurora_note(entry))}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [table_line(map(escape, line)) for line in body]
    if not lines:
        return ""
    rule = "|".join(":--" if name in _LEFT else "--:" for name in head)
    return "\n".join([table_line(head), f"|{rule}|", *_bounded(lines)])


def _list(heading: str, items: Iterable[str]) -> str:
    """Folded away: a comment is read from the top."""
    lines = _bounded([f"- {item}" for item in items])
    if not lines:
        return ""
    summary = f"<details><summary>{heading}</summary>"
    return "\n".join([summary, "", *lines, "", "</details>"])


def _bounded(lines: Sequence[str]) -> list[str]:
    """As many lines as fit into a part, and how many more there are."""
    kept: list[str] = []
    room = _LONGEST_PART
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            more = f"and {len(lines) - len(kept)} more"
            return [*kept, f"| {more} |" if line.startswith("|") else f"- {more}"]
        kept.append(line)
    return kept
