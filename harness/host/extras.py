"""Our own extras, as the installed distribution declares them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_REQUIREMENT = re.compile(r"""\s*([\w.-]+).*;.*\bextra\s*==\s*["']([\w.-]+)["']""")


def extra_for(module: str) -> str | None:
    """The smallest extra that brings ``module``; None where none does.

    A distribution is taken to have the name of the module that it brings.
    """
    from importlib.metadata import PackageNotFoundError, requires  # slow, and seldom needed

    try:
        return smallest(module, requires("hw-harness") or ())
    except PackageNotFoundError:  # run from a folder that nobody installed
        return None


def smallest(module: str, requirements: Iterable[str]) -> str | None:
    """Of ``requirements`` as a distribution's metadata has them, the extra with the fewest."""
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        if found := _REQUIREMENT.match(requirement):
            extras.setdefault(found[2], []).append(found[1].lower().replace("-", "_"))
    brings = [extra for extra, names in extras.items() if module.lower() in names]
    return min(brings, key=lambda extra: len(extras[extra]), default=None)
