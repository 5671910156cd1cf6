"""From the journals of a driver that was killed to the result that it owed.

The samples and the sensors' readings are what they were, and so every figure of a launch that had
ended is the one that an undisturbed run would have stated. Of the launch that was cut short, what
had not been found out yet is absent.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness import registry
from harness.analysis.sampled import Sampled
from harness.engine.driver.journal import Begun, Line, Ready, RunJournal, Seen, read_lines
from harness.engine.driver.saving import Saving
from harness.engine.loads.load import Load
from harness.engine.outcome.evidence import Evidence, Installed, LaunchRecord, window_bounds
from harness.engine.outcome.iterations import Iterations
from harness.engine.sampler.client import SamplerProcess
from harness.errors import MeasurementFailed, ResultError
from harness.records.result import ErrorInfo, Machine, Result, Software
from harness.records.samples import JOURNAL_NAME, Stretch, journal_stretches
from harness.records.store import (
    JOURNAL_SUFFIX,
    MAX_LAUNCHES,
    RESULT_NAME,
    RunFolder,
    read_result,
    series_name,
)
from harness.spec import MAX_STREAMS, RunSpec

_UNKNOWN = Machine(fingerprint="unknown", factors={}, context={})
_NOT_NOTED = Installed(
    software=Software(versions={}, runtime={}, environment={}, commit=None), clock_cost_ms=0.0
)


def recover(folder: Path) -> tuple[Result, list[str]]:
    """Write the result of the run in ``folder``; also what could not be written beside it.

    Raises `ResultError` where no run was killed there, `MeasurementFailed` where it is too large
    for the memory there is.
    """
    journal = RunJournal.of_the_dead(folder)
    problems: list[str] = []
    try:
        evidence = _evidence(folder, read_lines(journal.path))
        saving = Saving(RunFolder(folder), evidence, journal, problems.append)
        if (folder / RESULT_NAME).exists():  # it came as far as that
            return saving.seal(saving.complete(read_result(folder))), problems
        _mark(evidence)
        return saving.seal(saving.save()), problems
    except MemoryError as error:
        raise MeasurementFailed(
            f"there is not enough memory for the samples of {str(folder)!r}", "free some memory"
        ) from error
    finally:
        journal.close()


def _evidence(folder: Path, lines: list[Line]) -> Evidence:
    begun = lines[0]
    assert isinstance(begun, Begun)
    ready = next((line for line in lines if isinstance(line, Ready)), None)
    installed = next((line for line in lines if isinstance(line, Installed)), None)
    seen = {line.launch: line for line in lines if isinstance(line, Seen)}
    blocks = _blocks(folder)
    count = max([*seen, *(block.launch for block in blocks)], default=-1) + 1
    if count > MAX_LAUNCHES or begun.spec.concurrency > MAX_STREAMS:
        raise ResultError(f"the journals of {str(folder)!r} are damaged: no run is so large")
    ends = [int(block.end_ns[-1]) for block in blocks if len(block.end_ns)]
    return Evidence(
        spec=begun.spec,
        id=folder.name,
        started_at=begun.started_at,
        began_ns=begun.began_ns,
        ended_ns=max([begun.began_ns, *(one.at_ns for one in seen.values()), *ends]),
        placement=begun.placement,
        machine=ready.machine if ready else _UNKNOWN,
        installed=installed or _NOT_NOTED,
        prepared=ready.prepared if ready else None,
        launches=[_record(index, seen.get(index), blocks, begun.spec) for index in range(count)],
        samplers=[_sampled(folder, index, seen.get(index), begun.spec) for index in range(count)],
    )


def _blocks(folder: Path) -> list[Stretch]:
    path = folder / JOURNAL_NAME
    return journal_stretches(path) if path.exists() else []


def _record(index: int, seen: Seen | None, blocks: list[Stretch], spec: RunSpec) -> LaunchRecord:
    record = seen.record() if seen else LaunchRecord()
    mine = [block for block in blocks if block.launch == index]
    if not mine:
        record.window_ns = None  # of a window whose iterations no disk took, nothing is known
        return record
    load = registry.load(spec.scenario)
    record.recorders = [
        _iterations([block for block in mine if block.stream == stream], load)
        for stream in range(spec.concurrency)
    ]
    if record.turns is not None:
        for iterations in record.recorders:
            _add_turns(iterations, mine, record.turns.left_out)
    if record.window_ns is None:
        record.window_ns = window_bounds(record.recorders)
        record.stop_reason = record.stop_reason or "interrupted"
    return record


def _iterations(blocks: list[Stretch], load: Load) -> Iterations:
    lengths = [len(block.start_ns) for block in blocks]
    bounds = np.cumsum([0, *lengths])
    timed = [index for index, block in enumerate(blocks) if block.timed]
    window = (int(bounds[timed[0]]), int(bounds[timed[-1] + 1])) if timed else (-1, -1)
    starts = np.concatenate([np.empty(0, np.int64), *(block.start_ns for block in blocks)])
    ends = np.concatenate([np.empty(0, np.int64), *(block.end_ns for block in blocks)])
    names = {name for block in blocks for name in block.others}
    others = {
        # of what was journalled without it, it is the start
        name: np.concatenate([block.others.get(name, block.start_ns) for block in blocks])
        for name in names
    }
    return Iterations.of(starts, ends, window, others, load.counts_from, shared=load.shared)


def _add_turns(iterations: Iterations, blocks: list[Stretch], left_out: int) -> None:
    """A turn is a timed stretch, and of the one before it the iterations that were left out."""
    end = number = 0
    for before, block in pairwise([None, *blocks]):
        assert block is not None
        first, end = end, end + len(block.start_ns)
        if block.timed:
            cold = 0 if before is None else min(left_out, len(before.start_ns))
            iterations.add_turn(first - cold, end, cold, number)
            number += 1


def _sampled(folder: Path, index: int, seen: Seen | None, spec: RunSpec) -> Sampled | None:
    if spec.sample_rate_hz == 0:
        return None
    frames = b""
    with contextlib.suppress(OSError):
        frames = (folder / series_name(index, JOURNAL_SUFFIX)).read_bytes()
    lost = seen.sampler_lost if seen else None
    return SamplerProcess.replayed(frames, tuple(registry.profiler_names()), lost).sampled()


def _mark(evidence: Evidence) -> None:
    """As interrupted, unless something else had ended it before."""
    if not evidence.launches:
        evidence.launches, evidence.samplers = [LaunchRecord()], [None]
    last = evidence.launches[-1]
    if all(record.error is None for record in evidence.launches):
        last.error = ErrorInfo(
            kind="interrupted",
            message="the driver was killed before it had written the result, which was recovered "
            "from its journals",
            remedy="measure again for what is absent",
            phase="",
            stderr_tail="",
        )
