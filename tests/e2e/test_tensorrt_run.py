"""`harness run --backend tensorrt` whole: without a GPU one line, and with the fake one a result.

The fake is that of the unit tests, held to the real names of TensorRT. It comes to every process of
the run through PYTHONPATH; everything else is as it is for a user.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from running import Harness

from harness.records.store import read_result

UNIT = Path(__file__).parents[1] / "unit"
DATA = Path(__file__).parents[1] / "data"
_TENSORRT = f"""
import sys
from pathlib import Path
from cuda.bindings import runtime
from cuda_fake import FakeCuda
from tensorrt_fake import FakeTensorRT, names_of
cuda = sys.modules["cuda.bindings.runtime"] = FakeCuda(runtime)
sys.modules["tensorrt"] = FakeTensorRT(names_of("10.16", Path({str(DATA)!r})), cuda)
"""
_SITE = """
from harness.host import gpus as devices
gpu = devices.CudaDevice(
    index=0, name="NVIDIA Test GPU", uuid="GPU-0", whole_uuid="GPU-0", mig=False,
    compute_capability="9.0", pci_bus_id="0000:01:00.0", memory_bytes=1 << 34,
    multiprocessors=132, compute_mode="default", integrated=False, driver_cuda="13.0",
)
devices.cuda_devices = lambda root="/": (gpu,)
"""


def test_without_a_gpu_it_is_one_line(harness: Harness, tmp_path: Path) -> None:
    ran = harness("run", "--backend", "tensorrt", "--precision", "int8")
    if ran.code == 0:
        pytest.skip("this machine has a GPU and TensorRT")
    assert (ran.code, ran.out) == (3, "")
    told = ran.err.splitlines()[-1]
    assert told.startswith("harness: tensorrt on cuda:0: ")
    assert "; " in told  # and what to do
    assert "Traceback" not in ran.err
    listed = {backend["name"]: backend for backend in harness("list", "backends", "--json").result}
    absent = listed["tensorrt"]["devices"]
    assert "NVIDIA GPUs alone" in absent["cpu"]["unavailable"]
    assert absent["cuda:0"]["unavailable"]
    assert absent["cuda:0"]["remedy"]


def test_bindings_without_the_library_are_one_line(harness: Harness, tmp_path: Path) -> None:
    """The wheel of the bindings alone, as a broken installation leaves it."""
    pytest.importorskip("onnxruntime")
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    if importlib.util.find_spec("tensorrt_libs") is not None:
        pytest.skip("TensorRT's libraries are installed")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorrt.py").write_text("from tensorrt_bindings import *\n")
    (tmp_path / "site" / "sitecustomize.py").write_text(_SITE)
    ran = harness("run", "--backend", "tensorrt", path=[tmp_path / "site"])
    assert (ran.code, ran.out) == (3, "")
    told = ran.err.splitlines()[-1]
    assert "tensorrt cannot be imported: ImportError: libnv" in told
    assert told.endswith("; pip install 'hw-harness[tensorrt]'")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of these tests alone: what lies in it is counted."""
    return tmp_path_factory.mktemp("tensorrt-cache")


@pytest.fixture
def fake(tmp_path: Path) -> list[Path]:
    pytest.importorskip("cuda.bindings.runtime")
    site = tmp_path / "site"
    site.mkdir()
    (site / "tensorrt.py").write_text(_TENSORRT)
    (site / "sitecustomize.py").write_text(_SITE)
    return [site, UNIT]


def test_int8_from_the_model_to_the_result(
    harness: Harness, tmp_path: Path, cache: Path, fake: list[Path]
) -> None:
    line = ("run", "--backend", "tensorrt", "--precision", "int8", "--iterations", "300")
    ran = harness(*line, "--option", "cuda_graph=on", "--json", path=fake)

    assert (ran.code, ran.err) == (0, ""), ran
    result = read_result(next((tmp_path / "results").iterdir()))
    assert (result.spec.device, result.timing.iterations) == ("cuda:0", 300)
    assert result.precision.quantization is not None
    assert result.precision.quantization.scheme.startswith("symmetric int8 activations")
    assert result.precision.operators["Conv"] == {"int8": 8}  # as the fake tells it
    assert result.timing.device_ms.median == 1.0  # as the fake counts it
    assert result.accuracy.top1 > 0.95
    runtime = result.software.runtime
    assert (runtime["engine"], runtime["cuda_graph"]) == ("built", "on")
    assert runtime["version"].startswith("10.16")
    _check_artifact(cache)
    plans = {path: path.stat().st_mtime_ns for path in (cache / "tensorrt").glob("*.plan")}
    assert len(plans) == 2  # and the FP32 reference
    again = harness(*line, "--json", path=fake)
    assert again.code == 0
    assert again.result["software"]["runtime"]["engine"] == "from the cache"
    assert all(path.stat().st_mtime_ns == written for path, written in plans.items())


def _check_artifact(cache: Path) -> None:
    """What TensorRT gets: explicit Q/DQ, zero points 0, weights per channel."""
    (path,) = cache.glob("onnx-quantized/*/model.int8.onnx")
    graph = onnx.load(str(path)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizers = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    assert not any(values[node.input[2]].any() for node in quantizers)
    assert {values[node.input[2]].dtype for node in quantizers} == {np.dtype("int8")}
    scales = [values[node.input[1]] for node in quantizers if node.input[0] in values]
    assert min(scale.size for scale in scales) > 1


def test_fp16_runs_the_converted_graph(harness: Harness, tmp_path: Path, fake: list[Path]) -> None:
    line = ("run", "--backend", "tensorrt", "--precision", "fp16", "--iterations", "100")
    ran = harness(*line, "--boundary", "transfer", "--json", path=fake)

    assert (ran.code, ran.err) == (0, ""), ran
    result = read_result(next((tmp_path / "results").iterdir()))
    assert result.precision.quantization.method == "cast"
    assert result.timing.device_ms.median == 1.5  # a copy each way
