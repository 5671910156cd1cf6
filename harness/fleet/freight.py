"""Files between the machines: what cells name by content hash, once; artifacts; runs, whole.

driver   pack: a model file with what it refers to, in pieces that Ray keeps
node     unpack: into the cache, under the hash of the contents, unless it lies there
node     products: what a run has built into the cache, for other machines of its kind
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.errors import DataError, HarnessError, UsageError
from harness.host.cache_root import default_root
from harness.host.digest import sha256_of
from harness.host.files import cause
from harness.sweep.plan import FILES

PIECE_BYTES = 32 << 20
MOST_PRODUCT_BYTES = 256 << 20  # a larger artifact is built anew on each machine
_PLACE = "harness-fleet:"
_FOLDER = "fleet-files"
_PRODUCT = "product.json"
_UNFINISHED = "harness-unfinished"


class Piece(NamedTuple):
    """A part of a file. ``data``: the bytes, or Ray's reference to them."""

    path: str
    offset: int
    data: Any


class Parcel(NamedTuple):
    """Files that belong together, with the folders that they lie in."""

    digest: str
    pieces: tuple[Piece, ...]


def pieces(root: Path, paths: Iterable[Path]) -> Iterator[Piece]:
    """The files at ``paths`` below ``root``, in order."""
    for path in paths:
        with path.open("rb") as file:
            offset = 0
            while (data := file.read(PIECE_BYTES)) or not offset:
                yield Piece(str(path.relative_to(root)), offset, data)
                offset += len(data) or 1


def write_piece(root: Path, piece: Piece, data: bytes) -> None:
    """At its offset in its file below ``root``, and nowhere else. Raises `OSError`."""
    path = root / piece.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"a node sent a file for {piece.path!r}, outside of its folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(piece.offset)
        file.write(data)


class Packer:
    """``keep``: has Ray keep bytes, and returns a reference. A file is read once."""

    def __init__(self, keep: Callable[[bytes], Any]) -> None:
        self._keep = keep
        self._parcels: dict[str, tuple[Parcel, str]] = {}

    def pack(self, fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[Parcel, ...]]:
        """``fields`` with places for the files that they name, and the parcels of these.

        Raises `DataError` for a file that cannot be read.
        """
        packed, parcels = dict(fields), {}
        for field in FILES:
            text = fields.get(field)
            if isinstance(text, str) and os.path.isabs(text) and Path(text).is_file():  # noqa: PTH117
                if text not in self._parcels:
                    self._parcels[text] = self._packed(Path(text))
                parcel, inside = self._parcels[text]
                parcels[parcel.digest] = parcel
                packed[field] = f"{_PLACE}{parcel.digest}/{inside}"
        return packed, tuple(parcels.values())

    def _packed(self, path: Path) -> tuple[Parcel, str]:
        together = [path, *_referred_to(path)]
        # a model is known by the folders that it lies in: see `harness.records.cell`
        root = path.parents[min(2, len(path.parents) - 1)]
        try:
            digest = sha256_of(together)
            held = tuple(
                Piece(piece.path, piece.offset, self._keep(piece.data))
                for piece in pieces(root, together)
            )
        except OSError as error:
            raise DataError(f"{str(path)!r} cannot be read: {cause(error)}") from error
        inside = str(path.relative_to(root))
        named = hashlib.sha256(f"{digest}\0{inside}".encode()).hexdigest()
        return Parcel(named, held), inside


class Built:
    """What nodes have built, in Ray's keeping: for others of their kind, by its fingerprint."""

    def __init__(self, keep: Callable[[bytes], Any]) -> None:
        self._keep = keep
        self._pieces: dict[str, dict[str, list[Piece]]] = {}  # fingerprint -> product -> pieces

    def add(self, fingerprint: str, product: str, piece: Piece) -> None:
        held = self._pieces.setdefault(fingerprint, {}).setdefault(product, [])
        if all(piece[:2] != other[:2] for other in held):
            held.append(Piece(piece.path, piece.offset, self._keep(piece.data)))

    def of(self, fingerprints: Iterable[str]) -> tuple[Parcel, ...]:
        """Empty where these are several kinds."""
        kinds = set(fingerprints)
        held = self._pieces.get(kinds.pop(), {}) if len(kinds) == 1 else {}
        return tuple(Parcel(name, tuple(pieces)) for name, pieces in held.items())


def _referred_to(path: Path) -> list[Path]:
    """The files of weights beside an ONNX file. Of one that makes no sense its user will hear."""
    if path.suffix != ".onnx":
        return []
    with contextlib.suppress(HarnessError, ImportError):
        from harness.models.onnx_file import external_files

        return [path.parent / name for name in external_files(path)]
    return []


def unpack(
    fields: dict[str, Any], parcels: Iterable[Parcel], get: Callable[[Any], bytes]
) -> dict[str, Any]:
    """``fields`` with the paths of this machine. ``get``: what Ray keeps.

    Raises `UsageError` where the cache cannot be written.
    """
    root = default_root() / _FOLDER
    for parcel in parcels:
        _fill(root / parcel.digest, parcel, get)
    prefix = len(_PLACE)
    return {
        name: str(root / value[prefix:])
        if isinstance(value, str) and value.startswith(_PLACE)
        else value
        for name, value in fields.items()
    }


def _fill(folder: Path, parcel: Parcel, get: Callable[[Any], bytes]) -> None:
    """``folder`` with what is in ``parcel``, whole, unless it is there already."""
    if folder.is_dir():
        return
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        new.mkdir(parents=True)
        for piece in parcel.pieces:
            write_piece(new, piece, get(piece.data))
        with contextlib.suppress(OSError):  # another process was first
            new.rename(folder)
        if not folder.is_dir():
            raise OSError(f"{folder} was not made")
    except OSError as error:
        raise UsageError(
            f"the cache {str(folder.parent)!r} cannot be written: {cause(error)}",
            "free some space, or point HARNESS_CACHE at another folder",
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


class Products(msgspec.Struct, frozen=True):
    """What lay in the cache before a run: (kind, digest) of every product."""

    before: frozenset[str]

    @classmethod
    def now(cls) -> Products:
        return cls(frozenset(_products()))

    def new(self) -> list[Parcel]:
        """What has been built since, but for what is very large."""
        found = []
        root = default_root()
        for name in sorted(set(_products()) - self.before):
            files = sorted(path for path in (root / name).rglob("*") if path.is_file())
            if sum(path.stat().st_size for path in files) <= MOST_PRODUCT_BYTES:
                found.append(Parcel(name, tuple(pieces(root / name, files))))
        return found


def install(products: Iterable[Parcel], get: Callable[[Any], bytes]) -> None:
    """Put artifacts of a machine of this kind into the cache. Raises `UsageError`."""
    for product in products:
        _fill(default_root() / product.digest, product, get)


def _products() -> list[str]:
    root = default_root()
    return [str(path.parent.relative_to(root)) for path in root.glob(f"*/*/{_PRODUCT}")
            if _UNFINISHED not in path.parts]  # fmt: skip
