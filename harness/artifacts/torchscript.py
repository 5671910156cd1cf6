"""Loads an untrusted TorchScript file without letting it reach beyond tensors. Imports torch.

``torch.jit.load`` runs no Python: its own C++ reader makes the objects of a fixed set of types, and
compiles the archive's source (``code/``) for torch's own interpreter. But that interpreter already
runs while the file is loaded (``__setstate__``), with every operator that is registered: two of
them read and write files by name, others open connections. So the source is read first, through
torch's own reader, and refused where it names such an operator, a namespace other than those that
compute, or a class that torch brings for something else than packed weights.

This is no sandbox: torch's compiler and its kernels are not made to withstand hostile input.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import ModelError, one_line

_NAMESPACES = (
    "aten|prim|prims|quantized|_quantized|onednn|mkldnn|mkldnn_prepacked|prepacked|sparse"
    "|torchvision|torchaudio"
)
_NAME = r"[A-Za-z_]\w*"
# what no source that torch writes for a model of tensors has
_SUSPECT = re.compile(
    r"\b(?:save|from_file)\b"
    rf"|(?<![\w.])ops\b(?!\.(?:{_NAMESPACES})\.{_NAME})"
    r"|\btorch\s*\.\s*classes\b(?!\.(?:quantized|rnn|xnnpack)\b)"
    r"|__torch__\.torch\b(?!\.\w)|__torch__\b(?!\.\w)"
    rf"|\bgetattr\b(?!\((?!torch\b|ops\b|__torch__\b){_NAME}, \"[^\"\\\n]*\")"
)
_CLASSES = re.compile(rb"torch\.classes\b(?!\.(?:quantized|rnn|xnnpack)\b)[\w.]*")
_OBJECTS = ("data.pkl", "constants.pkl")
_TRACED = "traced_inputs"


def load_script(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """The module in ``path``, in eval mode, on ``device``. Raises `ModelError`."""
    try:
        _refuse_code(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
            return module.eval()
    except ModelError:
        raise
    except Exception as error:  # a damaged archive raises whatever the reader stumbles over
        raise ModelError(
            f"{path} is no TorchScript file that this torch can load: {one_line(error)}",
            "save it again with torch.jit.save",
        ) from error


def inputs_of(path: Path, module: torch.jit.ScriptModule) -> tuple[list[str], list[str]]:
    """The names of the inputs, and of those the ones that may be left out.

    Raises `ModelError` for an input that is no tensor and may not be left out.
    """
    names, optional = [], []
    schema: Any = getattr(getattr(module, "forward", None), "schema", None)
    if schema is None:
        raise ModelError(f"{path} has no method forward", "give package.module:factory")
    for argument in schema.arguments[1:]:
        if argument.has_default_value():
            optional.append(argument.name)
        elif str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            raise ModelError(
                f"input {argument.name!r} of {path} is {argument.type}, no tensor",
                "wrap it in a module that takes tensors (package.module:factory)",
            )
        names.append(argument.name)
    return names, optional


def traced_inputs(path: Path) -> list[Any] | None:
    """What ``forward`` was traced with: tensors that have a type and a shape, and no values, as
    torch keeps them in the file. None where it does not.

    Read as a checkpoint of weights alone, which makes tensors and plain containers.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.jit._pickle import restore_type_tag

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        target = io.BytesIO()
        writer = torch._C.PyTorchFileWriter(target)
        for name in map(str, reader.get_all_records()):
            if name == f"{_TRACED}.pkl" or name.startswith(f"{_TRACED}/"):
                record = reader.get_record(name)
                writer.write_record(name.replace(_TRACED, "data", 1), record, len(record))
        writer.write_end_of_file()
        target.seek(0)
        with FakeTensorMode(), torch.serialization.safe_globals([restore_type_tag]):
            traced = torch.load(target, map_location="cpu", weights_only=True).get("forward")
    except Exception:  # absent, or damaged: it is of use only where it can be read
        return None
    plain = bool(traced) and all(isinstance(value, Tensor) for value in traced)
    return list(traced) if plain else None


def constants_of(module: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """The tensors that stand in the program itself, where freezing puts the weights."""
    graph: Any = module.inlined_graph  # its nodes live as long as it does
    found = [
        node.t("value")
        for node in graph.findAllNodes("prim::Constant")
        if node.hasAttributes() and node.kindOf("value") == "t"
    ]
    unique = {(t.data_ptr(), t.shape, t.stride(), t.dtype): t for t in found}
    return {f"constant_{index}": tensor for index, tensor in enumerate(unique.values())}


def _refuse_code(path: Path) -> None:
    reader = torch._C.PyTorchFileReader(str(path))
    names = [str(name) for name in reader.get_all_records()]
    if "model.json" in names:
        raise ModelError(
            f"{path} is a TorchScript file of before torch 1.4",
            "load it with torch.jit.load and save it again with torch.jit.save",
        )
    for name in names:
        if name.startswith("code/") and name.endswith(".py"):
            text = reader.get_record(name).decode(errors="replace")
            if found := _SUSPECT.search(text):
                line = text[text.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0].strip()
                raise _refusal(path, f"{line[:80]!r} in {name}")
        elif name in _OBJECTS and (named := _CLASSES.search(reader.get_record(name))):
            raise _refusal(path, f"an object of {named[0].decode()}")


def _refusal(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} is refused: {what} could reach beyond its tensors",
        "if you trust it, torch.jit.load it in a factory (package.module:factory)",
    )
