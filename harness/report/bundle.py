"""Our ES modules as one classic script, for a page that must be a single file.

Each module becomes a function that returns what it exports; imports become constants. This knows
the forms that our own modules use (``import { a, b as c } from "./x.js"``, ``export`` before a
declaration) and refuses any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"\./([\w-]+\.js)";', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function\*?|const|class) (\w+)", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def bundle(entry: str, read: Callable[[str], str]) -> str:
    """The module ``entry`` and all it imports; ``read`` gives a module's source by its name.

    Raises `ValueError` for an import or export of another form, and for a cycle.
    """
    done: dict[str, str] = {}
    _add(entry, read, done, ())
    modules = "\n".join(f"const {_variable(name)} = {source};" for name, source in done.items())
    return f'(() => {{\n"use strict";\n{modules}\n}})();\n'


def _add(
    name: str, read: Callable[[str], str], done: dict[str, str], above: tuple[str, ...]
) -> None:
    if name in above:
        raise ValueError(f"{name} imports itself by way of {', '.join(above)}")
    if name in done:
        return
    source = read(name)
    for match in _IMPORT.finditer(source):
        _add(match[2], read, done, (*above, name))
    exports = ", ".join(match[2] for match in _EXPORT.finditer(source))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(_constant, source))
    if other := _OTHER.search(body):
        raise ValueError(f"{name} has a form this does not know: {other[0]}")
    done[name] = f"(() => {{\n{body}\nreturn {{ {exports} }};\n}})()"


def _constant(match: re.Match[str]) -> str:
    names = match[1].replace(" as ", ": ")
    return f"const {{{names}}} = {_variable(match[2])};"


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name.removesuffix(".js"))
