"""What a cell's identity is, pinned: stored results, baselines and acknowledged changes rest on it.

A key that changes here begins every series of its kind anew. Nothing may change one by accident.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.records.cell import cell_name, fits, key_by_stem, long_name, model_path, spec_cell
from harness.spec import parse

KEYS: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "32e0a02c42512934"),
    ({"precision": "int8"}, "57c6aa84252f0046"),
    ({"model": "resnet18"}, "90e237b748b79816"),
    ({"model": "resnet18", "backend": "pytorch"}, "0bda78895208cc12"),
    ({"model": "mobilenet_v2", "batch_size": "8"}, "0e040cdc4b650419"),
    ({"model": "digits", "backend": "pytorch", "precision": "int8"}, "d3ff5519e27d0aa8"),
    ({"precision": "int8", "calibration_method": "entropy"}, "938569fd67b1991d"),
    ({"precision": "int8", "quantization": "dynamic"}, "741d33fc51a58e91"),
    ({"scenario": "throughput", "concurrency": "4"}, "4a35b9f37409d874"),
    ({"scenario": "throughput", "concurrency": "4", "threads": "1"}, "2decd1c6a4e2dc75"),
    ({"boundary": "transfer"}, "9de477d82b5e7f51"),
    ({"device": "cuda"}, "e35fb9d02079a544"),
    ({"device": "cuda:1", "scenario": "throughput"}, "ebc558f7fd7336f0"),
    ({"backend": "tensorrt", "precision": "fp16"}, "52ee2bf603a31a57"),
    ({"seed": "7"}, "98295f517e6d29b1"),
    ({"options": ["compile=inductor"], "backend": "pytorch"}, "80c8c6f89fc7b446"),
    ({"model": "package.module:factory"}, "165d29bb14d43924"),
    (
        {"model": "package.module:factory", "precision": "int8", "backend": "pytorch"},
        "38bce13cf8ec3359",
    ),
    ({"model": "module:make", "input_shapes": ["x=1x3x32x32"]}, "e4416be9ef19adc3"),
    (
        {"model": "package.module:factory", "precision": "bf16", "backend": "pytorch"},
        "bacd749c2689fabb",
    ),
    ({"dataset": "labelled.npz"}, "ac9d7fef7063dda8"),
    ({"dataset": "/data/one/labelled.npz"}, "ac9d7fef7063dda8"),
    ({"precision": "int8", "calibration": "c/inputs.npz"}, "9746971d286988fa"),
    ({"inter_threads": "2", "threads": "2"}, "d30b6ec6f480ca19"),
    ({"launches": "5", "duration_s": "3"}, "32e0a02c42512934"),
    ({"tags": ["a=b"], "out": "elsewhere"}, "32e0a02c42512934"),
    ({"model": "net.onnx"}, "f3b52e1f6d4c73e0"),
    ({"model": "./net.onnx"}, "f3b52e1f6d4c73e0"),
    ({"model": "program.pt2", "backend": "pytorch"}, "df122e0d3fb13b7d"),
    ({"model": "net.onnx", "precision": "int8", "batch_size": "2"}, "ecdebaf9e9cfbf3e"),
)


@pytest.mark.parametrize(("fields", "key"), KEYS, ids=[key for _, key in KEYS])
def test_keys_stay_as_they_are(fields: dict[str, Any], key: str) -> None:
    assert spec_cell(parse(fields)).key == key


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("digits", "digits"),
        ("package.module:factory", "package.module:factory"),
        ("model.onnx", "model"),
        ("../model.onnx", "model"),
        ("/model.onnx", "model"),
        ("build/model.onnx", "build/model"),
        ("/ci/checkout-17/build/model.onnx", "build/model"),
        ("small/../large/./model.onnx", "large/model"),
        ("bert/onnx/model.onnx", "bert/onnx/model"),
        ("onnx/model.onnx", "onnx/model"),
        ("C:\\nets\\v2\\model.onnx", "v2/model"),
        ("programs/net.pt2", "programs/net"),
    ],
)
def test_a_model_file_counts_by_its_folder_and_stem(model: str, path: str) -> None:
    assert model_path(model) == path


def test_folders_tell_models_apart_and_checkouts_do_not() -> None:
    small, large = (parse({"model": f"{name}/model.onnx"}) for name in ("small", "large"))
    elsewhere = parse({"model": "/ci/17/small/model.onnx"})
    assert spec_cell(small) == spec_cell(elsewhere)
    assert spec_cell(small).key != spec_cell(large).key
    assert cell_name(small) == cell_name(large) == "model/onnxruntime/cpu/fp32/b1/latency"
    assert long_name(large) == "large/model/onnxruntime/cpu/fp32/b1/latency"
    assert key_by_stem(small) == key_by_stem(large) == "554e025f6fecf0a2"  # as it once was


def test_globs_mean_both_names() -> None:
    name = "large/model/onnxruntime/cpu/fp32/b1/latency"
    assert fits(name, "model/*") and fits(name, "large/*") and fits(name, "*/fp32/*")
    assert not fits(name, "small/*")
    assert fits("digits/onnxruntime/cpu/fp32/b1/latency", "digits/*")
