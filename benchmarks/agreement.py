"""Does Harness report what a careful engineer would measure by hand?

    python benchmarks/agreement.py [--models digits resnet18] [--rounds 30]

Two comparisons, both interleaved, ours over theirs with the 95 % interval between rounds:

* ``session``: our timed loop and a hand-written one over the same ONNX Runtime session with the
  same bound inputs and outputs, in one process, in blocks of half a second.
* ``process``: ``harness run`` and a hand-written script, each in fresh processes with the same
  session options. This adds what differs between processes, so it needs more rounds for the same
  certainty.

The limit is a median within 1 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from interleaved import in_turn, ratio

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.engine.loads.closed import timed_chunk
from harness.engine.wire.timeline import Timeline
from harness.models import prepare
from harness.protocols import SessionOptions, Wanted
from harness.spec import RunSpec

BLOCK_S = 0.5
BY_HAND = """
import statistics, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
binding = session.io_binding()
for name, array in numpy.load(sys.argv[2]).items():
    binding.bind_cpu_input(name, array)
for output in session.get_outputs():
    binding.bind_output(output.name)
times, began = [], time.perf_counter_ns()
while time.perf_counter_ns() - began < float(sys.argv[4]) * 1e9:
    start = time.perf_counter_ns()
    session.run_with_iobinding(binding)
    end = time.perf_counter_ns()
    times.append(end - start)
print(statistics.median(times[len(times) // 4:]) / 1e6)
"""


def same_session(model: str, threads: int, rounds: int) -> str:
    """Median of our loop over the median of a hand-written one, on one session."""
    prepared = prepare(RunSpec(model=model), Wanted("onnx"))
    with np.load(prepared.inputs_path) as arrays:
        inputs = dict(arrays)
    session: Any = OnnxRuntimeBackend().prepare(
        prepared.artifact, inputs, SessionOptions(threads=threads)
    )
    session.enqueue()
    session.synchronize()
    enqueue, synchronize = session.enqueue, session.synchronize
    native, binding = session._loaded.session, session._binding.native

    def by_hand() -> float:
        times, began = [], time.perf_counter_ns()
        while time.perf_counter_ns() - began < BLOCK_S * 1e9:
            start = time.perf_counter_ns()
            native.run_with_iobinding(binding)
            end = time.perf_counter_ns()
            times.append(end - start)
        return statistics.median(times)

    timeline = Timeline.create(1, 1 << 20)
    stream = timeline.streams[0]

    def ours() -> float:
        count, began = 0, time.perf_counter_ns()
        while time.perf_counter_ns() - began < BLOCK_S * 1e9 and count < stream.capacity - 16:
            timed_chunk(enqueue, synchronize, stream, count, count + 16)
            count += 16
        starts, ends = np.array(stream.starts[:count]), np.array(stream.ends[:count])
        return float(np.median(ends - starts))

    by_hand()
    figures = in_turn({"ours": ours, "by hand": by_hand}, rounds, f"{model}, one session")
    timeline.close()
    return ratio(figures["ours"], figures["by hand"])


def fresh_processes(model: str, threads: int, rounds: int) -> str:
    """The median that ``harness run --json`` prints over that of the script."""
    prepared = prepare(RunSpec(model=model), Wanted("onnx"))

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--model", model, "--threads", str(threads), "--duration", "2"]
            out = _run("-m", "harness", "run", *flags, "--json", "--out", folder)
        return float(json.loads(out)["timing"]["latency_ms"]["median"])

    def by_hand() -> float:
        paths = [prepared.artifact.path, prepared.inputs_path]
        return float(_run("-c", BY_HAND, *paths, str(threads), "2.7"))

    figures = in_turn({"ours": ours, "by hand": by_hand}, rounds, f"{model}, fresh processes")
    return ratio(figures["ours"], figures["by hand"])


def _run(*args: str) -> str:
    return subprocess.run(
        [sys.executable, *args], check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["digits", "resnet18"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for model in given.models:
        print(
            f"{model}, batch 1, {given.threads} thread(s), {given.rounds} rounds; limit 1 %",
            flush=True,
        )
        print("  session  ours / by hand =", same_session(model, given.threads, given.rounds))
        print("  process  ours / by hand =", fresh_processes(model, given.threads, given.rounds))


if __name__ == "__main__":
    main()
