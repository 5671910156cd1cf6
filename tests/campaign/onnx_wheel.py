"""The test models that come with the wheel of onnx: each prepared, quantized and run once.

    python tests/campaign/campaign.py onnx [--kind node ...] [--count N --seed 1] [--seconds 3600]

    model ──> fork ──> builder's answer ──> fp32, int8 static, int8 dynamic ──> one inference

A fault is a process that died, or an exception that nobody expected; what is refused in a line of
its own is none. Each model has a child of its
own: a death is told from an answer, and what a library leaves behind does not reach the others.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime.quantization.quantize  # noqa: F401  # before the forks, or each would import it
from onnx.backend.test.loader import load_model_tests
from trial import Summary

import harness.quantize.onnx  # noqa: F401
from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.errors import HarnessError
from harness.maybe import convert
from harness.models.builder import answer
from harness.models.builder_client import Job
from harness.models.prepare import Prepared
from harness.protocols import SessionOptions, Wanted
from harness.spec import RunSpec

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "int8 static": {"precision": "int8"},
    "int8 dynamic": {"precision": "int8", "quantization": "dynamic"},
}
_PATIENCE_S = 300


class Outcome(msgspec.Struct, frozen=True):
    """``how``: ran, refused (by us, in a line) or fault."""

    way: str
    how: str
    text: str = ""


def models(folder: Path, kinds: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Name and file of each model, written to ``folder`` where the wheel makes it on demand."""
    for kind in kinds:
        for case in load_model_tests(kind=kind):
            found = Path(case.model_dir, "model.onnx") if case.model_dir else None
            if found is None or not found.exists():
                if case.model is None:
                    continue
                found = folder / f"{case.name}.onnx"
                onnx.save(case.model, str(found))
            yield case.name, found


def outcomes(path: Path, cache: Path) -> list[Outcome]:
    """What becomes of the model in each way, in a child. A fault alone where the child dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(_PATIENCE_S)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(msgspec.json.encode([_outcome(path, cache, way) for way in WAYS]))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return [Outcome("any", "fault", f"died of {signal.Signals(os.WTERMSIG(status)).name}")]
    return msgspec.json.decode(told, type=list[Outcome])


def _outcome(path: Path, cache: Path, way: str) -> Outcome:
    spec = RunSpec(model=str(path), batch_dim="none", **WAYS[way])
    try:
        made = answer(Job(spec=spec, wanted=Wanted("onnx"), root=str(cache)))
        if made.failure is not None:
            how = "fault" if made.failure.trace else "refused"
            return Outcome(way, how, f"{made.failure.message}\n{made.failure.trace}")
        return Outcome(way, *_run(convert(made.prepared, Prepared)))
    except Exception:  # whatever it is, it is what the campaign looks for
        return Outcome(way, "fault", traceback.format_exc())


def _run(prepared: Prepared) -> tuple[str, str]:
    with np.load(prepared.inputs_path, allow_pickle=False) as arrays:
        inputs = dict(arrays)
    try:
        session = OnnxRuntimeBackend().prepare(prepared.artifact, inputs, SessionOptions())
        session.enqueue()
        session.synchronize()
        session.close()
    except HarnessError as error:
        # an artifact of ours runs, whatever the model does
        return ("fault" if prepared.reference else "refused"), str(error)
    return "ran", ""


def run(
    count: int | None, seed: int, seconds: float, kind: Sequence[str] | None = None
) -> Iterator[Summary]:
    """All models of these kinds or ``count`` drawn ones, no new one after ``seconds``."""
    warnings.simplefilter("ignore")
    ends = time.monotonic() + seconds
    summaries = {way: Summary(f"onnx's wheel, {way}") for way in (*WAYS, "any")}
    with tempfile.TemporaryDirectory(prefix="harness-campaign-") as name:
        folder = Path(name)
        chosen = list(models(folder, kind or KINDS))
        if count is not None:
            chosen = random.Random(seed).sample(chosen, min(count, len(chosen)))
        for name, path in chosen:
            if time.monotonic() > ends:
                break
            for outcome in outcomes(path, folder / "cache"):
                summary = summaries[outcome.way]
                if outcome.how == "fault":
                    summary.faults.append(f"{name}: {outcome.text}")
                else:
                    summary.counts[outcome.how] += 1
    yield from (one for way, one in summaries.items() if way in WAYS or one.faults)
