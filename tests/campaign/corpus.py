"""One file of every kind that Harness reads, each made by what writes it; and their mutations."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.cli.main import main
from harness.testing.results import fake_failure, fake_result

NIGHTLY = "nightly-2026-01-01"
POLICY = """
minimum_launches = 2
[[limit]]
metric = "latency_median"
minimum_effect = 0.05
[[waiver]]
cell = "*"
metric = "latency_p99"
ceiling = 1.5
expires = 2030-01-01
issue = "12"
reason = "known"
[quarantine]
cells = ["*"]
[expect]
cells = ["*"]
"""
SWEEP = """
name = "nightly"
launches = 2
time_limit_s = 900
[defaults]
duration_s = 5
options = { execution_mode = "sequential" }
[matrix]
model = ["digits", "net.onnx"]
precision = ["fp32", "int8"]
batch_size = [1, 8]
[[exclude]]
model = "net*"
precision = "int8"
[[include]]
model = "resnet18"
backend = "pytorch"
"""
ENGINE = {"net": {"fp32": {"accuracy": 0.9, "latency_mean_ms": 8.0, "model_size_mb": 44.0},
                  "int8": {"accuracy": 0.8, "latency_mean_ms": 2.0, "model_size_mb": 11.0},
                  "model_info": {"library": "x", "input_shape": [1, 3, 8, 8]}}}  # fmt: skip


def make(folder: Path) -> None:
    """A working folder with runs, a sweep, a baseline, models, data and settings."""
    results = folder / "results"
    results.mkdir(parents=True)
    _runs(folder)
    for number in range(8):
        started = f"2026-01-{number + 1:02d}T02:00:00+00:00"
        tags = {"sweep": NIGHTLY, "night": "2026-01-01", "launch": str(number + 1)}
        result = fake_result(id=f"night-{number}", started_at=started, tags=tags)
        _put(results / NIGHTLY / result.id, msgspec.json.encode(result))
    _put(results / "failed", msgspec.json.encode(fake_failure()))
    _sweep_state(results / NIGHTLY)
    (folder / "harness-policy.toml").write_text(POLICY)
    (folder / "night.toml").write_text(SWEEP)
    (folder / "engine.json").write_text(json.dumps(ENGINE))
    rows = "".join(f"{time.time() + i / 10:.3f},{10 + i % 3}\n" for i in range(-200, 0))
    (folder / "meter.csv").write_text(f"time_s,power_w\n{rows}")
    _model(folder)
    _as_user(folder, "baseline", "promote", NIGHTLY, "--name", "release")
    _as_user(folder, "list", "runs")
    accepted = {"cell": "c", "metric": "latency_median", "fingerprint": "f", "night": "n",
                "started_at": "2026-01-01", "ratio": 1.1, "at": "t", "by": "me",
                "reason": "r"}  # fmt: skip
    whole = {"schema": "harness.acknowledged/1", "changes": [accepted]}
    (results / "acknowledged.json").write_text(json.dumps(whole))


def _runs(folder: Path) -> None:
    """A real run, and one whose driver was killed."""
    command = [sys.executable, "-m", "harness", "run", "--quiet", "--results", "results",
               "--warmup", "0", "--max-warmup", "0.1"]  # fmt: skip
    subprocess.run([*command, "--iterations", "300"], cwd=folder, check=True)
    (whole,) = (folder / "results").iterdir()
    whole.rename(folder / "results" / "whole")
    killed = subprocess.Popen(
        [*command, "--duration", "600"], cwd=folder, stderr=subprocess.DEVNULL
    )
    while not _is_under_way(folder / "results"):
        if killed.poll() is not None:
            raise RuntimeError(f"the run to be killed ended by itself, code {killed.returncode}")
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (left,) = (path for path in (folder / "results").iterdir() if path.name != "whole")
    left.rename(folder / "results" / "20260101T000000Z-killed")


def _is_under_way(results: Path) -> bool:
    """All journals of a run have something in them."""
    names = ("run.journal", "samples.journal", "series.journal")
    return all(any(p.stat().st_size > 500 for p in results.glob(f"*/{name}")) for name in names)


def _put(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes(data)


def _sweep_state(folder: Path) -> None:
    cell = {"name": "digits/onnxruntime/cpu/fp32/b1/latency", "key": "k"}
    manifest = {"schema": "harness.sweep/1", "id": folder.name, "name": "nightly", "label": "l",
                "plan_sha256": "0", "launches": 8, "created_at": "2026-01-01T02:00:00+00:00",
                "cells": [cell], "state": {"python": "3.11"}}  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(manifest))
    attempt = {"cell": cell["name"], "launch": 1, "status": "timeout", "started_at": "t",
               "seconds": 1.0, "reason": "r"}  # fmt: skip
    (folder / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")


def _model(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "net.onnx")
    x = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, labels=np.arange(16) % 4)


def _as_user(folder: Path, *words: str) -> None:
    here = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main(words)
    finally:
        os.chdir(here)


# --- mutations ---

_ODD_BYTES = (b"", b"\0", b"\xff\xfe", b"\r", b"\n", b'"', b"{", b"[" * 3000, b"9" * 5000, b"NaN",
              b"-1", b"1e999", b"\x1b[2J", b"null", b"/../../", b"\x80" * 9)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, -1e308, 1e-320, "", "\x1b]0;x\x07", "\0", "a" * 5000, [], {}, [[]],
    {"unavailable": "x"}, "../../x", "NaN", [None] * 300, 2**63, "2026-99-99T99:99:99",
)  # fmt: skip


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """``data`` with one to four changes, of bytes or of the values of its JSON."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_WAYS)(data, others, chance)
    return data


def _flip(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return data[: chance.randint(0, len(data))]


def _remove(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    low, high = _span(data, chance)
    return data[:low] + data[high:]


def _repeat(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    low, high = _span(data, chance)
    return data[:high] + data[low:high] * chance.choice((1, 2, 50)) + data[high:]


def _insert(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + chance.choice(_ODD_BYTES) + data[at + chance.choice((0, 0, 1, 8)) :]


def _splice(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _value(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    try:
        whole = json.loads(data)
    except ValueError:
        return _flip(data, others, chance)
    places = list(_places(whole))
    if not places:
        return _flip(data, others, chance)
    for _ in range(chance.choice((1, 1, 3))):
        holder, key = chance.choice(places)
        holder[key] = chance.choice(_ODD_VALUES)
    return json.dumps(whole).encode()


def _places(node: Any) -> Any:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _span(data: bytes, chance: random.Random) -> tuple[int, int]:
    low = chance.randint(0, len(data))
    return low, min(len(data), low + chance.choice((1, 4, 64, 1024)))


_WAYS: tuple[Callable[[bytes, list[bytes], random.Random], bytes], ...] = (
    _flip, _cut, _remove, _repeat, _insert, _splice, _value, _value, _value,
)  # fmt: skip
