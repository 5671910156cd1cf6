"""What range each tensor of an ONNX model takes, over the calibration samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError, QuantizationError
from harness.quantize.job import QuantizeJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

# the types that a runtime hands to numpy
NUMBERS = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
# The library's 128 bins leave its entropy search a single candidate, the whole range.
_ENTROPY_BINS = {"num_bins": 512, "num_quantized_bins": 128}
_PERCENTILE = {"num_bins": 2048, "percentile": 99.999, "symmetric": True}


def calibrate(
    prepared: Path, operators: list[str], job: QuantizeJob, large: bool
) -> tuple[Any, list[str]]:
    """The range of every tensor around ``operators``, over all calibration samples.

    Returns the library's ranges, and the names of tensors that have none that is finite. Raises
    `QuantizationError` where such a one is an input of the model, `DataError` for unfit samples.
    """
    import onnx

    inputs = {v.name for v in onnx.load(str(prepared), load_external_data=False).graph.input}
    prepared = _readable(prepared)
    try:
        ranges, infinite = _collect(prepared, operators, job, large, job.method, ())
    except ValueError:  # there is no histogram of infinities
        _, infinite = _collect(prepared, operators, job, large, "minmax", ())
        if not infinite:
            raise
        ranges, _ = _collect(prepared, operators, job, large, job.method, infinite)
    for name in infinite:
        if name in inputs and _has_elements(job.calibration_path, name):
            raise QuantizationError(
                f"the calibration samples give {name!r} no finite range",
                "look for NaN or infinite values in them",
            )
    return ranges, infinite


def _has_elements(path: str, name: str) -> bool:
    """An empty cache has no range, and needs none."""
    with np.load(path, allow_pickle=False) as arrays:
        return name not in arrays or bool(arrays[name].size)


def _readable(prepared: Path) -> Path:
    """The model without outputs that numpy cannot hold (bfloat16, text, sequences), if it has such:
    the library asks for all of them."""
    import onnx
    from onnx import helper

    model = onnx.load(str(prepared), load_external_data=False)
    kinds = [value.type.tensor_type.elem_type for value in model.graph.output]
    numbers = {helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in NUMBERS}
    odd = [v for v, kind in zip(model.graph.output, kinds, strict=True) if kind not in numbers]
    if not odd:
        return prepared
    for value in odd:
        model.graph.output.remove(value)
    readable = prepared.with_name("readable.onnx")  # beside the weights, if those are in a file
    onnx.save(model, str(readable))
    return readable


def _collect(
    prepared: Path,
    operators: list[str],
    job: QuantizeJob,
    large: bool,
    method: str,
    skipped: Sequence[str],
) -> tuple[Any, list[str]]:
    """The ranges of all tensors but ``skipped``, and which of them are not finite."""
    from onnxruntime.quantization import calibrate as library

    methods: dict[str, tuple[Any, dict[str, Any]]] = {
        "minmax": (library.MinMaxCalibrater, {}),
        "entropy": (library.EntropyCalibrater, _ENTROPY_BINS),
        "percentile": (library.PercentileCalibrater, _PERCENTILE),
    }
    class_, settings = methods[method]
    calibrator: Any = class_(
        prepared,
        operators,
        str(prepared.with_name("augmented.onnx")),
        use_external_data_format=large,
        **settings,
    )
    select = calibrator.select_tensors_to_calibrate

    def select_others(model: Any) -> tuple[set[str], dict[str, Any]]:
        tensors, types = select(model)
        return tensors - set(skipped), types

    calibrator.select_tensors_to_calibrate = select_others
    calibrator.augment_graph()
    calibrator.create_inference_session()
    # One batch at a time: the histogram methods hold every activation of what they are given.
    for feed in feeds_of(prepared, job):
        reader: Any = _One(feed)  # the library's own class can be had only by importing it
        calibrator.collect_data(reader)
    ranges = calibrator.compute_data()
    infinite = [n for n, found in ranges.items() if not np.isfinite(found.range_value).all()]
    return ranges, infinite


def feeds_of(prepared: Path, job: QuantizeJob) -> Iterator[dict[str, NDArray[Any]]]:
    """The calibration samples as the model ``prepared`` takes them. Raises `DataError`."""
    import onnx

    model = onnx.load(str(prepared), load_external_data=False)
    with np.load(job.calibration_path, allow_pickle=False) as arrays:
        samples = dict(arrays)
    return feeds(samples, _shapes(model), job.batch_size)


class _One:
    """A calibration reader of one batch."""

    def __init__(self, feed: dict[str, NDArray[Any]]) -> None:
        self._feed: dict[str, NDArray[Any]] | None = feed

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        feed, self._feed = self._feed, None
        return feed


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Input shapes by name; 0 for a size that the file leaves open."""
    return {
        value.name: tuple(max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim)
        for value in model.graph.input
    }


def feeds(
    samples: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]], batch_size: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """The samples cut to the batch that the model is fixed to, else to ``batch_size``.

    The last batch wraps around to stay full. An input whose samples have one dimension more than
    the input itself has no batch: it gets the sample with the number of the feed.
    """
    if not shapes:  # constants alone: every sample is the same
        yield {}
        return
    count = min((len(array) for array in samples.values()), default=0)
    if count == 0:
        raise DataError("there is no calibration sample", "give at least one")
    if absent := sorted(shapes.keys() - samples.keys()):
        raise DataError(
            f"the calibration samples have no {absent[0]!r}", f"the model takes {', '.join(shapes)}"
        )
    batched = {name: samples[name].ndim == len(shape) for name, shape in shapes.items()}
    fixed = {shape[0] for name, shape in shapes.items() if batched[name] and shape and shape[0]}
    size = max(fixed, default=batch_size) if any(batched.values()) else 1
    for number, first in enumerate(range(0, count, size)):
        rows = np.arange(first, first + size) % count
        yield {
            name: np.asarray(samples[name][rows if batched[name] else number], order="C")
            for name in shapes
        }
