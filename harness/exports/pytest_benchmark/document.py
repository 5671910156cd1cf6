"""Results as a file of pytest-benchmark, for its command line and for ``--benchmark-compare``.

A cell becomes one benchmark per metric, each in the group of its metric and unit, since
pytest-benchmark knows seconds alone:

    group                      a round is        from
    latency (s)                an iteration      the samples beside the results
    latency_p99 (s)            a launch          the results
    energy_per_inference (J)   a launch          the results
    top1 (share of 1, ...)     the whole cell    the results

``fullname`` is the cell with its metric, the same night after night, and what the fixture
``hwbench`` calls the same measurement. No NaN and no null: what was not measured is left out, and
said. Nothing else is lost either: ``machine_info.harness`` holds the factors of the machines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from harness.analysis.rounds import Rounds, rounds_of, statistics_of
from harness.compare.sides import (
    Measured,
    Side,
    doubts,
    hardware_name,
    measured,
    metrics_of,
    sides_of,
)
from harness.errors import NothingComparable, ResultError, UsageError
from harness.exports.formats import Exported, summed_up
from harness.maybe import Unavailable, explain, present
from harness.records.cell import cell_name, cell_of
from harness.records.metric import Metric
from harness.records.result import Machine, Result
from harness.spec import DEFINING, RunSpec, arguments, unparse
from harness.version import __version__
from harness.views.text import plain

FORMAT_VERSION = "5.3.1"  # of pytest-benchmark, whose definitions these are
LATENCY = "latency"
LATENCY_GROUP = "latency (s)"
_SECONDS = {"ms": 1e3, "s": 1.0}
_IN_NAME = tuple(field.name for field in DEFINING if field.named)
# what sets a cell apart beyond its name
_BEYOND = {field.name: field.identity == "file" for field in DEFINING if not field.named}

Block = dict[str, Any]
LeftOut = tuple[str, str, str]  # cell, metric, why


class _Cell(NamedTuple):
    name: str
    side: Side
    folders: Mapping[str, Path]  # by run id


def export(results: Sequence[Result], paths: Sequence[Path]) -> Exported:
    """The file, in UTF-8, and what it leaves out.

    Raises `UsageError` where a cell was measured on two machines, `NothingComparable` where nothing
    was measured.
    """
    folders = {one.id: path.parent for one, path in zip(results, paths, strict=True)}
    cells = [_Cell(full_name(side.first.spec), side, folders) for side in sides_of(results)]
    _refuse_one_name_for_two(cells)
    left_out: list[LeftOut] = []
    benchmarks = [block for cell in cells for block in _benchmarks(cell, left_out)]
    notes = summed_up(left_out, len(cells))
    if not benchmarks:
        raise NothingComparable("nothing in these runs was measured", "; ".join(notes))
    newest = results[-1]
    document = {
        "machine_info": machine_info(results),
        "commit_info": _commit_info(newest),
        "benchmarks": benchmarks,
        "datetime": newest.started_at,
        "version": FORMAT_VERSION,
        "harness": {
            "version": __version__,
            "results": [result.id for result in results],
            "left_out": list(notes),
        },
    }
    return Exported((json.dumps(document, indent=1, allow_nan=False) + "\n").encode(), notes)


def full_name(spec: RunSpec, metric: str = "") -> str:
    """``digits/onnxruntime/cpu/int8/b1/latency[threads=1]::latency``: one cell, one name."""
    values = {field: value for field, value in unparse(spec).items() if field in _BEYOND}
    for field in [field for field in values if _BEYOND[field]]:
        values[field] = PurePath(values[field].replace("\\", "/")).name.removesuffix(".npz")
    told = ",".join(sorted(flag.removeprefix("--") for flag in arguments(values)))
    name = cell_name(spec) + (f"[{told}]" if told else "")
    return plain(f"{name}::{metric}" if metric else name)


def machine_block(machines: Iterable[Machine]) -> Block:
    """What `harness.pytest_plugin` holds against the machine that it runs on."""
    return {"machines": {machine.fingerprint: dict(machine.factors) for machine in machines}}


def machine_info(results: Sequence[Result]) -> Block:
    """The newest run's machine as pytest-benchmark has it, as far as known; beside it, of all runs,
    what makes them comparable. No host names."""
    machine, versions = results[-1].machine, results[-1].software.versions
    known = {
        "system": machine.factors.get("os"),
        "machine": machine.factors.get("architecture"),
        "processor": machine.factors.get("cpu"),
        "release": machine.context.get("kernel"),
        "python_version": versions.get("python"),
    }
    found: Block = {key: value for key, value in known.items() if value}
    found["cpu"] = {"brand_raw": machine.factors.get("cpu", "")}
    return found | {"harness": machine_block(result.machine for result in results)}


def extra_info(runs: Sequence[Result]) -> Block:
    """What pytest-benchmark stores and never reads: where the figures are from, and the others."""
    first, side = runs[0], Side(tuple(runs))
    figures = [measured(runs, name) for name in metrics_of(first)]
    return {
        "results": [run.id for run in runs],
        "cell": cell_of(first).key,
        "fingerprint": first.machine.fingerprint,
        "hardware": plain(hardware_name(first)),
        "doubts": doubts(side),
        "figures": {
            one.metric.name: {"value": value, "unit": one.metric.unit, "better": one.metric.better}
            for one in figures
            if (value := present(one.value)) is not None
        },
    }


def about(taken: Rounds) -> Block:
    """What a round is."""
    kind = "an iteration" if taken.every == 1 else f"every {taken.every}th iteration"
    return {"round": kind, "iterations": taken.iterations}


def _refuse_one_name_for_two(cells: Sequence[_Cell]) -> None:
    seen: dict[str, _Cell] = {}
    for name, side, folders in cells:
        other = seen.setdefault(name, _Cell(name, side, folders))
        if other.side is not side:
            ids = f"{other.side.first.id} and {side.first.id}"
            alike = other.side.first.machine.fingerprint == side.first.machine.fingerprint
            how = "is the name of two cells" if alike else "was measured on two machines"
            raise UsageError(
                f"{name} {how} ({ids}), and a file has one place for it",
                "export each into a file of its own",
            )


def _benchmarks(cell: _Cell, left_out: list[LeftOut]) -> list[Block]:
    runs = cell.side.finished
    if not runs:
        lost = cell.side.failed[-1]
        why = lost.error.message if lost.error else "no figures"
        left_out.append((cell.name, "", f"{lost.status}: {plain(why)} ({lost.id})"))
        return []
    extra = extra_info(runs)
    found: list[Block] = []
    try:
        taken = rounds_of_runs(runs, cell.folders)
        found.append(_block(cell, LATENCY, LATENCY_GROUP, taken.seconds, extra | about(taken)))
    except ResultError as error:
        left_out.append((cell.name, LATENCY, plain(error.message)))
    for name in metrics_of(runs[0]):
        one = measured(runs, name)
        if not isinstance(one.figures, Unavailable):
            found.append(_of_launches(cell, one, one.figures, extra))
        else:
            left_out.append((cell.name, name, plain(explain(one.figures))))
    return found


def rounds_of_runs(runs: Sequence[Result], folders: Mapping[str, Path]) -> Rounds:
    """The iterations of ``runs``, from the samples in their folders. Raises `ResultError`."""
    from harness.records.samples import read_samples

    taken = rounds_of([read_samples(folders[run.id]) for run in runs])
    if not taken.seconds:
        raise ResultError("the samples hold no timed iteration")
    return taken


def _of_launches(cell: _Cell, one: Measured, figures: Sequence[float], extra: Block) -> Block:
    metric = one.metric
    data = [value / _SECONDS.get(metric.unit, 1.0) for value in figures]
    whole = metric.rule in ("exact", "paired")
    kind = {"round": "the whole cell" if whole else "a launch"}
    return _block(cell, metric.name, _group(metric), data, extra | kind)


def _group(metric: Metric) -> str:
    unit = "s" if metric.unit in _SECONDS else metric.unit or "share of 1"
    return f"{metric.name} ({unit}{', higher is better' if metric.better == 'higher' else ''})"


def _block(cell: _Cell, metric: str, group_name: str, data: Sequence[float], extra: Block) -> Block:
    spec = cell.side.first.spec
    return {
        "group": group_name,
        "name": cell.name,
        "fullname": f"{cell.name}::{metric}",
        "params": {field: getattr(spec, field) for field in _IN_NAME},
        "param": cell.name,
        "extra_info": extra,
        "options": {"timer": "perf_counter_ns", "warmup": True},
        "stats": statistics_of(data) | {"data": list(data)},
    }


def _commit_info(result: Result) -> Block:
    software = result.software
    commit = software.commit
    known = {
        "dirty": commit.endswith("-dirty") if commit else None,
        "time": software.commit_time,
        "branch": software.branch,
    }
    told = {key: value for key, value in known.items() if value is not None}
    return {"id": (commit or "unversioned").removesuffix("-dirty"), **told}
