"""Pictures for the training logs, drawn with numpy and encoded as PNG with zlib alone.

A picture is uint8 [height, width, 3]. Floats are taken as they are within [0, 1]; a picture that
leaves that range is scaled from its own least to its greatest value.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.training.glyphs import HEIGHT, shortened, write
from harness.training.measures import Array

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

RIGHT, WRONG = (46, 125, 50), (198, 40, 40)  # frames of predictions
_GRID_PIXELS = 96  # small images are enlarged to about this: TensorBoard shows pixels as they are
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(image: Array) -> Picture:
    """From [H, W], [channels, H, W] or [H, W, channels] with 1, 3 or 4 channels; alpha is dropped.

    Where both ends could be the channels, the first are. Raises `DataError`.
    """
    if image.ndim == 3 and image.shape[0] in (1, 3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or not image.size:
        raise DataError(f"no image: its shape is {image.shape}", "give [H, W] or [1 or 3, H, W]")
    image = image[..., :3] if image.shape[-1] == 4 else image
    return np.ascontiguousarray(np.broadcast_to(_bytes(image), (*image.shape[:2], 3)))


def _bytes(image: Array) -> Picture:
    if image.dtype == np.uint8:
        return image
    values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.round(values * 255).astype(np.uint8)


def grid(
    images: Sequence[Array],
    columns: int | None = None,
    frames: Sequence[Colour] | None = None,
    labels: Sequence[str] | None = None,
) -> Picture:
    """Images side by side on white, row by row; ``frames`` colours the edge of each, ``labels``
    stand below them, as far as they fit.

    Small ones are enlarged by a whole factor. Raises `DataError`, for differing sizes as well.
    """
    pictures = [picture(image) for image in images]
    if not pictures or len({one.shape for one in pictures}) > 1:
        shapes = ", ".join(sorted({str(one.shape[:2]) for one in pictures})) or "none"
        raise DataError(f"a grid needs images of one size, not {shapes}")
    enlarge = max(1, _GRID_PIXELS // max(pictures[0].shape))
    tiles = [np.kron(one, np.ones((enlarge, enlarge, 1), np.uint8)) for one in pictures]
    if frames is not None:
        tiles = [_framed(tile, colour) for tile, colour in zip(tiles, frames, strict=True)]
    if labels is not None:
        tiles = [_labelled(tile, label) for tile, label in zip(tiles, labels, strict=True)]
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    rows = math.ceil(len(tiles) / columns)
    height, width = tiles[0].shape[0] + 2, tiles[0].shape[1] + 2
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height + 1, index % columns * width + 1
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _framed(tile: Picture, colour: Colour) -> Picture:
    framed = np.empty((tile.shape[0] + 6, tile.shape[1] + 6, 3), np.uint8)
    framed[:] = colour
    framed[3:-3, 3:-3] = tile
    return framed


def _labelled(tile: Picture, label: str) -> Picture:
    labelled = np.full((tile.shape[0] + HEIGHT + 6, *tile.shape[1:]), 255, np.uint8)
    labelled[: tile.shape[0]] = tile
    width = tile.shape[1]
    write(labelled, shortened(label, width), width // 2, tile.shape[0] + 3, align="centre")
    return labelled


def drawn(figure: Any) -> tuple[bytes, int, int]:
    """A figure as PNG with its height and width. Raises `DataError` for what cannot be drawn."""
    save = getattr(figure, "savefig", None)
    if save is None:
        raise DataError(
            f"a {type(figure).__name__} is no figure", "give a matplotlib figure, or log_image"
        )
    buffer = io.BytesIO()
    save(buffer, format="png")
    data = buffer.getvalue()
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR":
        raise DataError(f"{type(figure).__name__}.savefig gave no PNG", "give a matplotlib figure")
    width, height = struct.unpack(">II", data[16:24])
    return data, height, width


def png(image: Picture) -> bytes:
    """The PNG file of ``image``: 8 bits a channel, every row unfiltered."""
    height, width = image.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
