"""Built products by the hash of all that went into them.

    <root>/<kind>/<sha256 of the key>/product.json      written last, names and stamps the files
                                      model.onnx ...

A product is built in ``<root>/harness-unfinished/PID-XXXXXXXX`` and renamed into place, so that two
processes may build the same one at once and a killed build leaves nothing that could be taken for a
product. One that was damaged since is built anew.

The root may be a folder that others use, too: nothing is removed but what has such a name, and no
link is followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from harness.errors import HarnessError, UsageError
from harness.host.digest import sha256_of
from harness.maybe import decode

T = TypeVar("T")
ABANDONED_S = 86_400
UNFINISHED = "harness-unfinished"
_OURS = re.compile(r"([1-9][0-9]*)-[a-z0-9_]{8}")  # as `Cache._scratch` names them


class NeedsBuilder(Exception):
    """A product is absent, and making it takes a framework that this process does not load."""


class Stamp(msgspec.Struct, frozen=True):
    """A file as it was written: unless size and time changed, its content is not read again."""

    size_bytes: int
    mtime_ns: int
    sha256: str


class _Stored(msgspec.Struct, frozen=True):
    record: msgspec.Raw
    files: dict[str, Stamp]


class Product(msgspec.Struct, Generic[T], frozen=True):
    """A product's folder, its record and the stamps of its files."""

    folder: Path
    record: T
    files: dict[str, Stamp]


class Cache:
    """``building`` is true in the one process that may load frameworks."""

    def __init__(self, root: Path, building: bool) -> None:
        self.root = root
        self.building = building

    def product(
        self,
        kind: str,
        key: Any,
        record: type[T],
        build: Callable[[Path], T],
        *,
        light: bool = False,
    ) -> Product[T]:
        """The product of ``key``, built by ``build(folder)`` where it is absent or damaged.

        ``light`` products need no framework and are built anywhere. Raises `NeedsBuilder`,
        `UsageError` where the cache cannot be written, and whatever ``build`` raises.
        """
        digest = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()
        folder = self.root / kind / digest
        found = _load(folder, record)
        if found is not None:
            return found
        if not (light or self.building):
            raise NeedsBuilder
        return self._store(kind, lambda *_: digest, record, build)

    def by_content(
        self, kind: str, record: type[T], build: Callable[[Path], T], salt: str
    ) -> Product[T]:
        """A product that is always built, under the hash of what came out (and ``salt``)."""
        if not self.building:
            raise NeedsBuilder

        def digest(folder: Path, made: T) -> str:
            key = [salt, sha256_of(sorted(folder.iterdir())), made]
            return hashlib.sha256(msgspec.json.encode(key)).hexdigest()

        return self._store(kind, digest, record, build)

    def _store(
        self,
        kind: str,
        digest: Callable[[Path, T], str],
        record: type[T],
        build: Callable[[Path], T],
    ) -> Product[T]:
        temporary = self._temporary()
        try:
            made = build(temporary)
            folder = self.root / kind / digest(temporary, made)
            _seal(temporary, made)
            return self._publish(temporary, folder, record)
        except OSError as error:
            if not (self._is_ours(error) or _is_of_full_disk(error)):
                raise
            raise self._unwritable(error.strerror or str(error)) from error
        except HarnessError as error:  # what a library said of it may sound like the model's fault
            if not _is_of_full_disk(error):
                raise
            raise self._unwritable(os.strerror(errno.ENOSPC)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _is_ours(self, error: OSError) -> bool:
        """Whether it is about the cache: a library's is about files and hosts of its own."""
        if isinstance(error.filename, str):
            return Path(error.filename).is_relative_to(self.root)
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

    def _unwritable(self, why: str) -> UsageError:
        return UsageError(
            f"the cache {self.root} cannot be written: {why}",
            "free some space, or point HARNESS_CACHE at another folder",
        )

    def _temporary(self) -> Path:
        """A folder to build in. Away with what was abandoned in the one for all of them."""
        parent = self.root / UNFINISHED
        try:
            parent.mkdir(parents=True, exist_ok=True)
            if parent.is_symlink():
                raise UsageError(f"{str(parent)!r} is a link", "remove it")
            for old in self._unfinished():
                if time.time() - old.lstat().st_mtime > ABANDONED_S:
                    shutil.rmtree(old, ignore_errors=True)
            return self._scratch()
        except OSError as error:
            raise UsageError(
                f"the cache {self.root} cannot be written: {error.strerror}",
                "point HARNESS_CACHE at a folder of your own",
            ) from error

    def _scratch(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.root / UNFINISHED))

    def _unfinished(self, pid: int | None = None) -> list[Path]:
        """The folders that were made here, of process ``pid`` if one is given."""
        parent = self.root / UNFINISHED
        if parent.is_symlink() or not parent.is_dir():
            return []
        return [
            path
            for path in parent.iterdir()
            if (ours := _OURS.fullmatch(path.name))
            and pid in (None, int(ours[1]))
            and path.is_dir()
            and not path.is_symlink()
        ]

    def sweep(self, pid: int) -> None:
        """Remove what process ``pid``, which has ended, left half-built."""
        for folder in self._unfinished(pid):
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, temporary: Path, folder: Path, record: type[T]) -> Product[T]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(100):
            try:
                temporary.rename(folder)
            except OSError:
                # another process was first, or what lies there is damaged
                if (found := _load(folder, record)) is not None:
                    return found
                self._move_away(folder)
            else:
                break
        found = _load(folder, record)
        if found is None:
            raise OSError(errno.EBUSY, "it changes while it is read", str(folder))
        return found

    def _move_away(self, folder: Path) -> None:
        grave = self._scratch()
        try:
            folder.rename(grave / "damaged")
        except FileNotFoundError:
            pass  # another process did so first
        finally:
            shutil.rmtree(grave, ignore_errors=True)


def _is_of_full_disk(error: BaseException | None) -> bool:
    """Whether ``error`` comes of a full disk, through however many others, or says so in words."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _seal(folder: Path, record: Any) -> None:
    files = {
        str(path.relative_to(folder)): Stamp(
            path.stat().st_size, path.stat().st_mtime_ns, sha256_of([path])
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    stored = _Stored(msgspec.Raw(msgspec.json.encode(record)), files)
    (folder / "product.json").write_bytes(msgspec.json.encode(stored))


def _load(folder: Path, record: type[T]) -> Product[T] | None:
    try:
        stored = msgspec.json.decode((folder / "product.json").read_bytes(), type=_Stored)
        made = decode(stored.record, record)
        if all(_intact(folder / name, stamp) for name, stamp in stored.files.items()):
            return Product(folder, made, stored.files)
    except (OSError, msgspec.DecodeError):
        return None
    return None


def _intact(path: Path, stamp: Stamp) -> bool:
    found = path.stat()
    if found.st_size != stamp.size_bytes:
        return False
    return found.st_mtime_ns == stamp.mtime_ns or sha256_of([path]) == stamp.sha256
