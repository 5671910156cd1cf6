"""What each runtime's profiler tells, read right, and the operations of what ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.operators import of_launch
from harness.maybe import Unavailable
from harness.protocols import OperatorTimes, ProfiledInferences, SessionOptions
from harness.records.operators import Operations, Operator

NO_ROOFS = Unavailable("not measured here")


# -- ONNX Runtime ---------------------------------------------------------------------------------


def ort_event(name: str, start: int, duration: int, **args: Any) -> dict[str, Any]:
    cat = "Node" if args else "Session"
    return {"name": name, "ts": start, "dur": duration, "cat": cat, "args": args}


def kernel(name: str, start: int, duration: int, op: str, index: int) -> dict[str, Any]:
    types = [{"float": [2, 3]}]
    return ort_event(
        f"{name}_kernel_time", start, duration, op_name=op, node_index=str(index),
        input_type_shape=types, output_type_shape=types,
    )  # fmt: skip


def test_kernels_belong_to_the_inference_around_them() -> None:
    from harness.backends.onnxruntime.profile import read_events

    events = [
        kernel("a", 5, 1, "Relu", 7),  # while the session was made
        kernel("a", 101, 3, "Relu", 7), kernel("b", 105, 2, "Relu", 9),
        ort_event("model_run", 100, 10),
        kernel("a", 201, 4, "Relu", 7), kernel("b", 206, 2, "Relu", 9),
        kernel("b", 208, 1, "Relu", 9),
        ort_event("model_run", 200, 11),
    ]  # fmt: skip
    found = read_events(events, [0.012, 0.013], [], {}, None)
    assert [(one.name, one.ms, one.calls) for one in found.operators] == [
        ("a", (0.003, 0.004), 1.0),
        ("b", (0.002, 0.003), 1.5),
    ]
    assert found.operators[0].fused is None
    with pytest.raises(ValueError, match="2 inferences of 3"):
        read_events(events, [1.0, 1.0, 1.0], [], {}, None)


def onnx_session(path: Path, x: Any, precision: str = "fp32") -> Any:
    from test_backend_onnxruntime import artifact

    from harness.backends.onnxruntime.backend import OnnxRuntimeBackend

    session = OnnxRuntimeBackend().prepare(artifact(path, precision), x, SessionOptions())
    session.enqueue()
    return session


@pytest.fixture
def residual(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Two convolutions, the second with a residual and an activation behind it; no names."""
    from test_backend_onnxruntime import FLOAT, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    filters = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    same: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    path = save(
        tmp_path / "residual.onnx",
        [
            helper.make_node("Conv", ["x", "w"], ["first"], name="one", **same),
            helper.make_node("Relu", ["first"], ["warm"]),
            helper.make_node("Conv", ["warm", "w"], ["second"], name="two", **same),
            helper.make_node("Add", ["second", "warm"], ["sum"], name="plus"),
            helper.make_node("Relu", ["sum"], ["hot"], name="last"),
            helper.make_node("MatMul", ["hot", "m"], ["y"]),
        ],
        {"x": (FLOAT, (1, 16, 8, 8))},
        ["y"],
        [
            numpy_helper.from_array(filters, "w"),
            numpy_helper.from_array(rng.standard_normal((8, 5)).astype(np.float32), "m"),
        ],
    )
    return path, {"x": rng.random((1, 16, 8, 8), np.float32)}


CONVOLUTION = 2 * 16 * 64 * 16 * 9


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_went_into_an_operator_is_named(
    residual: tuple[Path, dict[str, Any]], precision: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    from test_backend_onnxruntime import QuantizeJob

    from harness.quantize.onnx import quantize

    path, x = residual
    if precision == "int8":
        np.savez(tmp_path / "samples.npz", **x)
        job = QuantizeJob(
            precision="int8", calibration_path=str(tmp_path / "samples.npz"),
            calibration_source="file", calibration_sha256="", calibration_samples=1,
        )  # fmt: skip
        path = tmp_path / "residual.int8.onnx"
        quantize(residual[0], path, job)
    session = onnx_session(path, x, precision)
    found = session.profile_operators(5)
    assert isinstance(found, ProfiledInferences)
    by_node = {
        node: one for one in found.operators for node in one.fused or () if node in ("one", "two")
    }
    assert by_node.keys() == {"one", "two"}
    assert by_node["one"] is not by_node["two"]
    launch = of_launch(found, 1.0, NO_ROOFS)
    done: dict[str, Operator] = {row.name: row for row in launch.rows}
    for one in by_node.values():
        assert one.precision == precision
        operations = done[one.name].operations
        assert isinstance(operations, Operations)
        assert CONVOLUTION <= operations.total <= CONVOLUTION + 4 * 16 * 64
        assert (operations.integer > 0) == (precision == "int8")
    products = [row for row in launch.rows if "MatMul" in row.type]
    assert [row.operations.total for row in products] == [2 * 16 * 8 * 8 * 5]  # type: ignore[union-attr]
    # the activation and the sum went into the second convolution, or into an operator of their own
    assert {"plus"} <= {node for one in found.operators for node in one.fused or ()}


# -- torch ----------------------------------------------------------------------------------------


class KinetoEvent:
    """As torch's own profiler tells them."""

    def __init__(
        self, name: str, start: int, end: int, link: int = 0, device: str = "DeviceType.CPU"
    ) -> None:
        self._told = (name, start, end, link, device)

    def name(self) -> str:
        return self._told[0]

    def start_ns(self) -> int:
        return self._told[1]

    def duration_ns(self) -> int:
        return self._told[2] - self._told[1]

    def correlation_id(self) -> int:
        return self._told[3]

    linked_correlation_id = correlation_id

    def device_type(self) -> str:
        return self._told[4]

    def start_thread_id(self) -> int:
        return 1

    def dtypes(self) -> list[str]:
        return ["float"]


def test_on_a_device_an_operator_has_the_time_of_the_kernels_it_launched() -> None:
    from harness.backends.pytorch.profile import by_inference, join

    events = [
        KinetoEvent("harness inference", 0, 100),
        KinetoEvent("aten::linear", 10, 40), KinetoEvent("aten::addmm", 15, 35, link=3),
        KinetoEvent("gemm", 1000, 1600, link=3, device="DeviceType.CUDA"),
        KinetoEvent("aten::relu", 50, 60, link=4),
        KinetoEvent("relu", 1600, 1700, link=4, device="DeviceType.CUDA"),
    ]  # fmt: skip
    on_device = join(by_inference(events), [1.0], None, on_device=True)
    assert [(o.name, o.ms) for o in on_device.operators] == [
        ("aten::linear", (0.0006,)), ("aten::relu", (0.0001,)),
    ]  # fmt: skip
    on_host = join(by_inference(events), [1.0], None)
    assert [(o.type, o.ms) for o in on_host.operators] == [
        ("aten::linear", (0.00003,)), ("aten::relu", (0.00001,)),
    ]  # fmt: skip


def test_copies_around_the_model_are_none_of_its_operators() -> None:
    from harness.backends.pytorch.profile import by_inference

    events = [
        event
        for at in (0, 1000)
        for event in (
            KinetoEvent("harness inference", at, at + 100),
            KinetoEvent("aten::copy_", at + 2, at + 8),
            KinetoEvent("harness model", at + 10, at + 80),
            KinetoEvent("aten::linear", at + 11, at + 40),
            KinetoEvent("aten::relu", at + 50, at + 60),
            KinetoEvent("aten::resolve_conj", at + 82, at + 84),
            KinetoEvent("aten::copy_", at + 85, at + 99),
        )
    ]
    names = [[event.name for event in one] for one in by_inference(events)]
    assert names == [["aten::linear", "aten::relu"]] * 2


def test_a_roof_takes_what_its_load_says_that_it_took() -> None:
    """Where the device's clock tells, launching and waiting are no part of a roof."""
    from harness.engine.worker.operators import _fastest_ms

    told = iter([9.0, 0.5, 0.25, 0.75, 0.5, 0.5, *([1.0] * 10**6)])
    assert _fastest_ms(lambda: next(told), 0.0) == 0.25
    assert _fastest_ms(lambda: None, 0.0) > 0


def test_inferences_that_differ_have_a_row_for_each_type() -> None:
    from harness.backends.pytorch.profile import Event, join

    once, twice = Event("aten::mm", ["float"], 0, 10), Event("aten::mm", ["float"], 20, 40)
    found = join([[once], [once, twice]], [1.0, 1.0], None)
    assert [(o.name, o.calls, o.ms) for o in found.operators] == [
        ("aten::mm (fp32)", 1.5, (1e-5, pytest.approx(3e-5)))
    ]
    assert "differ" in found.notes[0]


@pytest.mark.parametrize(
    ("model", "gmac"), [("resnet18", 1.814), ("resnet50", 4.089), ("mobilenet_v2", 0.301)]
)
def test_operations_are_the_known_ones(model: str, gmac: float) -> None:
    """By the shapes that the dispatcher sees, for which nothing has to be computed."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch.utils.flop_counter import FlopCounterMode

    from harness.analysis.operations import operations
    from harness.backends.pytorch.profile import calls_of
    from harness.zoo import architecture

    with torch.device("meta"):
        module = architecture(model)().eval()
        x = torch.empty(1, 3, 224, 224)

    def run() -> None:
        with torch.inference_mode():
            module(x)

    products = 0
    for call in calls_of(run, module) or ():
        if call.name.endswith(("conv2d", "linear")):
            found = operations(
                OperatorTimes(
                    name=call.module, type=call.name, precision="fp32", ms=(1.0,),
                    inputs=call.inputs, outputs=call.outputs,
                )
            )  # fmt: skip
            assert isinstance(found, Operations)
            products += found.floating
    with FlopCounterMode(display=False) as counter:
        run()
    assert products == counter.get_total_flops()
    assert products / 2e9 == pytest.approx(gmac, abs=0.001)


def test_a_transformer_has_the_operations_of_its_formula() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from harness.analysis.operations import operations
    from harness.backends.pytorch.profile import profile_operators
    from harness.zoo.bert import Layer

    length, width, heads = 10, 24, 4
    layer = Layer(width, heads).eval()
    x, bias = torch.rand(2, length, width), torch.zeros(2, 1, 1, length)

    def run() -> None:
        with torch.inference_mode():
            layer(x, bias)

    found = profile_operators(run, layer, 1)
    counts = {one.name: operations(one) for one in found.operators}
    assert any(isinstance(one, Unavailable) for one in counts.values())  # the norms, the GELU
    products = sum(
        one.floating
        for op in found.operators
        if isinstance(one := counts[op.name], Operations)
        and op.type.endswith(("linear", "attention"))
    )
    # four projections, two of four times the width, and two products of attention
    assert products == 2 * 2 * length * (12 * width**2 + 2 * length * width)
    assert "attention.query" in counts


# -- what a profiler costs by itself --------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnxruntime", "pytorch"])
def test_a_chain_of_idle_operators_runs_and_is_profiled(name: str) -> None:
    from harness import registry

    if name == "pytorch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    else:
        pytest.importorskip("onnx", reason="onnx is not installed")
    load = registry.backend(name).idle_load(SessionOptions(threads=1))
    load.run()
    found = load.profile(5)
    assert isinstance(found, ProfiledInferences)
    assert sum(one.calls for one in found.operators) == 64
    assert len(found.latency_ms) == 5
