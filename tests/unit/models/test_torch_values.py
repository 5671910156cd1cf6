"""What modules take and give beside plain tensors: prepared, bound, run and read back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'hw-harness[torch]'")

import onnx
import torch

from harness.artifacts.torch_errors import cause
from harness.artifacts.torch_source import load_module
from harness.artifacts.torch_values import Flat, leaves, output_names, tensors_in
from harness.backends.pytorch.backend import PyTorchBackend
from harness.maybe import Unavailable, convert
from harness.models.builder import answer
from harness.models.builder_client import Job
from harness.models.data import arrays
from harness.models.onnx_export import _rename_outputs
from harness.models.prepare import Prepared
from harness.protocols import SessionOptions, TensorSpec, Wanted
from harness.spec import parse

CAMPAIGN = Path(__file__).parents[2] / "campaign"


@pytest.fixture(autouse=True)
def campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CAMPAIGN))


def made(name: str, folder: Path, format: str = "torch", **fields: Any) -> Prepared:
    spec = parse({"model": f"odd_modules:{name}", "backend": "pytorch", **fields})
    found = answer(Job(spec=spec, wanted=Wanted(format), root=str(folder)))
    assert found.failure is None, found.failure
    return convert(found.prepared, Prepared)


def refused(name: str, folder: Path, format: str = "torch", **fields: Any) -> str:
    spec = parse({"model": f"odd_modules:{name}", "backend": "pytorch", **fields})
    found = answer(Job(spec=spec, wanted=Wanted(format), root=str(folder))).failure
    assert found is not None and not found.trace, found
    return f"{found.message}; {found.remedy}"


def ran(prepared: Prepared) -> tuple[dict[str, Any], dict[str, str], Any]:
    """Outputs, those that nobody sees, and the description, of one inference."""
    inputs = arrays(prepared.inputs_path)
    session = PyTorchBackend().prepare(prepared.artifact, inputs, SessionOptions())
    session.enqueue()
    session.synchronize()
    found = dict(session.outputs()), dict(session.unseen()), session.describe()  # type: ignore[union-attr]
    session.close()
    return found


def right(prepared: Prepared) -> list[Any]:
    """What the module itself gives on the bound inputs."""
    module = load_module(prepared.artifact.source, 0)
    bound = arrays(prepared.inputs_path)
    given = [
        torch.from_numpy(bound[spec.name]).to(getattr(torch, spec.dtype))
        for spec in prepared.artifact.inputs
    ]
    with torch.no_grad():
        return tensors_in(module(*given))


@pytest.mark.parametrize(
    ("name", "dtype", "held"),
    [
        ("bfloat16_weights", "bfloat16", "float32"),
        ("float8_input", "float8_e4m3fn", "float32"),
        ("complex_input", "complex64", "complex64"),
        ("uint16_input", "uint16", "uint16"),
    ],
)
def test_inputs_of_types_that_numpy_may_lack(
    tmp_path: Path, name: str, dtype: str, held: str
) -> None:
    prepared = made(name, tmp_path)

    (spec,) = prepared.artifact.inputs
    assert (spec.dtype, spec.array_dtype) == (dtype, held)
    assert arrays(prepared.inputs_path)[spec.name].dtype == held
    (output,) = ran(prepared)[0].values()
    np.testing.assert_array_equal(output, right(prepared)[0].float().numpy())


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("list_input", ["x.0", "x.1"]),
        ("dict_as_an_input", ["x.a"]),
        ("number_input", ["x"]),
        ("none_input", ["x"]),
    ],
)
def test_inputs_in_nests_and_beside_constants(tmp_path: Path, name: str, inputs: list[str]) -> None:
    prepared = made(name, tmp_path)
    assert [spec.name for spec in prepared.artifact.inputs] == inputs
    (output,) = ran(prepared)[0].values()
    np.testing.assert_allclose(output, right(prepared)[0].numpy(), rtol=1e-6)


def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    assert refused("dataclass_input", tmp_path).startswith(
        "factory 'odd_modules:dataclass_input' gives Pair for input 'x'; give tensors"
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dataclass_output", 1),
        ("model_output", 3),
        ("tuple_with_none", 3),
        ("number_output", 1),
        ("array_output", 1),
        ("nested_output", 2),
        ("sparse_output", 1),
        ("complex_output", 1),
    ],
)
def test_outputs_are_found_wherever_they_are(tmp_path: Path, name: str, count: int) -> None:
    prepared = made(name, tmp_path)
    outputs, unseen, _ = ran(prepared)
    assert list(outputs) == [spec.name for spec in prepared.artifact.outputs]
    assert (len(outputs), unseen) == (count, {})
    for array, exact in zip(outputs.values(), right(prepared), strict=True):
        dense = exact.to_dense() if exact.layout != torch.strided else exact
        np.testing.assert_allclose(array, dense.numpy(), rtol=1e-6)


def test_an_output_that_nobody_can_see_is_told(tmp_path: Path) -> None:
    assert ran(made("object_output", tmp_path))[:2] == ({}, {"output_0": "a Holder"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("generator_output", "returns a generator, which computes when it is read"),
        ("meta_weights", "has weights on the meta device"),
        ("too_large", "use a smaller batch or model"),
        ("says_nothing", "raised AssertionError; repair it"),
        ("missing_package", "No module named 'a_package_that_nobody_has'; install it"),
        ("no_module", "returned (str, tuple); return (torch module, example inputs)"),
        ("exits", "ended the process (it said: no licence)"),
        ("interrupts", "raised KeyboardInterrupt"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    assert text in refused(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("complex_input", "takes complex numbers, and an ONNX graph takes them as pairs of real"),
        ("nothing_returned", "gives no tensor, and an ONNX graph gives nothing else"),
    ],
)
def test_what_no_onnx_graph_can_be_is_told_before_the_export(
    tmp_path: Path, name: str, text: str
) -> None:
    told = refused(name, tmp_path, "onnx")
    assert text in told and told.endswith("run it with --backend pytorch")


@pytest.mark.parametrize(
    "name", ["sparse_weights", "csr_buffer", "parameter_of_a_subclass", "exported_inside"]
)
def test_weights_of_any_kind_are_counted_and_hashed(tmp_path: Path, name: str) -> None:
    prepared, again = made(name, tmp_path / "a"), made(name, tmp_path / "b")
    assert prepared.artifact.size_bytes > 0
    assert prepared.model.sha256 == again.model.sha256 or name == "parameter_of_a_subclass"
    assert ran(prepared)[0]


def test_packed_weights_are_not_counted_as_none(tmp_path: Path) -> None:
    prepared = made("quantized_by_its_maker", tmp_path)
    assert prepared.model.parameters == Unavailable(
        "its weights are packed for integer kernels, which do not say how many there are",
        "see the model that it was quantized from",
    )
    assert prepared.artifact.size_bytes > 500  # with the packed weights


def test_a_view_of_what_a_convolution_gives(tmp_path: Path) -> None:
    """Channels last is Harness's own choice, and not every forward works on it."""
    prepared = made("convolution_then_view", tmp_path)
    outputs, _, described = ran(prepared)
    np.testing.assert_allclose(outputs["output_0"], right(prepared)[0].numpy(), atol=1e-5)
    assert described.runtime["channels_last"].startswith("off: ")


@pytest.mark.parametrize(
    "name",
    ["dataclass_output", "tuple_with_none", "inputs_by_name", "convolution_then_view",
     "call_overridden", "compiled", "data_parallel"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_int8_computes_what_the_module_does_when_called(tmp_path: Path, name: str) -> None:
    prepared = made(name, tmp_path, "torch-int8", precision="int8")
    for array, exact in zip(ran(prepared)[0].values(), right(prepared), strict=True):
        np.testing.assert_allclose(array, exact.numpy(), atol=0.15)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["array_output", "numpy_inside"])
def test_values_that_leave_the_graph_are_no_int8_model(tmp_path: Path, name: str) -> None:
    """A trace would keep those of the one call that it saw."""
    assert "--backend onnxruntime" in refused(name, tmp_path, "torch-int8", precision="int8")


@pytest.mark.filterwarnings("ignore")
def test_what_a_kernel_would_leave_out_is_refused(tmp_path: Path) -> None:
    text = refused("hooks", tmp_path, "torch-int8", precision="int8")
    assert "computes something else in int8" in text


@pytest.mark.filterwarnings("ignore")
def test_a_random_model_is_quantized_for_its_latency(tmp_path: Path) -> None:
    assert ran(made("random_output", tmp_path, "torch-int8", precision="int8"))[0]


@pytest.mark.filterwarnings("ignore")
def test_int8_says_which_type_it_takes(tmp_path: Path) -> None:
    text = refused("half_weights", tmp_path, "torch-int8", precision="int8")
    assert "weights of type half, and this route takes float32 alone" in text


@pytest.mark.filterwarnings("ignore")
def test_int8_of_weights_that_hooks_compute(tmp_path: Path) -> None:
    prepared = made("weight_norm_by_hooks", tmp_path, "torch-int8", precision="int8")
    np.testing.assert_allclose(ran(prepared)[0]["output_0"], right(prepared)[0], atol=0.1)


def test_outputs_have_the_names_that_the_module_gives_them_under() -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert output_names({"features": one, "logits": two, "loss": None}) == ["features", "logits"]
    assert output_names({"hidden": (one, two), "y": one}) == ["hidden_0", "hidden_1", "y"]
    assert output_names(torch.max(torch.ones(2, 2), 1)) is None
    for none in (one, (one, two), {"a b": one}, {"y": one, "x": two}, {}, None, object()):
        assert output_names(none, taken=("x",)) is None
    assert output_names({"a_0": one, "a": (one, two)}) is None  # two of one name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "names"),
    [("dataclass_output", ["logits"]), ("model_output", ["logits", "hidden_0", "hidden_1"])],
)
def test_outputs_are_named_alike_on_every_route(
    tmp_path: Path, name: str, names: list[str]
) -> None:
    prepared = made(name, tmp_path)
    assert list(ran(prepared)[0]) == names
    graph = made(name, tmp_path, "onnx", backend="onnxruntime")
    assert [spec.name for spec in graph.artifact.outputs] == names


@pytest.mark.parametrize(("wanted", "named"), [("logits", "logits"), ("linear", "y"), ("x", "y")])
def test_a_name_that_the_graph_uses_already_is_not_taken(wanted: str, named: str) -> None:
    x, y = (onnx.helper.make_tensor_value_info(n, 1, [2]) for n in ("x", "y"))
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["linear"]),
        onnx.helper.make_node("Neg", ["linear"], ["y"]),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y]))
    _rename_outputs(model.graph, [wanted])
    assert [output.name for output in model.graph.output] == [named]
    onnx.checker.check_model(model, full_check=True)


def test_flat_gives_tensors_alone() -> None:
    class Number(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return {"a": x, "b": None, "c": 1.0}

    with pytest.raises(TypeError, match="gives a float, which is no tensor"):
        Flat(Number())(torch.ones(1))
    assert [type(leaf).__name__ for leaf in leaves(["a", None, 2])] == ["str", "NoneType", "Tensor"]


def test_only_types_that_numpy_lacks_are_held_in_another() -> None:
    names = {name: TensorSpec("x", name, ()).array_dtype for name in ("float16", "int4", "bool")}
    assert names == {"float16": "float16", "int4": "int4", "bool": "bool"}


def test_warnings_are_no_failure(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ran(made("warns", tmp_path))[0]


def test_torchscripts_interpreter_says_last_what_happened() -> None:
    text = (
        "The following operation failed in the TorchScript interpreter.\n"
        "Traceback of TorchScript (most recent call last):\n    x.view(3)\n    ~~~~~~ <--- HERE\n"
        "RuntimeError: shape '[3]' is invalid for input of size 8\n"
    )
    assert cause(RuntimeError(text)) == "RuntimeError: shape '[3]' is invalid for input of size 8"
    assert cause(ValueError("a\nb")) == "a b"
    assert cause(ValueError()) == ""
