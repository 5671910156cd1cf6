"""Files by the hash of their contents, once; artifacts of one machine for others of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError, UsageError
from harness.fleet import freight
from harness.fleet.freight import Packer, Parcel, Piece, Products, install, unpack, write_piece


class Kept:
    """What Ray keeps, here in a list."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def keep(self, data: bytes) -> int:
        self.held.append(data)
        return len(self.held) - 1

    def get(self, reference: Any) -> bytes:
        return self.held[reference]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(freight, "PIECE_BYTES", 4)
    return tmp_path / "cache"


def test_a_file_comes_whole_under_its_own_folders(tmp_path: Path, node: Path) -> None:
    path = tmp_path / "models/build/net.pt2"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0123456789")
    kept = Kept()
    packed, parcels = Packer(kept.keep).pack({"model": str(path), "precision": "fp32"})
    assert kept.held == [b"0123", b"4567", b"89"]
    fields = unpack(packed, parcels, kept.get)
    found = Path(fields["model"])
    assert found.parts[-3:] == ("models", "build", "net.pt2") and found.is_relative_to(node)
    assert found.read_bytes() == b"0123456789"
    assert fields["precision"] == "fp32"


def test_a_file_is_read_once_and_sent_once(tmp_path: Path, node: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"1")
    kept = Kept()
    packer = Packer(kept.keep)
    first, parcels = packer.pack({"dataset": str(path), "calibration": str(path)})
    second, _ = packer.pack({"dataset": str(path)})
    assert len(kept.held) == 1 and len(parcels) == 1
    assert first["dataset"] == first["calibration"] == second["dataset"]
    unpack(first, parcels, kept.get)

    def never(reference: Any) -> bytes:
        raise AssertionError("it lies there already")

    unpack(second, parcels, never)


def test_another_content_is_another_file(tmp_path: Path, node: Path) -> None:
    path = tmp_path / "net.pt2"
    places = []
    for content in (b"1", b"2"):
        path.write_bytes(content)
        packed, _ = Packer(Kept().keep).pack({"model": str(path)})
        places.append(packed["model"])
    assert len(set(places)) == 2


def test_names_that_are_no_files_stay(node: Path) -> None:
    fields = {"model": "digits", "dataset": "/no/such.npz"}
    assert Packer(Kept().keep).pack(fields) == (fields, ())


def test_an_empty_file_is_a_file(tmp_path: Path, node: Path) -> None:
    (tmp_path / "empty.npz").write_bytes(b"")
    kept = Kept()
    packed, parcels = Packer(kept.keep).pack({"inputs": str(tmp_path / "empty.npz")})
    assert Path(unpack(packed, parcels, kept.get)["inputs"]).read_bytes() == b""


def test_a_node_writes_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside of its folder"):
        write_piece(tmp_path, Piece("../other", 0, b""), b"1")
    assert not (tmp_path.parent / "other").exists()


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be written"):
        install([Parcel("int8/1", (Piece("product.json", 0, b""),))], lambda data: data)


def test_what_a_run_built_serves_others(
    tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node / "fp32/old").mkdir(parents=True)
    (node / "fp32/old/product.json").write_text("{}")
    before = Products.now()
    (node / "int8/new").mkdir(parents=True)
    (node / "int8/new/product.json").write_text("{1}")
    (node / "int8/new/model.onnx").write_bytes(b"0123456789")
    (node / "harness-unfinished/1-abcdefgh").mkdir(parents=True)
    (node / "harness-unfinished/1-abcdefgh/product.json").write_text("")
    found = before.new()
    assert [product.digest for product in found] == ["int8/new"]
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "other"))
    install(found, lambda data: data)
    assert (tmp_path / "other/int8/new/model.onnx").read_bytes() == b"0123456789"
    assert (tmp_path / "other/int8/new/product.json").read_text() == "{1}"
