"""Exported programs are loaded, hostile ones refused before anything in them runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'hw-harness[torch]'")

import torch
from torch.export import Dim

from harness.artifacts.pt2 import load_program
from harness.artifacts.torch_source import load
from harness.errors import ModelError

WITNESS = "witness.txt"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids).mean(1)) * scale


class Bomb:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> Any:
        return Path.write_text, (Path(WITNESS), "ran")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    batch = {0: Dim("batch", min=1, max=64)}
    args = (torch.tensor([[1, 2, 3]] * 3), torch.ones(3, 1))
    program = torch.export.export(Net().eval(), args, dynamic_shapes=(batch, batch))
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(program, path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rewritten(saved: bytes, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its members (root folder left out) changed; stored, as torch stores them."""
    source = zipfile.ZipFile(io.BytesIO(saved))
    root = source.namelist()[0].partition("/")[0]
    members = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name, content in members.items():
            target.writestr(f"{root}/{name}", content)
    return path


def in_program(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return apply


def test_a_program_computes_what_was_saved(saved: bytes, folder: Path) -> None:
    path = rewritten(saved, folder / "net.pt2", lambda members: None)
    loaded = load(f"pt2:{path}", 0)
    assert loaded.examples is not None
    assert list(loaded.examples) == ["ids", "scale"]
    torch.manual_seed(0)
    args = (torch.tensor([[4, 5, 6]] * 5), torch.ones(5, 1))
    torch.testing.assert_close(loaded.module(*args), Net().eval()(*args))


def target(text: str) -> Callable[[dict[str, bytes]], None]:
    def change(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][-1]
        node["target"] = text
        node["inputs"] = [{"name": "command", "arg": {"as_string": f"touch {WITNESS}"}, "kind": 1}]

    return in_program(change)


def expression(text: str) -> Callable[[dict[str, bytes]], None]:
    def change(program: Any) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        values["ids"]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 3}}}

    return in_program(change)


def renamed_input(program: Any) -> None:
    graph = program["graph_module"]["graph"]
    graph["inputs"][-1]["as_tensor"]["name"] = "scale=print('x')"


def pickled_constant(members: dict[str, bytes]) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    config = {"config": {"c": {**entry, "tensor_meta": None}}}
    members["data/constants/model_constants_config.json"] = json.dumps(config).encode()
    members["data/constants/opaque_obj_0"] = pickle.dumps(Bomb())


def pickled(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        torch.save(Bomb(), buffer)
        members[name] = buffer.getvalue()

    return change


def pickled_weight(members: dict[str, bytes]) -> None:
    pickled("data/weights/weight_0")(members)
    name = "data/weights/model_weights_config.json"
    config = json.loads(members[name])
    next(iter(config["config"].values()))["use_pickle"] = True
    members[name] = json.dumps(config).encode()


def compiled_library(members: dict[str, bytes]) -> None:
    members["data/aotinductor/model/lib.so"] = b"\x7fELF"


HOSTILE = {
    "torch.os": target("torch.os.system"),
    "library loader": target("torch.ops.load_library"),
    "file writer": target("torch.ops.aten.save.default"),
    "dunder": target("torch.ops.aten.__init__.__globals__"),
    "eval in a shape": expression(f"open('{WITNESS}', 'w')"),
    "attribute in a shape": expression("().__class__"),
    "nested eval in a shape": expression("Function('open')"),
    "code in a name": in_program(renamed_input),
    "pickled constant": pickled_constant,
    "pickled weight": pickled_weight,
    "legacy weights": pickled("data/weights/model.pt"),
    "pickled sample inputs": pickled("data/sample_inputs/model.pt"),
    "compiled library": compiled_library,
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_programs_are_refused_and_nothing_runs(
    saved: bytes, folder: Path, attack: str
) -> None:
    path = rewritten(saved, folder / "net.pt2", HOSTILE[attack])
    with pytest.raises(ModelError) as raised:
        load(f"pt2:{path}", 0)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (folder / WITNESS).exists()


def test_guards_are_dropped_unread(saved: bytes, folder: Path) -> None:
    def change(program: Any) -> None:
        program["guards_code"] = [f"open('{WITNESS}', 'w')"]

    path = rewritten(saved, folder / "net.pt2", in_program(change))
    loaded = load(f"pt2:{path}", 0)
    loaded.module(torch.tensor([[4, 5, 6]] * 5), torch.ones(5, 1))
    assert not (folder / WITNESS).exists()


@pytest.mark.parametrize("content", [b"\0", b"PK\x03\x04", b"not an archive at all" * 100])
def test_files_that_are_no_archive(folder: Path, content: bytes) -> None:
    (folder / "net.pt2").write_bytes(content)
    with pytest.raises(ModelError, match="is no exported program that this torch can load"):
        load_program(folder / "net.pt2")


def test_truncated_archives(saved: bytes, folder: Path) -> None:
    for share in (0.1, 0.5, 0.9, 0.99):
        (folder / "net.pt2").write_bytes(saved[: int(len(saved) * share)])
        with pytest.raises(ModelError):
            load_program(folder / "net.pt2")
