"""Does the table of operators say what the runtime's own profiler says?

    python benchmarks/operators.py [--models digits resnet18] [--rounds 12] [--threads 1]

Ours is the table of ``harness profile``: the session's own ``profile_operators`` and the means that
go into a result. Beside it, by hand and in turn with it, each in a session of its own:

* ONNX Runtime: the JSON file that its profiler writes, all kernels' ``dur`` summed.
* PyTorch: the table of ``torch.profiler`` (``key_averages``), the operators' own time summed.

Ours, and that from the JSON file, are of the middle half of the inferences by latency. Printed are
ours over theirs, all operators together and type by type, the median over rounds with its 95 %
interval; and our reading of one and the same recording, which no noise can move. The limit is 2 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import counted, ratio

from harness import registry
from harness.analysis.operators import of_launch
from harness.backends.onnxruntime.profile import read_events
from harness.maybe import Unavailable
from harness.models import prepare
from harness.protocols import SessionOptions
from harness.spec import parse

INFERENCES = 60
LEAST_SHARE = 0.05  # of the time: a type that takes less is not printed by itself
Times = Mapping[str, float]  # operator type -> ms an inference
MARK = "harness inference"  # as our own profile marks them


def ours(session: Any) -> Times:
    """By type, from the rows of the table."""
    found = session.profile_operators(INFERENCES)
    if isinstance(found, Unavailable):
        raise SystemExit(f"cannot profile: {found.reason}")
    return by_type(found)


def by_type(found: Any) -> Times:
    times: defaultdict[str, float] = defaultdict(float)
    for row in of_launch(found, 1.0, Unavailable("no roof is asked for")).rows:
        times[row.type] += row.ms
    return times


def middle(latency: Sequence[float]) -> Sequence[int]:
    """Which inferences are neither among the fastest nor among the slowest quarter."""
    cut = len(latency) // 4
    return [int(i) for i in np.argsort(latency, kind="stable")[cut : len(latency) - cut]]


# -- ONNX Runtime ---------------------------------------------------------------------------------


def onnxruntime_file(path: str, inputs: Mapping[str, Any], threads: int) -> tuple[Any, Any]:
    """The events that its profiler writes, and what the caller waited in ms."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "by-hand"))
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        latency = [timed(lambda: session.run_with_iobinding(binding)) for _ in range(INFERENCES)]
        return json.loads(Path(session.end_profiling()).read_bytes()), latency


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e6


def onnxruntime_sums(events: Any, latency: Sequence[float]) -> Times:
    """``dur`` of every kernel, by operator."""
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")
    kept = [runs[index] for index in middle(latency)]
    times: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if not event["name"].endswith("_kernel_time") or "op_name" not in event.get("args", {}):
            continue
        if any(start <= event["ts"] <= end for start, end in kept):
            times[event["args"]["op_name"]] += event["dur"] / 1e3 / len(kept)
    return times


# -- PyTorch --------------------------------------------------------------------------------------


def pytorch_trace(run: Callable[[], object]) -> Any:
    from torch.profiler import ProfilerActivity, profile, record_function

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        for _ in range(INFERENCES):
            with record_function(MARK):
                run()
    return trace


def pytorch_sums(trace: Any, wanted: Sequence[str]) -> Times:
    """Of the table, the operators' own time; by type the whole of those that are in ours. It knows
    no single inferences: the means are of all."""
    rows = [row for row in trace.key_averages() if "::" in row.key]
    times = {row.key: row.cpu_time_total / 1e3 / INFERENCES for row in rows if row.key in wanted}
    return {**times, "": sum(row.self_cpu_time_total for row in rows) / 1e3 / INFERENCES}


def pytorch_read(trace: Any) -> float:
    """All operators by our reading of the same recording, of all inferences too."""
    by_inference = import_module("harness.backends.pytorch.profile").by_inference
    found: list[list[Any]] = by_inference(trace.profiler.kineto_results.events())
    return float(sum(event.end - event.start for one in found for event in one)) / 1e6 / len(found)


# -- in turn --------------------------------------------------------------------------------------


def rounds_of(model: str, backend_name: str, precision: str, threads: int, rounds: int) -> None:
    backend = registry.backend(backend_name)
    options = SessionOptions(threads=threads)
    prepared = prepare(
        parse({"model": model, "precision": precision}), backend.wants(precision, options)
    )
    with np.load(prepared.inputs_path) as arrays:
        inputs = dict(arrays)
    session: Any = backend.prepare(prepared.artifact, inputs, options)
    ours(session)
    figures: dict[str, tuple[list[float], list[float]]] = {}
    same: list[float] = []
    for _ in counted(rounds, f"{model} {precision} on {backend_name}"):
        mine: Times = ours(session)
        if backend_name == "onnxruntime":
            events, latency = onnxruntime_file(prepared.artifact.path, inputs, threads)
            by_kernel = onnxruntime_sums(events, latency)
            theirs: Times = {**by_kernel, "": sum(by_kernel.values())}
            read = sum(by_type(read_events(events, latency, [], {}, None)).values())
        else:
            trace = pytorch_trace(session._run)
            theirs, read = pytorch_sums(trace, list(mine)), pytorch_read(trace)
        same.append(read / theirs[""])
        mine = {**mine, "": sum(mine.values())}
        for name in mine.keys() & theirs.keys():
            pair = figures.setdefault(name, ([], []))
            pair[0].append(mine[name])
            pair[1].append(theirs[name])
    show(f"{model} {precision}, {backend_name}, {threads} thread(s), {rounds} rounds", figures)
    print(f"  {'one recording, read by both':32} {min(same):.6f} to {max(same):.6f}")


def show(heading: str, figures: Mapping[str, tuple[list[float], list[float]]]) -> None:
    print(f"{heading}; ours / theirs, limit 2 %", flush=True)
    whole = float(np.median(figures[""][0]))
    for name, (mine, theirs) in sorted(figures.items(), key=lambda one: -sum(one[1][0])):
        if np.median(mine) >= LEAST_SHARE * whole:
            took = f"{np.median(mine):8.3f} ms"
            print(f"  {name or 'all operators':32} {ratio(mine, theirs)} {took}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["digits", "resnet18"])
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "pytorch"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for model in given.models:
        for backend in given.backends:
            for precision in given.precisions:
                rounds_of(model, backend, precision, given.threads, given.rounds)


if __name__ == "__main__":
    main()
