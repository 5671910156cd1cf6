"""Is what Harness says of a GPU what a careful engineer would measure by hand? Needs one.

    python benchmarks/gpu.py [--device cuda:0] [--model resnet50] [--batches 1 32] [--rounds 100]
                             [--only by-hand trtexec graphs energy profilers] [--json]

All comparisons are interleaved, in one run; each line is a median over rounds and its 95 %
interval:

* ``by hand``: our timed loop, with its device events and without, and two hand-written ones (what
  those differ by is what the method resolves) with the same boundary (inputs on the device, outputs
  left there, until they are ready), in one process, in blocks of 50 ms. PyTorch: the same
  module on a stream of its own. ONNX Runtime: sessions made by hand; all choose convolutions by
  heuristics, since a search by time may end differently in each. The goal is 1 %.
* ``trtexec``, where it is installed: its GPU compute time, and the device time of our ``tensorrt``
  backend, each in fresh processes.
* ``CUDA graph``: the host's latency of a replay over that of plain launches, per backend.
* ``energy``: NVML's counter over the integral of its power, of one run of ours.
* ``profilers``: the latency with all sensors read over that without, of one run of ours.

Without a GPU: one line, exit code 3.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from interleaved import in_turn, interval, ratio

from harness import registry
from harness.engine.loads.closed import timed_chunk
from harness.engine.wire.timeline import Timeline
from harness.errors import HarnessError
from harness.host.gpus import ORDER, cuda_device, device_order
from harness.maybe import Unavailable, explain
from harness.models import prepare
from harness.protocols import Session, SessionOptions, TensorSpec, Wanted
from harness.spec import RunSpec, parse_device

BLOCK_S = 0.05  # short turns cancel what drifts
GOAL = 0.01
TRTEXEC_S = 3
AS_JSON = "--json"
PARTS = ("by-hand", "trtexec", "graphs", "energy", "profilers")
BACKENDS = ("pytorch", "onnxruntime", "tensorrt")
ARMED = 1 << 10  # iterations of a block that have device events


def session_of(backend: str, given: argparse.Namespace, batch: int, **options: str) -> Session:
    """One of ours, its first inference done."""
    chosen = SessionOptions(device=given.device, options=options)
    adapter = registry.backend(backend)
    spec = RunSpec(model=given.model, backend=backend, device=given.device, batch_size=batch)
    prepared = prepare(spec, adapter.wants("fp32", chosen))
    with np.load(prepared.inputs_path) as arrays:
        session = adapter.prepare(prepared.artifact, dict(arrays), chosen)
    session.enqueue()
    session.synchronize()
    return session


def ours(session: Any, events: bool = True) -> Callable[[], float]:
    """A block of our own timed loop, with device events or without: the median in ns."""
    timeline = Timeline.create(1, 1 << 13)
    stream = timeline.streams[0]

    def block() -> float:
        session.arm(ARMED if events else 0)
        enqueue, synchronize = session.enqueue, session.synchronize
        count, began = 0, time.perf_counter_ns()
        while time.perf_counter_ns() - began < BLOCK_S * 1e9 and count < stream.capacity - 16:
            timed_chunk(enqueue, synchronize, stream, count, count + 16)
            count += 16
        starts, ends = np.array(stream.starts[:count]), np.array(stream.ends[:count])
        return float(np.median(ends - starts))

    return block


def looped(call: Callable[[], object], wait: Callable[[], object]) -> Callable[[], float]:
    """A block of the loop that one would write by hand: the median in ns."""

    def block() -> float:
        times, began = [], time.perf_counter_ns()
        while time.perf_counter_ns() - began < BLOCK_S * 1e9:
            start = time.perf_counter_ns()
            call()
            wait()
            end = time.perf_counter_ns()
            times.append(end - start)
        return statistics.median(times)

    return block


def pytorch_by_hand(session: Any, device: str) -> Callable[[], float]:
    """The session's own module and input, on another stream."""
    import torch

    module, inputs = session._loaded.module, session._feed.bound
    stream = torch.cuda.Stream(device=torch.device(device))
    block = looped(lambda: module(*inputs), stream.synchronize)

    def on_its_stream() -> float:
        with torch.inference_mode(), torch.cuda.stream(stream):
            return block()

    on_its_stream()
    return on_its_stream


def onnxruntime_by_hand(given: argparse.Namespace, batch: int) -> Callable[[], float]:
    """Another session on the same file; a run waits for itself."""
    import onnxruntime as ort

    prepared = prepare(RunSpec(model=given.model, batch_size=batch), Wanted("onnx"))
    index = int(given.device.partition(":")[2])
    chosen = {"device_id": str(index), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    session = ort.InferenceSession(
        prepared.artifact.path, providers=[("CUDAExecutionProvider", chosen)]
    )
    binding = session.io_binding()
    with np.load(prepared.inputs_path) as arrays:
        values = {
            name: ort.OrtValue.ortvalue_from_numpy(array, "cuda", index)
            for name, array in arrays.items()
        }
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", index)

    def call() -> None:
        session.run_with_iobinding(binding)

    block = looped(call, lambda: values)
    block()
    return block


def by_hand(given: argparse.Namespace, backend: str, batch: int) -> None:
    alike = {"conv_search": "heuristic"} if backend == "onnxruntime" else {}
    session: Any = session_of(backend, given, batch, **alike)

    def theirs() -> Callable[[], float]:
        if backend == "pytorch":
            return pytorch_by_hand(session, given.device)
        return onnxruntime_by_hand(given, batch)

    figures = in_turn(
        {
            "ours": ours(session),
            "without events": ours(session, events=False),
            "by hand": theirs(),
            "another by hand": theirs(),
        },
        given.rounds,
    )
    for name in ("ours", "without events"):
        ratios = [a / b for a, b in zip(figures[name], figures["by hand"], strict=True)]
        verdict = kept(interval(ratios))
        text = f"{name} / by hand = {ratio(figures[name], figures['by hand'])}"
        say(f"{backend}, batch {batch}", f"{text}   goal {GOAL:.0%}: {verdict}", verdict)
    control = ratio(figures["another by hand"], figures["by hand"])
    median_ms = statistics.median(figures["by hand"]) / 1e6
    say(f"{backend}, batch {batch}", f"by hand twice = {control}; by hand {median_ms:.4f} ms")
    session.close()


def kept(bounds: tuple[float, float]) -> str:
    """Is a ratio with this interval within the goal? Two intervals that touch tell nothing."""
    low, high = bounds
    if low >= 1 - GOAL and high <= 1 + GOAL:
        return "ok"
    return "OVER" if low > 1 + GOAL or high < 1 - GOAL else "undecided"


def graphs(given: argparse.Namespace, backend: str) -> None:
    batch = given.batches[0]
    plain, graph = (session_of(backend, given, batch, cuda_graph=on) for on in ("off", "on"))
    found = in_turn({"graph": ours(graph), "plain": ours(plain)}, given.rounds)
    text = ratio(found["graph"], found["plain"])
    say(f"{backend}, batch {batch}", f"CUDA graph / plain launches = {text}")
    for session in (plain, graph):
        session.close()


def trtexec_median_ms(text: str) -> float:
    """The median GPU compute time in what trtexec printed. Raises `ValueError`."""
    found = re.search(r"GPU Compute Time:.*?median = ([0-9.]+) ms", text)
    if found is None:
        raise ValueError("trtexec printed no GPU compute time")
    return float(found[1])


def trtexec_shapes(path: str, inputs: Sequence[TensorSpec]) -> list[str]:
    """The flag with the shapes; none for a model that leaves no size open: trtexec refuses it."""
    import onnx

    declared = onnx.load(path, load_external_data=False).graph.input
    sizes = [size for value in declared for size in value.type.tensor_type.shape.dim]
    if all(size.HasField("dim_value") for size in sizes):
        return []
    shapes = (f"{spec.name}:{'x'.join(map(str, spec.shape))}" for spec in inputs)
    return [f"--shapes={','.join(shapes)}"]


def against_trtexec(given: argparse.Namespace, batch: int) -> None:
    program = shutil.which("trtexec")
    if program is None:
        say(f"tensorrt, batch {batch}", "trtexec is not installed (it comes with TensorRT)")
        return
    prepared = prepare(RunSpec(model=given.model, batch_size=batch), Wanted("onnx"))
    shapes = trtexec_shapes(prepared.artifact.path, prepared.artifact.inputs)
    with tempfile.TemporaryDirectory() as folder:
        engine = f"{folder}/engine"
        common = [program, f"--device={given.device.partition(':')[2] or 0}", *shapes]
        built = [f"--onnx={prepared.artifact.path}", "--noTF32", f"--saveEngine={engine}"]
        _run([*common, *built, "--skipInference"])
        timed = [f"--loadEngine={engine}", "--noDataTransfers", f"--duration={TRTEXEC_S}"]

        def theirs() -> float:
            return trtexec_median_ms(_run([*common, *timed]))

        def device_ms() -> float:
            found = _harness(given, "--backend", "tensorrt", "--batch-size", str(batch),
                             "--duration", str(TRTEXEC_S))  # fmt: skip
            return float(found["timing"]["device_ms"]["median"])

        found = in_turn({"ours": device_ms, "trtexec": theirs}, max(5, given.rounds // 20))
    text = ratio(found["ours"], found["trtexec"])
    say(f"tensorrt, batch {batch}", f"our device time / trtexec's = {text}")


def energy(given: argparse.Namespace) -> None:
    found = _harness(given, "--backend", "pytorch", "--duration", "20")["energy"]
    if "unavailable" in found:
        say("energy", f"n/a: {found['unavailable']}")
        return
    for name, source in found["sources"].items():
        counter, integral = source["counter_j"], source["integral_j"]
        absent = next((x["unavailable"] for x in (counter, integral) if isinstance(x, dict)), None)
        if absent:
            say("energy", f"{name}: counter / integrated power = n/a: {absent}")
            continue
        said, verdict = f"{counter / integral:.4f} ({source['status']})", source["status"]
        say("energy", f"{name}: counter / integrated power = {said}", verdict)


def profilers(given: argparse.Namespace) -> None:
    found = _harness(given, "--backend", "pytorch", "--duration", "5", "--overhead-check")
    overhead = found["overhead"]
    if "unavailable" in overhead:
        say("profilers", f"n/a: {overhead['unavailable']}")
        return
    low, high = overhead["median_ci95"]
    say("profilers", f"latency on / off = {overhead['median']:.4f} [{low:.4f}, {high:.4f}]")


def _harness(given: argparse.Namespace, *flags: str) -> dict[str, Any]:
    """What ``harness run --json`` prints."""
    with tempfile.TemporaryDirectory() as folder:
        shared = ["--model", given.model, "--device", given.device, "--out", folder, "--json"]
        out = _run([sys.executable, "-m", "harness", "run", *shared, *flags])
    result: dict[str, Any] = json.loads(out)
    return result


def _run(command: list[str]) -> str:
    """Its output. Raises `RuntimeError` with the end of its stderr."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {last}")
    return done.stdout


LINES: list[dict[str, str]] = []


def say(what: str, text: str, verdict: str = "") -> None:
    """One line; of those with a limit the verdict is ``ok`` where it was kept."""
    LINES.append(
        {"what": what, "verdict": "n/a" if text.startswith("n/a") else verdict, "text": text}
    )
    print(f"{what:24} {text}", file=sys.stderr if AS_JSON in sys.argv else sys.stdout, flush=True)


def attempt(what: str, part: Callable[..., None], *args: Any) -> None:
    """One part; what it lacks is a line, and the others go on. ONNX Runtime's errors have no
    common class."""
    try:
        part(*args)
    except Exception as error:
        say(what, f"n/a: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument(AS_JSON, action="store_true", help="the lines as JSON, in the end")
    given = parser.parse_args()
    os.environ[ORDER] = device_order()  # as in a run, so that cuda:1 is the same device
    try:
        given.device = parse_device("--device", given.device)
        device = cuda_device(given.device)
    except HarnessError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(device, Unavailable):
        print(f"gpu.py: nothing to measure: {explain(device)}", file=sys.stderr)
        return 3
    title = f"{device.name}, {given.model}, fp32 without TF32, {given.rounds} rounds"
    print(title, file=sys.stderr if given.json else sys.stdout)
    measure(given)
    if given.json:
        print(json.dumps(LINES))
    return 0


def measure(given: argparse.Namespace) -> None:
    if "by-hand" in given.only:
        for backend in (b for b in given.backends if b != "tensorrt"):
            for batch in given.batches:
                attempt(f"{backend}, batch {batch}", by_hand, given, backend, batch)
    if "trtexec" in given.only and "tensorrt" in given.backends:
        for batch in given.batches:
            attempt(f"tensorrt, batch {batch}", against_trtexec, given, batch)
    if "graphs" in given.only:
        for backend in given.backends:
            attempt(f"{backend}, CUDA graph", graphs, given, backend)
    for part in (energy, profilers):
        if part.__name__ in given.only:
            attempt(part.__name__, part, given)


if __name__ == "__main__":
    sys.exit(main())
