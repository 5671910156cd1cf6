"""Files for TensorBoard's embedding projector: vectors, labels, thumbnails and their index.

    run folder/
        projector_config.pbtxt          one entry per tag and step
        embeddings/TAG-STEP/            tensors.tsv, metadata.tsv, sprite.png

tensorboardX writes the same, but labels with line breaks spoil its table and tags with quotes its
index, a second point in time is appended blindly, and thumbnails need Pillow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.errors import DataError
from harness.host.files import write_atomically
from harness.training import pictures
from harness.training.measures import Array
from harness.training.recorder import folder_name

INDEX = "projector_config.pbtxt"
_SPRITE_LIMIT = 8192  # pixels each way that the projector loads


class Projector:
    """The embeddings of one run folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, str] = {}

    def add(
        self,
        tag: str,
        step: int,
        vectors: Array,
        labels: Sequence[object] | None,
        images: Sequence[Array] | None,
    ) -> None:
        """Write ``vectors`` [N, dimensions]. Raises `DataError`, or `ResultError` for the disk."""
        _check(vectors, labels, images)
        name = f"{tag}:{step:05d}"
        place = self._folder / "embeddings" / f"{folder_name(tag)}-{step:05d}"
        place.parent.mkdir(exist_ok=True)  # not the run folder, if that is gone
        place.mkdir(exist_ok=True)
        lines = ["\t".join(f"{value:.7g}" for value in row) for row in vectors.tolist()]
        write_atomically(place / "tensors.tsv", _lines(lines))
        entry = {"tensor_path": place / "tensors.tsv"}
        if labels is not None:
            texts = [re.sub(r"\s+", " ", str(label)) or " " for label in labels]
            write_atomically(place / "metadata.tsv", _lines(texts))
            entry["metadata_path"] = place / "metadata.tsv"
        sprite = ""
        if images is not None:
            size = _write_sprite(place / "sprite.png", images)
            path = _quoted((place / "sprite.png").relative_to(self._folder).as_posix())
            sprite = f"  sprite {{ image_path: {path} single_image_dim: {size[1]} "
            sprite += f"single_image_dim: {size[0]} }}\n"
        fields = "".join(
            f"  {key}: {_quoted(path.relative_to(self._folder).as_posix())}\n"
            for key, path in entry.items()
        )
        self._entries[name] = f"embeddings {{\n  tensor_name: {_quoted(name)}\n{fields}{sprite}}}\n"
        write_atomically(self._folder / INDEX, "".join(self._entries.values()).encode())


def _check(vectors: Array, labels: Sequence[object] | None, images: Sequence[Array] | None) -> None:
    if vectors.ndim != 2 or not vectors.size:
        raise DataError(f"embeddings of shape {vectors.shape}", "give [samples, dimensions]")
    for what, given in (("labels", labels), ("images", images)):
        if given is not None and len(given) != len(vectors):
            raise DataError(f"{len(given)} {what} for {len(vectors)} embeddings")


def _write_sprite(path: Path, images: Sequence[Array]) -> tuple[int, int]:
    """All thumbnails row by row in a square; returns one's height and width."""
    tiles = [pictures.picture(image) for image in images]
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = tiles[0].shape[:2]
    if any(tile.shape != tiles[0].shape for tile in tiles) or height != width:
        raise DataError("thumbnails must be square and of one size")
    if columns * height > _SPRITE_LIMIT:
        raise DataError(
            f"{len(tiles)} thumbnails of {height} pixels make more than {_SPRITE_LIMIT} each way",
            "give fewer or smaller ones",
        )
    sheet = np.full((columns * height, columns * width, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = tile
    write_atomically(path, pictures.png(sheet))
    return height, width


def _quoted(text: str) -> str:
    """As a string of protobuf's text format, which knows JSON's escapes of ASCII text."""
    escaped = "".join(c if " " <= c <= "~" else "_" for c in text)
    return json.dumps(escaped)


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "replace")
