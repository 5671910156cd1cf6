"""INT8 on ONNX Runtime: ours beside a hand-written script with the library's own quantizer.

    python benchmarks/ort_int8.py [--model resnet18] [--rounds 40]      (pip install '.[all-cpu]')

* ``ours``: what ``harness run --precision int8`` runs, through the adapter's timed calls.
* ``defaults``: ``quantize_static(model, out, reader)``, then ``session.run(None, inputs)``.
* ``advised``: the same after the library's preprocessing and with the types that its documentation
  advises for x86 with VNNI (uint8 activations, int8 weights, per tensor).
* ``fp32``: our FP32 session, for scale.

All see the same calibration samples and one thread. Rounds are interleaved, each starting with
another candidate. The ratio is the median over rounds of (ours / theirs), round medians each, with
the distribution-free 95 % interval from its order statistics; below 1, ours is faster.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import in_turn, ratio
from numpy.typing import NDArray

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.models.prepare import prepare
from harness.protocols import Artifact, SessionOptions, Wanted
from harness.quantize.job import QuantizeJob
from harness.quantize.onnx import quantize
from harness.spec import RunSpec

SAMPLES = 8
Inputs = dict[str, NDArray[Any]]
Call = Callable[[], object]


def calibration(inputs: Inputs) -> Inputs:
    """Samples along axis 0, drawn like the bound inputs' first: normal, seeded."""
    draw = np.random.default_rng(1).standard_normal
    return {
        name: draw((SAMPLES, *array.shape[1:])).astype(array.dtype)
        for name, array in inputs.items()
    }


def our_artifact(model: str, samples: Inputs, folder: Path) -> tuple[Artifact, Artifact, Inputs]:
    prepared = prepare(RunSpec(model=model), Wanted("onnx"))
    with np.load(prepared.inputs_path) as arrays:
        inputs = dict(arrays)
    samples.update(calibration(inputs))
    np.savez(folder / "samples.npz", allow_pickle=False, **samples)
    job = QuantizeJob(
        precision="int8",
        calibration_path=str(folder / "samples.npz"),
        calibration_source="drawn inputs",
        calibration_sha256="",
        calibration_samples=SAMPLES,
    )
    target = folder / "ours.onnx"
    quantize(Path(prepared.artifact.path), target, job)
    fp32 = prepared.artifact
    reduced = Artifact(
        "onnx", str(target), "", "int8", "", target.stat().st_size, fp32.inputs, fp32.outputs
    )
    return fp32, reduced, inputs


def hand_written(source: str, samples: Inputs, inputs: Inputs, folder: Path, advised: bool) -> Call:
    """What a user would write after reading the library's quantization page."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[Inputs] = iter(
                {name: array[i : i + 1] for name, array in samples.items()} for i in range(SAMPLES)
            )

        def get_next(self) -> Inputs | None:
            return next(self.feeds, None)

    target = str(folder / f"{'advised' if advised else 'defaults'}.onnx")
    if advised:
        prepared = str(folder / "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Reader(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    else:
        quantize_static(source, target, Reader())
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(target, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def adapter_call(artifact: Artifact, inputs: Inputs) -> Call:
    session = OnnxRuntimeBackend().prepare(artifact, inputs, SessionOptions(threads=1))
    session.enqueue()
    session.synchronize()
    enqueue, synchronize = session.enqueue, session.synchronize

    def both() -> None:
        enqueue()
        synchronize()

    return both


def median_ms(call: Call, iterations: int) -> float:
    times = []
    for _ in range(iterations):
        began = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=10, help="per round and candidate")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        folder, samples = Path(temporary), Inputs()
        print(f"quantizing {given.model} in three ways", file=sys.stderr)
        fp32, reduced, inputs = our_artifact(given.model, samples, folder)
        calls = {
            "fp32": adapter_call(fp32, inputs),
            "ours": adapter_call(reduced, inputs),
            "defaults": hand_written(fp32.path, samples, inputs, folder, advised=False),
            "advised": hand_written(fp32.path, samples, inputs, folder, advised=True),
        }
        for call in calls.values():
            median_ms(call, given.iterations)
        measures = {n: partial(median_ms, call, given.iterations) for n, call in calls.items()}
        rounds = in_turn(measures, given.rounds, given.model)
    report(given.model, rounds)


def report(model: str, rounds: dict[str, list[float]]) -> None:
    print(f"{model}, batch 1, one thread, {len(rounds['ours'])} rounds")
    for name, values in rounds.items():
        line = f"  {name:9s} {statistics.median(values):9.3f} ms"
        if name != "ours":
            line += f"   ours / {name} = {ratio(rounds['ours'], values)}"
        print(line)


if __name__ == "__main__":
    main()
