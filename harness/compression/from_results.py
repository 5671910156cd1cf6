"""Results of ``harness run`` as a board, and as a file of the compression engine."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.compare.sides import Side
from harness.compare.verdicts import Settings
from harness.compression import engine_file as compression_engine
from harness.compression.apart import told_apart
from harness.compression.model import Board, Entry, Figure, Histogram
from harness.compression.pooled import Pooled, entry_of_side, figure_of, parts_of, pooled
from harness.compression.settings import ALIKE, QUANTIZING, told
from harness.errors import ResultError
from harness.maybe import Unavailable
from harness.records.result import Result
from harness.records.samples import read_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# bins of equal ratio up to this quantile, at most so many; then so many to the slowest of all
_BULK, _BULK_BINS, _TAIL_BINS = 0.95, 60, 12
_FEW = 200  # samples, of which no tail is told apart
_UNITS = {
    "energy_consumption_mw": "average power over the timed window, in mW; no energy",
    "energy_per_inference_j": "joules per inference over the timed window, gross of idle",
    "memory_usage_mb": "peak of the worker in the timed window; 1 MB is 10^6 bytes",
    "model_size_mb": "the model's file; 1 MB is 10^6 bytes",
    "latency_mean_ms": "mean over all iterations; latency_median_ms is the median",
    "accuracy": "top-1, a share of 1",
}


def board_from(
    results: Sequence[Result], folders: Sequence[Path | None] = (), logged: Sequence[Entry] = ()
) -> Board:
    """The board of `boarded`."""
    return boarded(results, folders, logged)[0]


def boarded(
    results: Sequence[Result],
    folders: Sequence[Path | None] = (),
    logged: Sequence[Entry] = (),
    settings: Settings | None = None,
) -> tuple[Board, Pooled]:
    """One entry per cell, with ratios, scores and judgements; those without results come last.

    ``folders`` (one per result) hold the samples, for the distributions of latency.
    """
    given = dict(zip((r.id for r in results), folders or [None] * len(results), strict=True))
    problems: list[str] = []
    found = {r.id: _latencies(r, given[r.id], problems) for r in results}
    pool = pooled(
        results,
        logged,
        latencies={run: one for run, one in found.items() if one is not None},
        folders={run: folder for run, folder in given.items() if folder is not None},
        settings=settings,
    )
    notes = (*_summed_up(problems, len(results)), *pool.problems)
    return Board(entries=pool.entries, notes=notes), pool


def _summed_up(problems: Sequence[str], total: int) -> tuple[str, ...]:
    if len(problems) < 2:
        return tuple(problems)
    return (f"{len(problems)} of {total} runs show no distribution of latency; {problems[0]}",)


def export(results: Sequence[Result], logged: Board | None = None) -> bytes:
    """The compression engine's file: means and milliwatts as it has them, joules beside them.

    One entry a cell, its launches pooled. ``logged``: entries without results, as they are.
    """
    sides = parts_of(results)
    others = logged or Board(entries=())
    entries = _by_technique(told(told_apart([*map(_exported, sides), *others.entries])))
    names = compression_engine.unique_names(entries)
    extra: dict[str, dict[str, Any]] = {**others.extra}
    for name, side in zip(names, sides, strict=False):
        about = extra.setdefault(
            name, {"model_info": _model_info((side.finished or side.failed)[-1])}
        )
        spent_s = sum(run.duration_s for run in (*side.finished, *side.failed))
        about["benchmark_time_seconds"] = about.get("benchmark_time_seconds", 0.0) + spent_s
    named = [
        msgspec.structs.replace(entry, model=name)
        for entry, name in zip(entries, names, strict=True)
    ]
    board = Board(entries=tuple(named), extra=extra, file_extra=others.file_extra)
    return compression_engine.dump(board)


def _by_technique(entries: Sequence[Entry]) -> list[Entry]:
    """``int8`` and ``int8-dynamic``: one model quantized in several ways, under one model."""
    alike: defaultdict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        facts = (entry.info.get(key, "") for key in ("machine", "design", *ALIKE))
        alike[(entry.model, entry.precision, *facts)].append(entry)
    names = {id(e): name for found in alike.values() for e, name in _precisions(found)}
    return [msgspec.structs.replace(entry, precision=names[id(entry)]) for entry in entries]


def _precisions(alike: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """The first keeps the plain name."""
    differ = [k for k in QUANTIZING if len({entry.info.get(k) for entry in alike}) > 1]
    seen = {alike[0].precision}
    for at, entry in enumerate(alike):
        values = [entry.info[key] for key in differ if entry.info.get(key)]
        longer = re.sub(r"[^A-Za-z0-9_.+]+", "-", "-".join([entry.precision, *values]))[:32]
        name = longer.rstrip("-") if at and longer.rstrip("-") not in seen else entry.precision
        seen.add(name)
        yield entry, name


def _model_info(result: Result) -> dict[str, Any]:
    model = result.model
    if isinstance(model, Unavailable):
        return {"library": result.spec.backend}
    random = ", random weights" if model.random_weights else ""
    return {
        "library": result.spec.backend,
        "category": model.source,
        "input_shape": list(model.inputs[0].shape) if model.inputs else [],
        "description": f"{model.name}{random}, inputs from {model.input_data}",
    }


def _exported(side: Side) -> Entry:
    """The entry with the mean for the median; its figures of our own as extra fields."""
    entry = entry_of_side(side, {})
    figures = dict(entry.figures)
    extra: dict[str, Any] = {}
    if (median := figures.pop("latency_ms", None)) is not None:
        extra["latency_median_ms"] = median.value
    mean, watts = figure_of(side, "latency_mean"), figure_of(side, "power_average")
    if not isinstance(mean, Unavailable):
        figures["latency_ms"] = mean
    if not isinstance(watts, Unavailable):
        figures["power_mw"] = Figure(watts.value * 1e3)
    own = compression_engine.Own(
        run=entry.run,
        status=entry.status,
        random_weights=entry.random_weights,
        units=_UNITS,
        intervals={
            name: (figure.low, figure.high)
            for name, figure in figures.items()
            if figure.low is not None and figure.high is not None
        },
        missing=entry.missing,
        info=entry.info | {"latency_statistic": "mean"},
    )
    place = f"{entry.info['backend']} on {entry.info['device']}"
    extra |= {"evaluated_on": place, "harness": msgspec.to_builtins(own)}
    return msgspec.structs.replace(entry, figures=figures, extra=extra)


def _latencies(result: Result, folder: Path | None, problems: list[str]) -> Histogram | None:
    """Of the timed iterations, from the samples beside the result."""
    if folder is None or isinstance(result.timing, Unavailable):
        return None
    import numpy as np

    try:
        samples = read_samples(folder)
    except ResultError as error:
        problems.append(f"{result.id}: no distribution of latency: {error}")
        return None
    timed = samples.timed == 1
    values = samples.latency_ns[timed] / 1e6
    if not len(values):
        return None
    counts, edges = np.histogram(values, bins=_edges(values))
    return Histogram(tuple(edges.tolist()), tuple(float(count) for count in counts))


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bin edges that hold every value, narrow where most of them lie."""
    import numpy as np

    tiny = float(np.finfo(np.float64).tiny)  # a latency of zero has no logarithm
    low, high = max(float(values.min()), tiny), max(float(values.max()), tiny)
    bulk = max(float(np.quantile(values, _BULK)), low) if len(values) >= _FEW else high
    bins = int(np.clip(2 * np.sqrt(len(values)), 4, _BULK_BINS))
    edges = np.geomspace(low, bulk, bins + 1)
    if high > bulk * 1.001:
        edges = np.concatenate([edges, np.geomspace(bulk, high, _TAIL_BINS + 1)[1:]])
    edges = np.unique(edges)
    edges[0], edges[-1] = min(float(values.min()), low), high
    return edges if len(edges) > 1 else np.array([low, low * 1.001])
