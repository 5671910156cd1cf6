"""A Result as Markdown: a heading, one table."""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.records.result import Result
from harness.views.text import plain, rows, subtitle, title


def render_markdown(result: Result) -> str:
    """The rows of the terminal's table as a Markdown table."""
    lines = [
        f"### {escape(title(result))}: {result.status}",
        "",
        f"{escape(subtitle(result))}; run {escape(plain(result.id))}",
        "",
        "| | | | |",
        "|:--|:--|--:|:--|",
    ]
    for line in rows(result):
        section = f"**{line.section}**" if line.section else ""
        lines.append(table_line([section, *map(escape, line[1:])]))
    return "\n".join(lines) + "\n"


def table_line(cells: Iterable[str]) -> str:
    """One line of a table, of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """``text`` without anything that Markdown would take for markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
