"""SHA-256 of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from harness.errors import ModelError


def sha256_of(paths: Iterable[Path]) -> str:
    """The SHA-256 of one file; of several, of their names' and contents' digests in order."""
    digests = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}", "check the path") from error
    if len(digests) == 1:
        return digests[0][1]
    return hashlib.sha256(repr(digests).encode()).hexdigest()
