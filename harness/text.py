"""Text of results, models and files, made fit for a terminal: none of it controls the screen."""

from __future__ import annotations

LONGEST = 20_000  # characters


def plain(text: object) -> str:
    """One line without control characters: a result from elsewhere may hold anything."""
    return " ".join("".join(c if c.isprintable() else " " for c in _ends(str(text))).split())


def visible(text: object) -> str:
    r"""One line that names things exactly: control characters as ``\x1b``, breaks as spaces."""
    return "".join(map(_shown, _ends(str(text).strip())))


def _ends(text: str) -> str:
    """Of a text that nobody could read, the beginning and the end."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} [...] {text[-half:]}"


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else char.encode("unicode_escape").decode()
