"""The real Python bindings of TensorRT, over stub libraries: what they are, and how they fail."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorrt_names import installed_names, signatures

from harness.backends.tensorrt.options import PRECISIONS

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _needed() -> None:
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc) to make stub libraries with")


def python(script: str, tmp_path: Path) -> str:
    """What ``script`` prints in a process where ``tensorrt`` is the real module over stubs."""
    start = (
        "import sys; from pathlib import Path; from tensorrt_names import load_bindings\n"
        f"trt = sys.modules['tensorrt'] = load_bindings(Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + script],
        check=False,
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_names_are_those_of_tensorrt_11() -> None:
    names = installed_names()
    assert names["version"].startswith("11.")
    assert "INT8" not in names["enums"]["BuilderFlag"]  # gone, as are its calibrators
    assert "STRONGLY_TYPED" in names["enums"]["NetworkDefinitionCreationFlag"]
    builder = names["classes"]["Builder"]["methods"]
    assert builder["create_network"] == [[["flags", "typing.SupportsInt", True]]]
    assert names["classes"]["ICudaEngine"]["properties"]["num_layers"] is None
    assert "int8" in PRECISIONS


def test_signatures_are_read_whole() -> None:
    def overloaded() -> None:
        """overloaded(*args, **kwargs)
        Overloaded function.

        1. overloaded(self: tensorrt_bindings.tensorrt.X, a: dict[str, int], b: Y = <Y.A: 0>) -> int
        2. overloaded(self: tensorrt_bindings.tensorrt.X) -> None
        """

    assert signatures(overloaded, "overloaded") == [
        [("self", "X", False), ("a", "dict[str, int]", False), ("b", "Y", True)],
        [("self", "X", False)],
    ]


def test_a_tensorrt_without_a_driver_is_one_clear_error(tmp_path: Path) -> None:
    """The real classes construct nothing over stubs, as they do where CUDA does not start."""
    printed = python(
        """
from harness.backends.tensorrt.build import Request, build, open_runtime
from harness.backends.tensorrt.log import log_of
from harness.backends.tensorrt.options import settings
from harness.errors import BackendUnavailable
from harness.protocols import SessionOptions

log = log_of(trt)
request = Request(path="model.onnx", settings=settings(SessionOptions("cuda:0")))
for call in (lambda: open_runtime(trt, log), lambda: build(trt, log, request, {})):
    try:
        call()
    except BackendUnavailable as error:
        print(error)
""",
        tmp_path,
    )
    assert printed.splitlines() == [
        f"TensorRT cannot start {what}: TypeError: pybind11::init(): factory function returned "
        "nullptr; see harness doctor for the driver and the device"
        for what in ("its runtime", "a builder")
    ]


def test_the_listeners_are_real_ones(tmp_path: Path) -> None:
    """What is derived from TensorRT's classes is accepted where TensorRT takes such an object."""
    printed = python(
        """
from contextlib import ExitStack
from harness.backends.tensorrt.io import _allocator
from harness.backends.tensorrt.log import log_of

log = log_of(trt)
log.native.log(trt.ILogger.WARNING, "a doubt")
log.native.log(trt.ILogger.ERROR, "an  error\\n")
log.native.log(trt.ILogger.INTERNAL_ERROR, "another")
print(isinstance(log.native, trt.ILogger), list(log.errors), log_of(trt) is log)
print(trt.init_libnvinfer_plugins(log.native, ""))
print(isinstance(_allocator(trt, None, ExitStack()), trt.IOutputAllocator))
dims = trt.Dims((-1, 3))
print(tuple(dims), dims[0], any(size < 0 for size in dims))
print(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED), trt.DataType.HALF.name)
""",
        tmp_path,
    )
    assert printed.splitlines() == [
        "True ['an error', 'another'] True",
        "False",
        "True",
        "(-1, 3) -1 True",
        "1 HALF",
    ]


def test_the_profiler_is_a_real_one(tmp_path: Path) -> None:
    printed = python(
        """
from harness.backends.tensorrt.inspect import PASSES, profile

class Context:
    profiler = None

    def run(self):
        if self.profiler is not None:
            assert isinstance(self.profiler, trt.IProfiler)
            self.profiler.report_layer_time("conv", 2.0)

context = Context()
print(profile(trt, context, context.run) == {"conv": [2.0] * PASSES})
""",
        tmp_path,
    )
    assert printed == "True\n"
