"""Odd torch modules and the zoo, each prepared, quantized and run.

    python tests/campaign/campaign.py factories [--count N --seed 1] [--only NAME ...]

    factory ──> fork ──> builder's answer ──> pytorch fp32, int8, int8 dynamic
                                         └──> onnxruntime fp32, int8 ──> inferences, beside the
                                                                         module's own outputs

A fault is a process that died, an exception that nobody expected, or outputs other than the
module's own, in FP32 on inputs that no builder saw; a refusal in a line of its own is none.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import odd_modules
import onnxruntime.quantization.quantize  # noqa: F401  # before the forks, or each would import it
import torch
import torch._dynamo
import torch.onnx._internal.exporter._core
from trial import Summary

import harness.models.torch_build
import harness.quantize.onnx
import harness.quantize.torch  # noqa: F401
from harness.artifacts.torch_source import load_module
from harness.artifacts.torch_values import tensors_in
from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.backends.pytorch.backend import PyTorchBackend
from harness.errors import HarnessError
from harness.maybe import convert
from harness.models.builder import answer
from harness.models.builder_client import Job
from harness.models.prepare import Prepared
from harness.protocols import SessionOptions
from harness.spec import RunSpec
from harness.zoo import ZOO

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "pytorch fp32": ("pytorch", {}),
    "pytorch int8": ("pytorch", {"precision": "int8"}),
    "pytorch int8 dynamic": ("pytorch", {"precision": "int8", "quantization": "dynamic"}),
    "onnxruntime fp32": ("onnxruntime", {}),
    "onnxruntime int8": ("onnxruntime", {"precision": "int8"}),
}
# Whose outputs depend on chance, or on the calls before.
UNSTEADY = {
    "random_output", "output_of_random_length", "cache_that_grows", "monkeypatches_torch",
}  # fmt: skip
_FLOOR_DB = {"fp32": 60.0, "int8": 5.0}
_PATIENCE_S = 300


class Outcome(msgspec.Struct, frozen=True):
    """``how``: ran, refused (by us, in a line) or fault."""

    way: str
    how: str
    text: str = ""


def names() -> list[str]:
    """Every factory of `odd_modules`, and the zoo."""
    made = [
        f"odd_modules:{name}"
        for name, value in vars(odd_modules).items()
        if getattr(value, "__annotations__", {}).get("return") in ("Made", "Any")
        and value.__module__ == "odd_modules"
        and value.__code__.co_argcount == 0
    ]
    return [*made, *ZOO]


def outcome(name: str, cache: Path, way: str) -> Outcome:
    """What becomes of the model in this way, in a child of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(_PATIENCE_S)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        told = msgspec.json.encode(_outcome(name, cache, way))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(told)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        return msgspec.json.decode(told, type=Outcome)
    code = os.waitstatus_to_exitcode(status)  # an exit is the factory's own
    return Outcome(way, "fault" if code < 0 else "refused", f"ended with code {code}")


def _outcome(name: str, cache: Path, way: str) -> Outcome:
    backend_name, fields = WAYS[way]
    backend: Any = PyTorchBackend() if backend_name == "pytorch" else OnnxRuntimeBackend()
    spec = RunSpec(model=name, backend=backend_name, **fields)
    options = SessionOptions(threads=1)
    try:
        wanted = backend.wants(spec.precision, options)
        made = answer(Job(spec=spec, wanted=wanted, root=str(cache)))
        if made.failure is not None:
            how = "fault" if made.failure.trace else "refused"
            text = f"{made.failure.message}; {made.failure.remedy}\n{made.failure.trace}"
            return Outcome(way, how, text.strip())
        prepared = convert(made.prepared, Prepared)
        return Outcome(way, *_run(name, backend, prepared, options))
    except HarnessError as error:
        return Outcome(way, "refused", f"{error.message}; {error.remedy}")
    except BaseException:  # whatever it is, it is what the campaign looks for
        return Outcome(way, "fault", traceback.format_exc())


def _run(name: str, backend: Any, prepared: Prepared, options: SessionOptions) -> tuple[str, str]:
    with np.load(prepared.inputs_path, allow_pickle=False) as arrays:
        inputs = dict(arrays)
    session = backend.prepare(prepared.artifact, inputs, options)
    for _ in range(3):
        session.enqueue()
        session.synchronize()
    session.outputs()
    session.describe()
    if prepared.artifact.precision == "fp32":  # int8 is calibrated for the inputs that it has seen
        inputs = {name: _other(array) for name, array in inputs.items()}
    session.bind(inputs)
    session.enqueue()
    session.synchronize()
    outputs = session.outputs()
    session.close()
    shapes = {name: (str(array.dtype), array.shape) for name, array in outputs.items()}
    if name.rpartition(":")[2] in UNSTEADY or name in ZOO:
        return "ran", str(shapes)
    found = _sqnr_db(prepared, inputs, outputs)
    floor = _FLOOR_DB[prepared.artifact.precision]
    return "ran" if found >= floor else "fault", f"{found:.0f} dB, {shapes}"


def _other(array: Any) -> Any:
    """Values that no builder saw."""
    return (
        np.ascontiguousarray(np.flip(array, -1))
        if array.ndim and array.dtype.kind == "f"
        else array
    )


def _sqnr_db(prepared: Prepared, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> float:
    """The worst output against the module's own, called as its user would call it."""
    module = load_module(prepared.artifact.source, prepared.artifact.seed)
    specs = prepared.artifact.inputs
    given = [
        torch.from_numpy(inputs[name].copy()).to(getattr(torch, spec.dtype))
        for name, spec in zip(inputs, specs, strict=True)
    ]
    with torch.no_grad():
        right = [_array(tensor) for tensor in tensors_in(module(*given))]
    if not right and not outputs:
        return float("inf")
    made = [_array(torch.from_numpy(array)) for array in outputs.values()]
    if [r.numel() for r in right] != [m.numel() for m in made]:
        return float("-inf")
    return min(_of_one(m.reshape(-1), r.reshape(-1)) for m, r in zip(made, right, strict=True))


def _array(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.detach().as_subclass(torch.Tensor)
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


def _of_one(made: torch.Tensor, right: torch.Tensor) -> float:
    noise, signal = (made - right).square().sum(), right.square().sum()
    return float("inf") if not noise else float(10 * torch.log10(signal / noise))


def run(
    count: int | None,
    seed: int,
    seconds: float,
    only: Sequence[str] | None = None,
    way: Sequence[str] | None = None,
    verbose: bool = False,
) -> Iterator[Summary]:
    """All models or ``count`` drawn ones, no new one after ``seconds``."""
    warnings.simplefilter("ignore")
    ends = time.monotonic() + seconds
    summaries = {one: Summary(f"torch modules, {one}") for one in way or WAYS}
    with tempfile.TemporaryDirectory(prefix="harness-campaign-") as folder:
        chosen = list(only or names())
        if count is not None:
            chosen = random.Random(seed).sample(chosen, min(count, len(chosen)))
        for name in chosen:
            if time.monotonic() > ends:
                break
            for one, summary in summaries.items():
                found = outcome(name, Path(folder) / "cache", one)
                if verbose:
                    print(f"{name} | {one} | {found.how} | {found.text}", flush=True)
                if found.how == "fault":
                    summary.faults.append(f"{name}: {found.text}")
                else:
                    summary.counts[found.how] += 1
    yield from summaries.values()
