"""Names of folders, tags and facts from untrusted text, and the name that was meant."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_TAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=@-]{0,99}")
_DIGEST = re.compile(r".*-[0-9a-f]{10}")
_LONGEST_TAG = 200
_LONGEST_TEXT = 2_000  # of one fact about a model: an event is no place for a book


def run_name(model: str) -> str:
    """The name of a model's run folder: the same every time, and another for every other model.

    A tame name is its own. Any other becomes tame by replacing what is not, and unique by a digest
    of the true name, as does a name that looks as if it had one.
    """
    if _TAME.fullmatch(model) and not _DIGEST.fullmatch(model):
        return model
    return f"{tame(model, 80, also='+=@-') or 'model'}-{_digest(model)}"


def tame(text: str, longest: int, *, filler: str = "_", also: str = "") -> str:
    """``text`` as part of a file's name: letters and digits of ASCII, ``_``, ``.`` and ``also``.

    Whatever else becomes ``filler``. At most ``longest`` characters, of which none at an end is a
    dot, ``_`` or ``-``; perhaps none at all.
    """
    return re.sub(rf"[^A-Za-z0-9_.{re.escape(also)}]+", filler, text)[:longest].strip("._-")


def nearest(text: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of ``names`` that ``text`` was perhaps meant to be."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(text, list(names), 1, cutoff)), None)


def tag_name(model: str) -> str:
    """The name as it stands in tags: any script, slashes and spaces, but nothing unprintable.

    No empty step and none of a dot or two, which a reader of paths could stumble over.
    """
    printable = "".join(char if char.isprintable() else " " for char in model)
    steps = [" ".join(step.split()) for step in printable.split("/")]
    name = "/".join(step for step in steps if step.strip("."))
    if len(name) > _LONGEST_TAG:
        name = f"{name[:_LONGEST_TAG].rstrip('/ ')}...{_digest(model)}"
    return name or f"model-{_digest(model)}"


def fact(value: Any) -> str:
    """Whatever is said about a model, as one short text: [1, 3, 8, 8] is 1x3x8x8."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
        text = "x".join(map(str, value))
    elif isinstance(value, Mapping | list | tuple):
        text = json.dumps(value, default=str)
    else:
        text = str(value)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
