"""What the index keeps of a result file, read without decoding the rest of it.

A night leaves thousands of files of 20 kB, of which a history needs 30 figures. So a file is
decoded into records that name these alone; whatever else it holds is passed over, unchecked.
Comparisons read the files themselves.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from harness.errors import ResultError
from harness.records.cell import Cell, model_path, spec_cell
from harness.records.metric import METRICS
from harness.records.result import SCHEMA
from harness.records.store import decode_result, read_bytes
from harness.spec import RunSpec

FIGURES_VERSION = 2  # to be raised where a figure of `_values` changes its meaning
# what a series can be asked for, in the order of the columns
NAMES = tuple(dict.fromkeys((*METRICS, "accuracy_top1", "accuracy_f1")))
FINISHED = ("complete", "degraded")


class _Record(msgspec.Struct, frozen=True):
    """Decodes from anything absent, too: of ``{"unavailable": ...}`` no field is known."""


_Number = float | _Record | None


class _Latency(_Record, frozen=True):
    median: _Number = None
    mean: _Number = None
    p90: _Number = None
    p95: _Number = None
    p99: _Number = None
    p99_9: _Number = None


class _Launch(_Record, frozen=True):
    first_inference_ms: _Number = None
    load_s: _Number = None


class _Timing(_Record, frozen=True):
    latency_ms: _Latency = _Latency()
    device_ms: _Latency = _Latency()
    launches: tuple[_Launch, ...] = ()


class _Throughput(_Record, frozen=True):
    inferences_per_s: _Number = None


class _Spread(_Record, frozen=True):
    value: _Number = None


class _Source(_Record, frozen=True):
    average_power_w: _Number = None


class _Energy(_Record, frozen=True):
    primary: str = ""
    joules_per_inference: _Spread = _Spread()
    sources: dict[str, _Source] = {}


class _Device(_Record, frozen=True):
    allocator_peak_bytes: _Number = None
    process_bytes: _Number = None


class _Memory(_Record, frozen=True):
    window_peak_bytes: _Number = None
    device: _Device = _Device()


class _Precision(_Record, frozen=True):
    file_size_bytes: _Number = None


class _Accuracy(_Record, frozen=True):
    top1: _Number = None
    macro_f1: _Number = None


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
    precision: _Precision = _Precision()
    accuracy: _Accuracy = _Accuracy()
    timing: _Timing = _Timing()
    throughput: _Throughput = _Throughput()
    energy: _Energy = _Energy()
    memory: _Memory = _Memory()
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


_DECODER = msgspec.json.Decoder(_Run)


def _row(run: _Run) -> IndexedFigures:
    found = _values(run)
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
        values=tuple(_float(found.get(name)) for name in NAMES),
    )


def _values(run: _Run) -> dict[str, _Number]:
    """Metric name -> the run's figure, in the unit of the metric."""
    latency, launches = run.timing.latency_ms, run.timing.launches
    source = run.energy.sources.get(run.energy.primary, _Source())
    device = run.memory.device
    return {
        "latency_median": latency.median,
        "latency_mean": latency.mean,
        "latency_p90": latency.p90,
        "latency_p95": latency.p95,
        "latency_p99": latency.p99,
        "latency_p99_9": latency.p99_9,
        "device_median": run.timing.device_ms.median,
        "throughput": run.throughput.inferences_per_s,
        "energy_per_inference": run.energy.joules_per_inference.value,
        "power_average": source.average_power_w,
        "memory_peak": run.memory.window_peak_bytes,
        "device_memory_peak": _first_of(device.allocator_peak_bytes, device.process_bytes),
        "file_size": run.precision.file_size_bytes,
        "first_inference": _median(launch.first_inference_ms for launch in launches),
        "load": _median(launch.load_s for launch in launches),
        "top1": run.accuracy.top1,
        "accuracy_top1": run.accuracy.top1,
        "accuracy_f1": run.accuracy.macro_f1,
    }


def _median(values: Iterable[_Number]) -> float | None:
    present = [value for value in values if isinstance(value, float | int)]
    return statistics.median(present) if present else None


def _first_of(peak: _Number, held: _Number) -> _Number:
    """As `harness.records.figures` has it."""
    return peak if isinstance(peak, float | int) else held


def _float(value: _Number) -> float | None:
    return float(value) if isinstance(value, float | int) else None
