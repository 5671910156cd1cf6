"""What the index keeps of a result file, read without decoding the rest of it.

A night leaves thousands of files of 20 kB, of which a history needs 30 figures. So a file is
decoded into records that name these alone; whatever else it holds is passed over, unchecked.
Comparisons read the files themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from harness.errors import ResultError
from harness.maybe import Unavailable
from harness.records.cell import Cell, model_path, spec_cell
from harness.records.figures import of_run
from harness.records.metric import FIGURES, METRICS, Metric
from harness.records.result import SCHEMA
from harness.records.store import decode_result, read_bytes
from harness.spec import RunSpec

FIGURES_VERSION = 3  # to be raised where a figure changes its meaning, or its cell
# what a series can be asked for, in the order of the columns
_ALSO = {"accuracy_top1": "top1", "accuracy_f1": "f1"}  # column -> figure
NAMES = (*METRICS, *_ALSO)
FINISHED = ("complete", "degraded")


class _Record(msgspec.Struct, frozen=True):
    """Decodes from anything absent, too: of ``{"unavailable": ...}`` no field is known."""


_Number = float | Unavailable | None
_LAUNCHES = "timing.launches"


class _Model(_Record, frozen=True):
    sha256: str | None = None
    file_sha256: str | None = None


class _Software(_Record, frozen=True):
    commit: str | None = None
    branch: str | None = None


class _Machine(msgspec.Struct, frozen=True):
    fingerprint: str


class _Spec(RunSpec, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A spec of a later version may have more fields."""


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    id: str
    status: str
    started_at: str
    spec: _Spec
    machine: _Machine
    software: _Software = _Software()
    model: _Model = _Model()
    tags: dict[str, str] = {}


class IndexedFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run as the index keeps it. ``values`` are in the order of `NAMES`."""

    id: str
    status: str
    started_at: str
    cell: Cell
    fingerprint: str
    model: str  # `harness.records.cell.model_path`
    model_sha: str | None
    commit: str | None
    branch: str | None
    tags: dict[str, str]
    values: tuple[float | None, ...]

    @property
    def slot(self) -> bytes:
        """A digest of what may be counted once."""
        name = slot_of(self.id, self.cell.key, self.fingerprint, self.tags)
        return hashlib.blake2b("\0".join(name).encode(), digest_size=16).digest()


def slot_of(
    run_id: str, cell_key: str, fingerprint: str, tags: Mapping[str, str]
) -> tuple[str, ...]:
    """What may be counted once: one launch of a sweep, any other run on its own.

    Attempts share a slot. The first that finished counts, or the first at all where none did.
    """
    sweep, launch = tags.get("sweep"), tags.get("launch")
    return (cell_key, fingerprint, sweep, launch) if sweep and launch else (run_id,)


def read_figures(path: str) -> IndexedFigures:
    """The row of the result file ``path``. Raises `ResultError`."""
    data = read_bytes(path)
    try:
        run = _DECODER.decode(data)
        if run.schema == SCHEMA:
            return _row(run)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        pass
    decode_result(data, Path(path))  # which says what is wrong
    raise ResultError(f"{path!r} is damaged", "restore the file, or measure again")


def _row(run: _Run) -> IndexedFigures:
    return IndexedFigures(
        id=run.id,
        status=run.status,
        started_at=run.started_at,
        cell=spec_cell(run.spec),
        fingerprint=run.machine.fingerprint,
        model=model_path(run.spec.model),
        model_sha=run.model.file_sha256 or run.model.sha256,
        commit=run.software.commit,
        branch=run.software.branch,
        tags=run.tags,
        values=tuple(_value(run, metric) for metric in _KEPT),
    )


def _value(run: _Run, metric: Metric) -> float | None:
    found = of_run(run, metric)
    return None if isinstance(found, Unavailable) else found


# --- the fields that hold figures, as far down as they are asked for ---

_Tree = dict[str, Any]  # step of a path -> what is asked for below it


def _tree(metrics: Iterable[Metric]) -> _Tree:
    tree: _Tree = {}
    for metric in metrics:
        for path in metric.of_run or (f"{_LAUNCHES}.{metric.of_launch}",):
            below = tree
            for step in path.split("."):
                below = below.setdefault(step, {})
    return tree


def _fields(tree: _Tree, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, type, default) of each field of a record: a number, or what holds some."""
    for name, below in tree.items():
        here = f"{path}.{name}".lstrip(".")
        keys = [step for step in below if step.startswith("*")]
        for key in keys:
            yield key[1:], str, ""
            yield name, dict[str, _record(name, below[key], here)], {}  # type: ignore[misc]
        if not below:
            yield name, _Number, None
        elif here == _LAUNCHES:
            yield name, tuple[_record(name, below, here), ...], ()  # type: ignore[misc]
        elif not keys:
            record = _record(name, below, here)
            yield name, record, record()


def _record(name: str, tree: _Tree, path: str) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, list(_fields(tree, path)), bases=(_Record,), frozen=True)


_KEPT = [FIGURES[_ALSO.get(name, name)] for name in NAMES]
_RUN = msgspec.defstruct(
    "Run", list(_fields(_tree(_KEPT))), bases=(_Run,), frozen=True, kw_only=True
)
_DECODER = msgspec.json.Decoder(cast("type[_Run]", _RUN))
