"""Text of results, models and files, made fit for a terminal: none of it controls the screen."""

from __future__ import annotations


def plain(text: object) -> str:
    """One line without control characters: a result from elsewhere may hold anything."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def visible(text: object) -> str:
    r"""One line that names things exactly: control characters as ``\x1b``, breaks as spaces."""
    return "".join(map(_shown, str(text).strip()))


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else char.encode("unicode_escape").decode()
