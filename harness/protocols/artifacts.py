"""What a backend loads, and how it was made."""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.maybe import Maybe

Precision = Literal["fp32", "int8", "fp16", "bf16"]


Dim = int | str | None


class Available(msgspec.Struct, frozen=True):
    """Present and usable; ``details`` are facts worth showing (version, device name, ...)."""

    details: dict[str, str] = {}


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output as its model declares it. A dim is a size, a symbol, or None (unnamed).

    ``dims`` is None where even the rank is not declared. ``dtype`` is a numpy name.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...] | None


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output. ``shape`` is concrete: batch and symbolic dimensions are resolved.

    A dimension of an output that is known only once it has run is -1.
    ``dtype`` is a numpy name (``float32``, ``int64``, ``bool``, ...), or that of a type which numpy
    lacks (``bfloat16``, ``float8_e4m3fn``).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def array_dtype(self) -> str:
        """The numpy type of the arrays that hold its values: float32 for one that numpy lacks."""
        lacking = self.dtype == "bfloat16" or self.dtype.startswith("float8_")
        return "float32" if lacking else self.dtype


class Proof(msgspec.Struct, frozen=True):
    """Every quantized layer of an artifact held against FP32, on the processor that made it.

    Each layer is given FP32's own inputs, so that no layer answers for those before it.
    """

    layers: int  # how many were compared
    worst: str = ""  # of those that stayed quantized, the farthest from FP32
    worst_sqnr_db: float | None = None  # None: none differs from FP32 at all
    left: dict[str, str] = {}  # layer that stays in FP32 -> why
    floor_db: float | None = None  # a layer below it does not stay quantized
    samples: int | None = None  # how many inputs the layers were compared on


class QuantizationCost(msgspec.Struct, frozen=True, kw_only=True):
    """What making it took: wall time, processor time, and the peak of the process's resident set,
    with the libraries and the FP32 model that it had loaded."""

    duration_s: float
    cpu_s: float
    peak_rss_bytes: Maybe[int]


class Quantization(msgspec.Struct, frozen=True):
    """How a reduced-precision artifact was made."""

    route: str  # "onnxruntime static QDQ", "torch FX onednn", ...
    method: str  # minmax | entropy | percentile | dynamic | cast
    scheme: str  # "symmetric activations, per-channel weights", ...
    calibration_source: str  # file | model split | drawn inputs | none
    calibration_sha256: str
    calibration_samples: int
    proof: Proof | None = None  # None: made without one
    cost: QuantizationCost | None = None  # None: nothing was to be made, or nobody looked


class Artifact(msgspec.Struct, frozen=True):
    """A model made ready for one backend family, at one precision and one set of shapes.

    ``format`` is ``onnx`` (``path`` is the file; external data lies beside it), ``torch``
    (``source`` rebuilds the module: ``zoo:NAME``, ``factory:MODULE:NAME``, ``pt2:PATH`` or
    ``torchscript:PATH``) or ``torch-int8`` (``path`` is a quantized program that a builder saved);
    or a backend's own.
    """

    format: str
    path: str
    source: str
    precision: str
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    quantization: Quantization | None = None
    seed: int = 0  # of the random weights, where ``source`` draws them
    # outputs whose length may differ from one inference to the next, on the same inputs
    varying: tuple[str, ...] = ()
    bound: str = ""  # an .npz of inputs by name that it will be run on, where some are known
    facts: dict[str, str] = {}  # what its maker says of it


class Wanted(msgspec.Struct, frozen=True):
    """The artifact that a backend asks for, at one precision and with its options.

    ``symmetric`` asks for INT8 activations with zero point 0, of what is multiplied by weights
    alone. ``precision="fp32"`` asks for the FP32 model whatever the run's precision: the runtime,
    or `ArtifactMaker.make_artifact`, goes on from there. ``libraries`` are files with custom
    operators that the graph needs: whoever makes the artifact loads them too.

    A format of the backend's own is made of another one: ``of`` says of which, which Harness makes
    (at the precision of the run) and `ArtifactMaker.make_artifact` turns into ``format``.
    """

    format: str
    symmetric: bool = False
    precision: str = ""  # of what is handed over, where the runtime itself goes on from there
    libraries: tuple[str, ...] = ()
    of: Wanted | None = None
