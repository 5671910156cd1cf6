"""What an engine's own description says about its layers.

The JSON has the form that TensorRT 8 to 11 write: the samples under
tools/experimental/trt-engine-explorer in NVIDIA's TensorRT repository show it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.backends.tensorrt.inspect import operators, read_layers, shown
from harness.protocols import Layer


def layer(
    kind: str, before: list[str], after: list[str], key: str = "Format/Datatype", **more: Any
) -> dict[str, Any]:
    return {
        "Name": f"a {kind}",
        "LayerType": "CaskConvolution",
        "ParameterType": kind,
        "Inputs": [{"Name": "i", "Dimensions": [1, 3], key: text} for text in before],
        "Outputs": [{"Name": "o", "Dimensions": [1, 3], key: text} for text in after],
        "TacticValue": "0x0000000000000001",
        **more,
    }


def precision(entry: dict[str, Any]) -> str:
    (found,) = read_layers(json.dumps({"Layers": [entry], "Bindings": ["x"]}))
    return found.precision


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["Thirty-two wide channel vectorized row major Int8 format"], ["Row major FP32"], "int8"),
        (["Channel major INT8 format where channel % 16 == 0"], ["Int8"], "int8"),
        (["Row major linear FP32"], ["Row major Int8 format"], "fp32"),
        (["Channel major FP16 format where channel % 8 == 0"], ["Half"], "fp16"),
        (["Row major linear BFloat16 format"], ["BFloat16"], "bf16"),
        (["Half", "Float"], ["Half"], "fp16"),
        (["Bool", "Float"], ["Float"], "fp32"),
        (["Row major linear Int64 format"], ["Int64"], "int64"),
        (["Int64"], ["Half"], "fp16"),
        (["Row major linear FP8 format"], ["Half"], "fp8"),
        (["Row major linear UInt8 format"], ["UInt8"], "uint8"),
        (["Unknown format"], ["None"], "none"),
        ([], [], "none"),
    ],
)
def test_the_precision_is_that_of_what_is_computed_on(
    before: list[str], after: list[str], expected: str
) -> None:
    assert precision(layer("Convolution", before, after)) == expected
    assert precision(layer("Convolution", before, after, "Datatype")) == expected
    assert precision(layer("Convolution", before, after, "DataType")) == expected  # TensorRT 11
    assert precision(layer("Convolution", before, after, "Format/DataType")) == expected


def test_a_type_of_its_own_goes_before_the_format() -> None:
    """TensorRT 11 tells both, and a format names the width of a slot rather than the type."""
    entry = layer("Gather", [], [])
    entry["Inputs"] = [{"Format": "Row major linear INT8 format (kLINEAR)", "DataType": "Int64"}]
    assert precision(entry) == "int64"
    entry["Inputs"] = [{"Format": "Channel major FP16 format where channel % 8 == 0"}]
    assert precision(entry) == "fp16"


def test_control_characters_between_fused_names_are_read() -> None:
    text = json.dumps({"Layers": [layer("Convolution", ["Int8"], ["Int8"])]})
    (found,) = read_layers(text.replace("a Convolution", "conv\x1frelu"))
    assert (found.name, found.precision) == ("conv\x1frelu", "int8")


def test_a_tf32_kernel_is_told_by_its_name() -> None:
    name = "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x64"
    assert precision(layer("Convolution", ["Float"], ["Float"], TacticName=name)) == "tf32"
    assert precision(layer("Convolution", ["Half"], ["Half"], TacticName=name)) == "fp16"
    assert precision(layer("Convolution", ["Float"], ["Float"], TacticName="sm80_f32")) == "fp32"


def test_layers_are_counted_by_type_and_precision() -> None:
    entries = [
        layer("Reformat", ["Row major linear FP32"], ["Row major Int8 format"]),
        layer("Convolution", ["Row major Int8 format"], ["Row major Int8 format"]),
        layer("Convolution", ["Row major Int8 format"], ["Row major linear FP32"]),
        layer("Convolution", ["Row major linear FP32"], ["Row major linear FP32"]),
        {"Name": "fused", "LayerType": "kgen", "Inputs": [], "Outputs": [{"Datatype": "Half"}]},
        {"LayerType": "NoOp"},
        {},
    ]
    found = read_layers(json.dumps({"Layers": entries}))
    assert operators(found) == {
        "Convolution": {"fp32": 1, "int8": 2},
        "NoOp": {"none": 1},
        "Reformat": {"convert": 1},
        "kgen": {"fp16": 1},
        "unknown": {"none": 1},
    }


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", "[]", "{}", '{"Layers": 1}', '{"Layers": ["conv1"]}', '{"Layers": [1]}'],
)
def test_what_tells_no_layers_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_layers(text)


@pytest.mark.parametrize("odd", [1, "x", [1], {"Format/Datatype": 3}])
def test_odd_tensors_have_no_type(odd: Any) -> None:
    entry = {"Name": "n", "LayerType": "Conv", "Inputs": odd, "Outputs": [odd]}
    assert precision(entry) == "none"


def test_layers_are_shown_in_order_and_of_many_the_slowest() -> None:
    few = [Layer("a", "Conv", "int8"), Layer("b" * 500, "Relu", "fp32")]
    assert shown(few, {"a": 0.25}) == [
        Layer("a", "Conv", "int8", 0.25),
        Layer("b" * 160, "Relu", "fp32", None),
    ]
    many = [Layer(str(number), "Conv", "int8") for number in range(1000)]
    rows = shown(many, {str(number): float(number) for number in range(1000)})
    assert [row.name for row in rows] == [str(number) for number in range(700, 1000)]
