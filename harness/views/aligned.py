"""Texts under each other, of which the last column alone wraps, and only between words.

rich's own table folds a long word, such as the path that the reader wants to copy, or crops it.
Here it stands whole, beyond the right edge if need be.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

_GAP = 2
_LEAST_WIDTH = 20  # of the last column, on however narrow a terminal


class Aligned:
    """A rich renderable. ``right``: the columns aligned at the right. A last cell has one style."""

    def __init__(self, rows: Sequence[Sequence[Text]], right: frozenset[int] = frozenset()) -> None:
        self._rows = rows
        self._right = right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        widths = [max(map(_width, column)) for column in zip(*self._rows, strict=True)][:-1]
        indent = sum(widths) + _GAP * len(widths)
        room = max(options.max_width - indent, _LEAST_WIDTH)
        for *cells, last in self._rows:
            start = Text()
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
                padding = " " * (width - _width(cell))
                both = (padding, cell) if index in self._right else (cell, padding)
                start = start + Text.assemble(*both, " " * _GAP)
            for number, line in enumerate(_wrapped(last.plain, room)):
                whole = (start if number == 0 else Text(" " * indent)) + Text(line, last.style)
                whole.no_wrap, whole.overflow = True, "ignore"
                yield whole


def _wrapped(text: str, room: int) -> list[str]:
    # at spaces alone: a path, a flag or an address that is broken cannot be copied
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _width(cell: Text) -> int:
    return cell_len(cell.plain)
