"""What lies in the place of a file is told by name: a pointer, an archive, a web page."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from harness.errors import DataError, ModelError
from harness.models.data import read_samples
from harness.models.onnx_file import load
from harness.models.sources import find_source

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
STAND_INS = [
    (LFS, "a Git LFS pointer; fetch it: git lfs pull"),
    (gzip.compress(b"model", mtime=0), "compressed by gzip; unpack it: gunzip"),
    (bz2.compress(b"model"), "compressed by bzip2; unpack it: bunzip2"),
    (lzma.compress(b"model"), "compressed by xz; unpack it: unxz"),
    (b"\x28\xb5\x2f\xfd...", "compressed by zstd; unpack it: zstd -d"),
    (b"<!DOCTYPE html>\n<html>", "a web page; download the file itself"),
    (b"<html>", "a web page; download the file itself"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it; export the model to ONNX (tf2onnx)"),
    (b"GGUF\x03\0\0\0", "a GGUF file, for llama.cpp; export the model to ONNX"),
]


@pytest.mark.parametrize(("data", "told"), STAND_INS)
@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_a_model_that_is_something_else(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError) as refused:
        find_source(str(tmp_path / name))
    assert str(refused.value) == f"{tmp_path / name} is {told}"


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    with pytest.raises(ModelError, match=r"a checkpoint: weights without a model .*load_file"):
        find_source(str(tmp_path / "net.safetensors"))


@pytest.mark.parametrize(("data", "told"), STAND_INS)
def test_data_that_is_something_else(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError) as refused:
        read_samples(tmp_path / "x.npz", "--dataset", [], 1, labelled=False)
    assert str(refused.value) == f"--dataset {tmp_path / 'x.npz'} is {told}"


def test_real_data_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.arange(3))
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    found = read_samples(tmp_path / "x.npz", "--dataset", [], 1, labelled=True)
    assert found.arrays["labels"].tolist() == [0, 1, 2]


def test_a_format_newer_than_the_library_is_one_line(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    for version, refused in ((onnx.IR_VERSION, False), (onnx.IR_VERSION + 1, True)):
        path = tmp_path / f"{version}.onnx"
        path.write_bytes(helper.make_model(graph, ir_version=version).SerializeToString())
        if refused:
            with pytest.raises(ModelError, match=rf"IR version {version}, .*; pip install -U onnx"):
                load(path)
        else:
            assert load(path).ir_version == version
