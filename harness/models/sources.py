"""What ``--model`` names: a zoo entry, an ONNX file, a file of PyTorch's or a factory."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path, PurePosixPath

import msgspec

from harness.errors import ModelError, UsageError
from harness.host.names import nearest
from harness.spec import MODEL_SUFFIXES
from harness.zoo import ZOO

_HEAD_BYTES = 64
# what a download or a checkout leaves: its beginning, what it is, what to do
_STAND_INS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "fetch it: git lfs pull"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: zstd -d"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it: unxz"),
    (b"<!DOCTYPE", "a web page", "download the file itself"),
    (b"<!doctype", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "export the model to ONNX (tf2onnx)"),
    (b"GGUF", "a GGUF file, for llama.cpp", "export the model to ONNX"),
)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` is zoo, onnx, pt2, torchscript or factory; ``path`` is absolute, and empty without a
    file.
    """

    kind: str
    name: str
    path: str = ""


def find_source(text: str) -> Source:
    """Raises `UsageError` for an unknown model, `ModelError` for a file that cannot be read."""
    if text in ZOO:
        return Source(kind="zoo", name=text)
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix == ".safetensors" and os.path.isfile(path):  # noqa: PTH113 (never raises)
        raise ModelError(
            f"{path} is a checkpoint: weights without a model to put them in",
            "load it in a factory (package.module:factory) with safetensors.torch.load_file",
        )
    if suffix in MODEL_SUFFIXES or os.path.isfile(path):  # noqa: PTH113 (never raises)
        check_file(path)
        kind = _kind(path) or ("pt2" if suffix == ".pt2" else "onnx")
        return Source(kind=kind, name=path.stem, path=str(path.absolute()))
    if os.path.isdir(path):  # noqa: PTH112
        raise ModelError(f"{text} is a folder", "name the .onnx, .pt2 or .pt file in it")
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text):
        return Source(kind="factory", name=text)
    near = nearest(text, ZOO)
    hint = f"did you mean {near}? " if near else ""
    raise UsageError(
        f"unknown model {text!r}",
        f"{hint}choose one of {', '.join(ZOO)}; "
        "or give a .onnx, .pt2 or .pt file, or module:factory",
    )


_EXPORT = "torch.export.save(torch.export.export(model, example_inputs), 'model.pt2')"


def _kind(path: Path) -> str:
    """PyTorch's own files are told by what is in them, since ``.pt`` may be any; empty for others.

    Nothing is run. Raises `ModelError` for those that hold no model that could be loaded safely.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(2)
        # protocols 2 to 5 of pickle, in which PyTorch wrote before version 1.6
        if head[:1] == b"\x80" and head[1:] in b"\x02\x03\x04\x05":
            raise ModelError(
                f"{path} is a pickle, which runs code when it is read",
                f"load it in a script that trusts it, and {_EXPORT}",
            )
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return ""
    inside = {name.partition("/")[2] for name in members}
    if {"constants.pkl", "model.json"} & inside:
        return "torchscript"
    if "archive_format" in inside:
        return "pt2"
    if "data.pkl" in inside:
        raise ModelError(
            f"{path} is a checkpoint: pickled weights without a model to put them in",
            "load it in a factory (package.module:factory) with torch.load(..., weights_only=True)",
        )
    return ""


def stand_in(head: bytes) -> tuple[str, str] | None:
    """What a file that begins so is in the place of the real one, and how to get that."""
    found = ((what, remedy) for begin, what, remedy in _STAND_INS if head.startswith(begin))
    return next(found, None)


def check_file(path: Path) -> None:
    """Raises `ModelError` for what is no readable regular file with something in it."""
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder", "name the file in it")
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no regular file", "copy it into one")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not head:
            raise ModelError(f"{path} is empty", "export or copy it again")
        if stands_in := stand_in(head):
            what, remedy = stands_in
            raise ModelError(f"{path} is {what}", remedy)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check the path") from error


def check_external(path: Path, location: str) -> int:
    """The size in bytes of one data file. Raises `ModelError` where it lies outside the folder."""
    folder = path.parent.resolve()
    pure = PurePosixPath(location)
    target = folder / location
    outside = pure.is_absolute() or ".." in pure.parts or "\\" in location or not location
    if outside or not target.resolve().is_relative_to(folder):
        raise ModelError(
            f"external data of {path} points outside the model's folder: {location!r}",
            "keep the data file beside the model; a link that leads elsewhere does not count",
        )
    if not target.is_file():
        raise ModelError(
            f"external data of {path} is missing: {target}", "copy it beside the model"
        )
    return target.stat().st_size
