"""Engines kept between runs: building one takes minutes, loading it takes moments.

    <cache>/tensorrt/<sha256 of the key>.plan     the engine, as `trtexec --loadEngine` takes it
                     <sha256 of the key>.json     its key, its sha256, how long it took to build
                     timing-<sha256>.cache        kernel timings of one device and TensorRT

An engine fits one GPU model, driver, TensorRT version and set of options: all of these are the key,
and the key is in the file too, so that one that was copied or renamed is found out. What is
truncated, changed or of another key is never handed to TensorRT: it is built anew, with a note.

The plan is written first and the record that vouches for it last, each whole or not at all. Where
two processes build the same engine at once, the worst that can come of it is one more build.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
from pathlib import Path

import msgspec

from harness.errors import ResultError
from harness.host.cache_root import default_root
from harness.host.files import write_atomically

_FORMAT = 1  # of the key: counted up when the adapter builds engines in another way
_RECORD_LIMIT_BYTES = 1 << 20
_TIMING_LIMIT_BYTES = 1 << 30
_DIGEST_BYTES = 32


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is bound to, besides the model."""

    gpu: str
    compute_capability: str
    multiprocessors: int  # a slice of a GPU has fewer
    driver: str
    tensorrt: str


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what the builder makes."""

    platform: Platform
    model_sha256: str
    external_data: tuple[tuple[str, int, int], ...]  # name, bytes, time of the files beside it
    inputs: dict[str, tuple[str, tuple[int, ...]]]  # dtype, shape
    shape_values_sha256: str  # of integer inputs, whose values may decide shapes
    options: dict[str, str]
    format: int = _FORMAT

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the JSON beside a plan says."""

    key: EngineKey
    plan_sha256: str
    plan_bytes: int
    build_s: float
    built_at: str
    layers: int | None = None  # of the network, before the builder fused them


class Rejected(msgspec.Struct, frozen=True):
    """Why what lies in the cache is not used."""

    reason: str


class EngineCache:
    """The engines and timings under ``root`` for one key."""

    def __init__(self, key: EngineKey, root: Path | None = None, kind: str = "tensorrt") -> None:
        self.key = key
        self._folder = (default_root() if root is None else root) / kind
        self._plan = self._folder / f"{key.digest}.plan"
        self._record = self._folder / f"{key.digest}.json"
        platform = hashlib.sha256(msgspec.json.encode(key.platform)).hexdigest()
        self._timing = self._folder / f"timing-{platform[:32]}.cache"

    def load(self) -> tuple[bytes, EngineRecord] | Rejected | None:
        """The plan and its record; None where there is neither."""
        try:
            raw = read_file(self._record, _RECORD_LIMIT_BYTES)
            if raw is None:
                return None
            record = msgspec.json.decode(raw, type=EngineRecord)
            if record.key != self.key:
                return Rejected(f"it was built for {_difference(record.key, self.key)}")
            plan = read_file(self._plan, record.plan_bytes)
        except msgspec.MsgspecError:
            return Rejected("its record cannot be read")
        except OSError as error:
            return Rejected(f"it cannot be read: {error.strerror or error}")
        if plan is None:
            return Rejected("the plan is gone")
        if len(plan) != record.plan_bytes or _sha256(plan) != record.plan_sha256:
            return Rejected("the plan was damaged or changed since it was built")
        return plan, record

    def store(self, plan: bytes, build_s: float, built_at: str, layers: int | None = None) -> str:
        """Keep ``plan``; why it could not be kept, or an empty text."""
        record = EngineRecord(
            key=self.key,
            plan_sha256=_sha256(plan),
            plan_bytes=len(plan),
            build_s=build_s,
            built_at=built_at,
            layers=layers,
        )
        return self._write((self._plan, plan), (self._record, msgspec.json.encode(record)))

    def timing(self) -> bytes:
        """The kernel timings of this platform; empty where there are none to be trusted."""
        try:
            data = read_file(self._timing, _TIMING_LIMIT_BYTES) or b""
        except OSError:
            return b""  # a cache that cannot be read costs build time, nothing else
        digest, timing = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return timing if hashlib.sha256(timing).digest() == digest else b""

    def store_timing(self, timing: bytes) -> None:
        """Keep the timings; without them the next build takes longer, nothing else."""
        self._write((self._timing, hashlib.sha256(timing).digest() + timing))

    def _write(self, *files: tuple[Path, bytes]) -> str:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path, data in files:
                write_atomically(path, data)
        except (OSError, ResultError) as error:
            return f"not kept: {error}"
        return ""

    def discard(self) -> None:
        """Remove an engine that TensorRT refused."""
        with contextlib.suppress(OSError):
            self._record.unlink(missing_ok=True)


def read_file(path: Path, limit_bytes: int) -> bytes | None:
    """A regular file's content, one byte beyond ``limit_bytes`` at most; None where it is absent.

    Raises `OSError`, also for a pipe or a device, which could be read for ever.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is no file")
    with path.open("rb") as file:
        return file.read(max(0, min(limit_bytes, found.st_size)) + 1)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _difference(found: EngineKey, wanted: EngineKey) -> str:
    """The first part of the key that differs, with what was found and what is wanted."""
    ours, theirs = (msgspec.to_builtins(key) for key in (wanted, found))
    flat_ours = {**ours.pop("platform"), **ours}
    flat_theirs = {**theirs.pop("platform"), **theirs}
    name = next(name for name in flat_ours if flat_ours[name] != flat_theirs[name])
    return f"{name.replace('_', ' ')} {flat_theirs[name]}, not {flat_ours[name]}"


def external_files(path: Path, size_bytes: int) -> tuple[tuple[str, int, int], ...]:
    """Stamps of the files beside ``path`` where the model has weights outside of it.

    An artifact larger than its file has; its hash may be that of the file alone.
    """
    if size_bytes <= path.stat().st_size:
        return ()
    stamps = [(file.name, file.stat()) for file in path.parent.iterdir() if file != path]
    return tuple(sorted((name, s.st_size, s.st_mtime_ns) for name, s in stamps))
