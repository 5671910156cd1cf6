"""Code that the user names as ``module:name``, which may lie in the current folder.

The current folder comes first while that module is imported, and last from then on: so the user's
modules find each other, and a ``random.py`` beside them shadows nothing of what a runtime imports
when it is used.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_module(name: str) -> ModuleType:
    """The module called ``name``. Raises whatever it raises."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
