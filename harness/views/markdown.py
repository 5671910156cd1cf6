"""A Result as Markdown: a heading, one table."""

from __future__ import annotations

import re

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
    for row in rows(result):
        section = f"**{row.section}**" if row.section else ""
        cells = (section, *map(escape, row[1:]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """``text`` without anything that Markdown would take for markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
