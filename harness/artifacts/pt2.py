"""Loads an untrusted exported program (.pt2) without running what is in it. Imports torch.

torch's own loader trusts the file: it unpickles some weights and all opaque constants, evaluates
shape expressions as Python, resolves any dotted name under ``torch`` (``torch.os.system`` too) as
an operator, and loads compiled libraries. So the archive is read first, through torch's own reader,
and refused unless it holds only tensors, plain names, arithmetic on symbols and registered
operators; then it is loaded with unpickling confined to tensors.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

from harness.errors import ModelError

_OPERATOR = re.compile(
    r"torch\.ops\.(prims|quantized|quantized_decomposed|onednn|mkldnn|torchao|torchvision)"
    r"\.(?!__)\w+\.(?!__)\w+"
    # two of aten's operators open files by name
    r"|torch\.ops\.aten\.(?!__|from_file|save|load)\w+\.(?!__)\w+"
    r"|torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__\.(?!__)\w+"
    r"|torch\.ops\.higher_order\.(cond|scan|map_impl|while_loop|associative_scan"
    r"|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_"
    r"|getitem)|math\.[a-z]\w*|torch\.sym_[a-z]+"
)
_NAME = re.compile(r"[\w.\-+/: \[\]]*")
_FILES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|version|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/.*"
)
# texts that torch keeps as texts: never evaluated, compiled or resolved to something called
_INERT = {"metadata", "as_string", "as_strings", "in_spec", "out_spec", "torch_version"}


def load_program(path: Path) -> ExportedProgram:
    """The exported program in ``path``. Raises `ModelError`."""
    try:
        _refuse_code(path)
        with _tensors_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = load_pt2(str(path)).exported_programs["model"]
    except ModelError:
        raise
    except Exception as error:  # a damaged archive raises whatever the loader stumbles over
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path} is no exported program that this torch can load: {line}",
            "save it again with torch.export.save",
        ) from error
    # conditions as Python source, which `module()` would compile
    program._guards_code = []
    return program


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """torch's own switch: every unpickling admits tensors and plain containers alone."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _refuse_code(path: Path) -> None:
    with PT2ArchiveReader(str(path)) as archive:
        for name in archive.get_file_names():
            if not _FILES.fullmatch(name):
                raise _refusal(path, f"the member {name!r}")
        for kind in ("weights", "constants"):
            config = json.loads(archive.read_string(f"data/{kind}/model_{kind}_config.json"))
            for entry in config["config"].values():
                if not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                    raise _refusal(path, f"the object {entry['path_name']!r}")
        _check_value(path, "", json.loads(archive.read_string("models/model.json")))


def _check_value(path: Path, key: str, value: Any) -> None:
    """Walk the program; every text must be plain for the place where it stands."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_text(path, "", name)
            if name not in _INERT:
                _check_value(path, name, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_value(path, key, inner)
    elif isinstance(value, str):
        _check_text(path, key, value)


def _check_text(path: Path, key: str, text: str) -> None:
    if key == "target":
        good = _OPERATOR.fullmatch(text) is not None
    elif key == "expr_str":
        good = _is_arithmetic(text)
    elif key == "guards_code":
        good = True  # dropped after loading
    else:
        good = _NAME.fullmatch(text) is not None
    if not good:
        raise _refusal(path, f"{key or 'the name'} {text[:60]!r}")


def _refusal(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} is refused: {what} could run code when it is loaded",
        "export it again from tensors and torch operators, or give package.module:factory",
    )


def _is_arithmetic(text: str) -> bool:
    """Numbers, symbols, operators and sympy's classes; text only as the name of a ``Symbol``."""
    try:
        return all(_is_plain(node) for node in ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False


_PLAIN = (
    ast.Expression, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop,
    ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.keyword, ast.Tuple,
)  # fmt: skip


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id[:1].isupper()):
            return False
        if node.func.id != "Symbol":
            return not any(isinstance(a, ast.Constant) and _is_text(a) for a in node.args)
        return len(node.args) == 1
    if isinstance(node, ast.Constant):
        return not _is_text(node) or re.fullmatch(r"\w+", str(node.value)) is not None
    if isinstance(node, ast.Name):
        return re.fullmatch(r"(?!__)\w+", node.id) is not None
    return isinstance(node, _PLAIN)


def _is_text(node: ast.Constant) -> bool:
    return isinstance(node.value, str | bytes)
