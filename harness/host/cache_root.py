"""Where all caches lie. Imports next to nothing: the worker asks, too."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UsageError


def default_root() -> Path:
    """``$HARNESS_CACHE``, ``$XDG_CACHE_HOME/harness`` or ``~/.cache/harness``.

    Raises `UsageError` for a user who has no home, as in a container that knows no such user.
    """
    if own := os.environ.get("HARNESS_CACHE"):
        return Path(own).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "harness"
    try:
        return Path.home().absolute() / ".cache" / "harness"
    except RuntimeError as error:
        raise UsageError(
            "there is no home folder to keep built models in",
            "point HARNESS_CACHE at a folder of your own",
        ) from error
