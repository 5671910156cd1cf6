"""Bad input on the way to a GPU: one line with a remedy, and the exit code that fits."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import Harness, environment

from harness.host.gpus import cuda_devices
from harness.maybe import Unavailable

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"

without_gpu = pytest.mark.skipif(
    not isinstance(cuda_devices(), Unavailable), reason="this machine has a GPU"
)


def line(err: str) -> str:
    (only,) = [text for text in err.splitlines() if text.startswith("harness:")]
    return only


@without_gpu
@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime"])
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_no_gpu_is_one_line_and_no_result(
    harness: Harness, tmp_path: Path, backend: str, device: str
) -> None:
    ran = harness("run", "--backend", backend, "--device", device, "--quiet", "--out", "results")
    assert ran.code == 3
    assert "; " in line(ran.err)
    assert "not_present" not in ran.err
    assert list((tmp_path / "results").iterdir()) == []


def test_int8_convolutions_are_refused_before_a_gpu_is_needed(harness: Harness) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    ran = harness("run", "--backend", "pytorch", "--device", "cuda", "--precision", "int8")
    assert ran.code in (2, 3)  # which of the two is missing first is a race of two processes
    if ran.code == 2:
        assert "no int8 convolutions on CUDA" in line(ran.err)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--backend", "onnxruntime", "--device", "cpu", "--option", "provider=tensorrt"),
            "no opt",
        ),
        (("--backend", "onnxruntime", "--device", "cuda", "--precision", "bf16"), "no bf16"),
        (("--backend", "pytorch", "--device", "cuda", "--option", "cuda_graph=1"), "off, on"),
        (("--backend", "pytorch", "--device", "cuda:"), "cuda:N"),
    ],
)
def test_what_no_gpu_could_do_is_bad_usage(
    harness: Harness, flags: tuple[str, ...], words: str
) -> None:
    ran = harness("run", *flags)
    assert ran.code == 2
    assert words in line(ran.err)


@without_gpu
def test_the_benchmark_without_a_gpu_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARK], env=environment(tmp_path), cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    (only,) = done.stderr.splitlines()
    assert only.startswith("gpu.py: nothing to measure: ")
    assert "; " in only


def test_what_trtexec_prints_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARK.parent)
    spec = importlib.util.spec_from_file_location("benchmark_gpu", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (
        "[I] Latency: min = 0.61 ms, max = 0.9 ms, mean = 0.64 ms, median = 0.63 ms\n"
        "[I] GPU Compute Time: min = 0.57 ms, max = 0.8 ms, mean = 0.6 ms, median = 0.598999 ms, "
        "percentile(90%) = 0.61 ms\n"
    )
    assert module.trtexec_median_ms(text) == 0.598999
    with pytest.raises(ValueError, match="no GPU compute time"):
        module.trtexec_median_ms("&&&& FAILED TensorRT.trtexec")
