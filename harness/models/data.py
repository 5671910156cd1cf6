"""Arrays for a model: drawn to suit its inputs, or read from a user's .npz and checked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from harness.errors import DataError
from harness.models.shapes import sample_shape, show
from harness.models.sources import stand_in
from harness.protocols import TensorSpec

Array = NDArray[Any]
ALIASES = ("inputs", "x")
LABELS = "labels"


def draw(
    specs: Sequence[TensorSpec], ranges: Mapping[str, tuple[int, int]], seed: int
) -> dict[str, Array]:
    """One array for each input, the same for the same ``seed`` whatever other inputs there are.

    ``ranges`` bounds (low, high exclusive) what integers may be; without one they are 0 and 1, and
    1 for sizes (at most one element) and masks. Floats are standard normal, images in 8 bits take
    their full range.
    """
    return {spec.name: _draw(spec, ranges.get(spec.name), seed) for spec in specs}


def _draw(spec: TensorSpec, bounds: tuple[int, int] | None, seed: int) -> Array:
    generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    dtype = np.dtype(spec.array_dtype)
    if bounds is not None:
        return _integers(generator, bounds[0], bounds[1], spec.shape, dtype)
    if dtype == np.bool_:
        return generator.integers(0, 2, spec.shape).astype(np.bool_)
    if "mask" in spec.name.lower():
        return np.ones(spec.shape, dtype)
    if dtype.kind == "f":
        return generator.standard_normal(spec.shape).astype(dtype)
    if dtype.itemsize == 1 and len(spec.shape) >= 3:
        limits = np.iinfo(dtype)
        return _integers(generator, int(limits.min), int(limits.max) + 1, spec.shape, dtype)
    if np.prod(spec.shape) <= 1:
        return np.ones(spec.shape, dtype)
    return _integers(generator, 0, 2, spec.shape, dtype)


def _integers(
    generator: np.random.Generator,
    low: int,
    high: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Array:
    if dtype == np.bool_:
        high = min(high, 2)
    elif dtype.kind in "iu":
        high = min(high, int(np.iinfo(dtype).max) + 1)
    elif dtype.kind == "f":
        # whole numbers that the type holds exactly
        high = min(high, 2 ** (np.finfo(dtype).nmant + 1))
    return np.asarray(generator.integers(low, high, shape)).astype(dtype)


def draw_samples(
    specs: Sequence[TensorSpec],
    ranges: Mapping[str, tuple[int, int]],
    seed: int,
    batch_size: int,
    count: int,
) -> dict[str, Array]:
    """``count`` samples of each input along axis 0, for calibration."""
    stacked = [
        TensorSpec(s.name, s.dtype, (count, *sample_shape(s.shape, batch_size))) for s in specs
    ]
    return draw(stacked, ranges, seed)


def take(
    arrays: Mapping[str, Array], specs: Sequence[TensorSpec], batch_size: int, start: int = 0
) -> dict[str, Array]:
    """The batch of samples from ``start`` on, beginning anew at the end of the data."""
    batch: dict[str, Array] = {}
    for spec in specs:
        samples = arrays[spec.name]
        if start == 0 and samples.shape == spec.shape:  # one batch, or an input without any
            batch[spec.name] = samples
            continue
        several = batch_size if samples.ndim == len(spec.shape) else 1
        chosen = samples[(start + np.arange(several)) % len(samples)]
        batch[spec.name] = np.ascontiguousarray(chosen).reshape(spec.shape)
    return batch


class Samples(NamedTuple):
    """Arrays by input name, all as many samples along axis 0, and ``labels`` if there are any.

    ``changed`` says that they are not what the file holds under these names.
    """

    arrays: dict[str, Array]
    samples: int
    changed: bool


def read_samples(
    path: Path,
    flag: str,
    specs: Sequence[TensorSpec],
    batch_size: int,
    labelled: bool,
    infinite: bool = False,
) -> Samples:
    """The arrays of ``path`` under the inputs' names, and ``labels``, every value checked.

    Samples lie along axis 0; an input without a batch may be given once, for all of them. Raises
    `DataError` naming the file, the array and what was expected.
    """
    where = f"{flag} {path}"
    held = _read(path, where)
    if labelled and any(spec.name == LABELS for spec in specs):
        raise DataError(
            f"{where}: {LABELS!r} is an input of the model and the name of the classes too",
            "rename the input",
        )
    found = _rename(held, specs[0].name) if len(specs) == 1 else held
    arrays: dict[str, Array] = {}
    once: list[str] = []
    for spec in specs:
        if spec.name not in found:
            have = ", ".join(sorted(found)) or "nothing"
            raise DataError(
                f"{where} has no array {spec.name!r}, only {have}", "name arrays as the inputs are"
            )
        array = found[spec.name]
        if array.shape == spec.shape == sample_shape(spec.shape, batch_size):
            once.append(spec.name)
            array = array[np.newaxis]
        arrays[spec.name] = _checked(where, array, spec, batch_size, infinite)
    if labelled:
        arrays[LABELS] = _labels(where, found)
    count = _count(where, {name: len(a) for name, a in arrays.items() if name not in once})
    for name in once:
        arrays[name] = np.repeat(arrays[name], count, axis=0)
    return Samples(arrays, count, any(arrays[name] is not held.get(name) for name in arrays))


def read_shapes(
    path: Path, names: Sequence[str]
) -> dict[str, tuple[str, tuple[str | int | None, ...]]]:
    """dtype and dimensions, axis 0 as the batch, of the arrays of a user's .npz that have one of
    ``names``. Raises `DataError`.
    """
    found = _read(path, str(path))
    if len(names) == 1:
        found = _rename(found, names[0])
    return {
        name: (array.dtype.name, ("batch", *array.shape[1:]) if array.ndim else ())
        for name, array in found.items()
        if name in names
    }


def _count(where: str, counts: Mapping[str, int]) -> int:
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where} has arrays of different lengths: {text}", "give as many of each")
    return next(iter(counts.values()), 1)


def _read(path: Path, where: str) -> dict[str, Array]:
    try:
        with path.open("rb") as file:  # numpy leaves a damaged file open that it opened itself
            if stands_in := stand_in(file.read(64)):
                what, remedy = stands_in
                raise DataError(f"{where} is {what}", remedy)
            file.seek(0)
            if zipfile.is_zipfile(file):
                _fits(file, where)
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{where} is one bare array", "save it with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except OSError as error:
        reason = error.strerror or "it is no .npz file"
        raise DataError(f"cannot read {where}: {reason}", "check the path") from error
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a damaged file
        pickled = "pickle" in str(error).lower()
        reason = "it holds Python objects, or is no .npz file" if pickled else "it is damaged"
        raise DataError(
            f"cannot read {where}: {reason}", "save plain arrays with numpy.savez"
        ) from error


def _fits(file: IO[bytes], where: str) -> None:
    """Raises `DataError` before anything is unpacked that this machine cannot hold."""
    with zipfile.ZipFile(file) as packed:
        unpacked = sum(member.file_size for member in packed.infolist())
    if unpacked > (free := psutil.virtual_memory().available):
        raise DataError(
            f"{where} unpacks to {unpacked:,} bytes, and {free:,} of memory are free",
            "give fewer samples",
        )


def _rename(found: dict[str, Array], name: str) -> dict[str, Array]:
    """With one input only, ``inputs`` and ``x`` are understood too."""
    if name in found:
        return found
    alias = next((alias for alias in ALIASES if alias in found), None)
    return found if alias is None else {**found, name: found[alias]}


def _checked(where: str, array: Array, spec: TensorSpec, batch_size: int, infinite: bool) -> Array:
    expected = sample_shape(spec.shape, batch_size)
    what = f"{where}: {spec.name!r} is {array.dtype} {show(array.shape)}"
    wanted = f"expected {spec.array_dtype} {show(('samples', *expected))}"
    if len(expected) == len(spec.shape) and batch_size > 1 and len(array) > 1:
        raise DataError(
            f"{where}: input {spec.name!r} has no batch dimension of {batch_size}",
            "use --batch-size 1, or give one array for all samples",
        )
    if array.dtype != np.dtype(spec.array_dtype):
        raise DataError(f"{what}, {wanted}", f"convert it with .astype('{spec.array_dtype}')")
    if array.ndim == 0 or array.shape[1:] != expected:
        raise DataError(f"{what}, {wanted}", "samples lie along the first axis")
    if len(array) == 0:
        raise DataError(f"{what}, which is empty", "give at least one sample")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(f"{where}: {spec.name!r} holds NaN", "clean the data")
    if array.dtype.kind == "f" and not infinite and np.isinf(array).any():
        raise DataError(
            f"{where}: {spec.name!r} holds infinity",
            "clean the data, or add --allow-infinite where it belongs there",
        )
    return array


def _labels(where: str, found: Mapping[str, Array]) -> Array:
    if LABELS not in found:
        raise DataError(
            f"{where} has no array 'labels'",
            "add the class of each sample, or give the file as --inputs, without an accuracy",
        )
    labels = found[LABELS]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{where}: 'labels' is {labels.dtype} {show(labels.shape)}, expected integers, samples",
            "give one class index for each sample",
        )
    if labels.size and int(labels.min()) < 0:
        raise DataError(f"{where}: 'labels' holds {int(labels.min())}", "classes count from 0")
    return labels


def check_classes(
    where: str, labels: Array, outputs: Sequence[TensorSpec], scores: str | None
) -> None:
    """A label that no score belongs to can only be wrong. Raises `DataError`.

    Nothing is said where it is not known which output holds the scores: the run finds out.
    """
    fit = [o for o in outputs if len(o.shape) == 2 and "float" in o.dtype and o.shape[1] != 1]
    if scores is not None:
        fit = [output for output in outputs if output.name == scores]
    if len(fit) != 1 or not labels.size:
        return
    shape = fit[0].shape
    classes = 2 if len(shape) == 1 or shape[1:] == (1,) else shape[1] if len(shape) == 2 else -1
    if 0 < classes <= int(labels.max()):
        raise DataError(
            f"{where}: 'labels' holds {int(labels.max())}, the model has {classes} classes",
            "classes count from 0",
        )


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """An uncompressed .npz: it is read back at the start of every run.

    As `numpy.savez` writes it, which takes arrays as keyword arguments and so no name of its own.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def arrays(path: str) -> dict[str, Array]:
    """All arrays of an .npz that was checked before."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
