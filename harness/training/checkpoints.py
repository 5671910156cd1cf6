"""Checkpoints that survive a kill at any moment, and load without running anybody's code.

    save        weights ──> 000007.pt.tmp ─fsync─rename─> 000007.pt
                record  ──> 000007.json.tmp ─fsync─rename─> 000007.json      <- now it exists
    prune       000004.json away, then 000004.pt

The record (step, metrics, SHA-256 of the weights) is written last and removed first. So a
checkpoint is there as a whole or not at all, and whatever a kill leaves behind is swept up by the
next save. Numbers only grow: the newest is the one saved last, whatever its step.

Weights are read with ``torch.load(weights_only=True)``, which builds tensors and plain values and
refuses every other pickle; a state that could not be read back that way is refused when saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from harness.errors import ModelError, ResultError, UsageError

SCHEMA = "harness.checkpoint/1"
_RECORD = re.compile(r"checkpoint-(\d{6,12})\.json")
_OURS = re.compile(r"checkpoint-(\d{6,12})\.(json|pt)(\.tmp)?")
_LOGGER = logging.getLogger("harness.training")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint's JSON file: what must be known without opening the weights."""

    schema: str
    step: int
    sha256: str
    size_bytes: int
    metrics: dict[str, float] = {}


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint that was loaded. ``skipped``: newer ones that could not be, and why."""

    path: Path
    step: int
    metrics: dict[str, float]
    state: dict[str, Any]  # model, optimizer, scheduler, extra, rng: as saved
    skipped: tuple[str, ...] = ()


class CheckpointManager:
    """The checkpoints in ``folder``: the newest ``max_keep``, and the best.

    Best is least (``mode="min"``) or greatest (``"max"``) in ``metrics[monitor]``; one without that
    metric, or with NaN, never is. ``monitor=None`` keeps the newest alone. One process at a time.

    Raises `UsageError`, or `ResultError` where the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path | str,
        max_keep: int = 3,
        monitor: str | None = "val_loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if max_keep < 1:
            raise UsageError(f"max_keep is {max_keep}", "keep 1 at least")
        if mode not in ("min", "max"):
            raise UsageError(f"mode is {mode!r}", "choose min or max")
        self.folder = Path(folder)
        self.max_keep = max_keep
        self.monitor = monitor
        self.mode = mode
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise ResultError(f"{str(folder)!r} cannot hold checkpoints: {error}") from error

    # -- saving ----------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        model: Any,
        optimizer: Any = None,
        scheduler: Any = None,
        metrics: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Path:
        """Save the ``state_dict`` of each, ``extra`` plain values, and the random states.

        Metrics that are not finite are left out, None among them: a training does not validate in
        every epoch. Returns the file of weights. Raises `ResultError` for the disk (older
        checkpoints stay), and `UsageError` for a state that holds more than tensors and plain
        values, and for a metric that is no number.
        """
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        state = {name: part.state_dict() for name, part in parts.items() if part is not None}
        state |= {"extra": dict(extra or {}), "rng": _random_states()}
        numbers = {name: _number(name, value) for name, value in _metrics(metrics).items()}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        path = self.folder / f"checkpoint-{self._next():06d}.pt"
        try:
            self._sweep()
            record = _write_weights(path, state, step, numbers)
            _write_synced(path.with_suffix(".json"), msgspec.json.encode(record))
            _sync_folder(self.folder)
            self._prune()
        except OSError as error:
            _remove(path.with_suffix(".pt.tmp"), path.with_suffix(".json.tmp"))
            cause = error.strerror or str(error)
            raise ResultError(f"checkpoint {str(path)!r} cannot be written: {cause}") from error
        return path

    def _next(self) -> int:
        taken = (_OURS.fullmatch(name) for name in self._names())
        return max((int(match[1]) for match in taken if match), default=0) + 1

    def _sweep(self) -> None:
        """Remove what a kill left: files without a record."""
        names = set(self._names())
        for name in names:
            match = _OURS.fullmatch(name)
            orphan = match and match[2] == "pt" and f"checkpoint-{match[1]}.json" not in names
            if match and (match[3] or orphan):
                _remove(self.folder / name)

    def _prune(self) -> None:
        records = self.records()
        kept = {*sorted(records)[-self.max_keep :], self.best_path()}
        for path in records.keys() - kept:
            _remove(path.with_suffix(".json"), path)

    # -- looking ---------------------------------------------------------------------------------

    def records(self) -> dict[Path, Record]:
        """Weights file -> record, oldest first. Damaged records are left out."""
        found = {}
        for name in sorted(self._names(), key=lambda name: (len(name), name)):
            if _RECORD.fullmatch(name):
                record = _read_record(self.folder / name)
                if isinstance(record, Record):
                    found[(self.folder / name).with_suffix(".pt")] = record
        return found

    def best_path(self) -> Path | None:
        """The best checkpoint's weights; the earlier of equals. None where none has the metric."""
        return next(iter(self._by_merit(self.records())), None)

    def _by_merit(self, records: Mapping[Path, Record]) -> list[Path]:
        sign = 1 if self.mode == "min" else -1
        values = {p: r.metrics.get(self.monitor or "", math.nan) for p, r in records.items()}
        known = [path for path, value in values.items() if math.isfinite(value)]
        return sorted(known, key=lambda path: sign * values[path])

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)  # noqa: PTH208  names alone
        except OSError as error:
            raise ResultError(f"{str(self.folder)!r} cannot be read: {error}") from error

    # -- loading ---------------------------------------------------------------------------------

    def load(self, which: Literal["latest", "best"] = "latest") -> Checkpoint | None:
        """The newest or the best checkpoint that is whole; None where there is none.

        A damaged one is skipped with a note, for the next older or next best.
        """
        records = self.records()
        order = list(reversed(records)) if which == "latest" else self._by_merit(records)
        skipped = self._damaged_records() if which == "latest" else []
        for path in order:
            record = records[path]
            try:
                state = _read_weights(path, record)
            except (OSError, ResultError) as error:
                skipped.append(f"{path.name}: {error}")
                _LOGGER.warning("checkpoint skipped: %s", skipped[-1])
                continue
            return Checkpoint(path, record.step, record.metrics, state, tuple(skipped))
        return None

    def _damaged_records(self) -> list[str]:
        records = ((name, _read_record(self.folder / name)) for name in sorted(self._names())
                   if _RECORD.fullmatch(name))  # fmt: skip
        return [f"{name}: {record}" for name, record in records if not isinstance(record, Record)]

    def resume(
        self,
        model: Any,
        optimizer: Any = None,
        scheduler: Any = None,
        which: Literal["latest", "best"] = "latest",
        *,
        random_states: bool = True,
    ) -> Checkpoint | None:
        """Load and put back the state of each, the random states too; None for a fresh start.

        Raises `ModelError` where a state does not fit, before anything but the model has changed.
        """
        found = self.load(which)
        if found is None:
            return None
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        wanted = {name: part for name, part in parts.items() if part is not None}
        absent = [name for name in wanted if name not in found.state]
        if absent:
            raise ModelError(f"{found.path.name} holds no {' and no '.join(absent)}")
        for name, part in wanted.items():
            try:
                part.load_state_dict(found.state[name])
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"{found.path.name} does not fit this {name}: {error}") from error
        if random_states:
            try:
                _restore_random_states(found.state.get("rng", {}))
            except (RuntimeError, ValueError, TypeError, AttributeError) as error:
                raise ModelError(f"{found.path.name} holds no random states: {error}") from error
        return found


# -- files ---------------------------------------------------------------------------------------


def _metrics(given: object) -> Mapping[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(
            f"metrics is a {type(given).__name__}", "give a mapping of names to numbers"
        )
    return given or {}


def _number(name: str, value: Any) -> float:
    try:
        value = value.detach() if hasattr(value, "detach") else value
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UsageError(
            f"metric {name!r} is a {type(value).__name__}: {error}", "give one number, or None"
        ) from error


def _write_weights(
    path: Path, state: dict[str, Any], step: int, metrics: dict[str, float]
) -> Record:
    import torch

    temporary = path.with_suffix(".pt.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(_plain(state), file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:  # torch's zip writer hides the system's error
        raise OSError(str(error).splitlines()[0]) from error
    _check_loads(temporary)
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = temporary.stat().st_size
    temporary.replace(path)
    return Record(schema=SCHEMA, step=step, sha256=digest, size_bytes=size, metrics=metrics)


def _check_loads(path: Path) -> None:
    """Mapped, not read: only the structure is looked at."""
    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        _remove(path)
        raise UsageError(
            f"the state holds more than tensors and plain values: {_first_line(error)}",
            "leave that part out, or give its numbers as extra",
        ) from error


def _write_synced(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(f"{path.suffix}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    """Make the renames last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # a leftover costs space alone, and is swept up later
            path.unlink(missing_ok=True)


def _read_record(path: Path) -> Record | str:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"its record cannot be read: {error}"
    return record if record.schema == SCHEMA else f"its schema is {record.schema!r:.40}"


def _read_weights(path: Path, record: Record) -> dict[str, Any]:
    """Raises `OSError`, or `ResultError` for a file that is damaged or is no checkpoint."""
    import torch

    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
            raise ResultError("it is damaged: its checksum differs from the record's")
        file.seek(0)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling errors of many types
            raise ResultError(f"it is refused: {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ResultError("it holds no state by name")
    return state


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's and torch's, which load without a pickle."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        import torch

        return torch.from_numpy(np.ascontiguousarray(value))
    if type(value) in (list, tuple):
        return type(value)(_plain(part) for part in value)
    if type(value) is dict:
        return {name: _plain(part) for name, part in value.items()}
    return value


# -- random states -------------------------------------------------------------------------------


def _random_states() -> dict[str, Any]:
    """Of Python, numpy's global generator, torch and its GPUs."""
    import torch

    numpy_state: Any = np.random.get_state()
    kind, keys, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": [kind, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _restore_random_states(states: Mapping[str, Any]) -> None:
    import torch

    if "python" in states:
        random.setstate(states["python"])
    if "numpy" in states:
        kind, keys, *rest = states["numpy"]
        np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if states.get("cuda") and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
