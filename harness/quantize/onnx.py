"""ONNX models to int8 through ONNX Runtime's quantizer, and to fp16.

    source ── prepared ── calibration ── Q/DQ pairs ── proof, layer by layer ── target
                                             └── without what failed it ──┘

Two recipes for static int8, the same but for the activations:

- asymmetric uint8 (the default) for x86 and ARM CPUs. ONNX Runtime 1.31 on an AVX512-VNNI core runs
  a ResNet-18 so in 9.9 ms. With symmetric int8 activations it takes 25.6 ms, since half of the
  convolutions do not fuse and run in fp32 (33.5 ms for fp32 throughout).
- symmetric int8 with zero point 0 for TensorRT, which takes nothing else; biases stay in fp32. Only
  what is multiplied by weights is quantized, and only as it goes in: TensorRT fuses a convolution
  with the Relu or the residual Add behind it, and a Q/DQ pair between them would keep it from that.
  The other input of such an Add is quantized, or the fused layer would put out floating point. So
  its documentation recommends (explicit quantization), and NVIDIA's own quantizer does.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import BackendUnavailable, HarnessError, QuantizationError
from harness.protocols import Proof, Quantization
from harness.quantize.job import QuantizeJob
from harness.quantize.onnx_calibration import NUMBERS, feeds_of
from harness.quantize.onnx_graph import QUANTIZED, is_large
from harness.quantize.onnx_make import Dynamic, Static, saturates, saturates_here, save
from harness.quantize.onnx_prepare import prepare
from harness.quantize.onnx_proof import FLOOR_DB, Findings, Prover, decibels, powers
from harness.quantize.onnx_session import reason, start

__all__ = [
    "PROOF_SAMPLES",
    "boundary",
    "convert_float",
    "proven",
    "quantize",
    "saturates",
    "saturates_here",
]

_PIP = "pip install 'hw-harness[onnxruntime]'"
_FP16_MAX = 65504.0
_ROUNDS = 20  # of leaving out what fails the proof
PROOF_SAMPLES = 8
_SAME_DB = 40.0  # what folding a constant costs in FP32 is 100 dB and more
_SHOWN = 3


def quantize(
    source: Path, target: Path, job: QuantizeJob, *, symmetric: bool = False
) -> Quantization:
    """Write ``source`` at ``job.precision`` to ``target`` (with external data beside it if large).

    ``symmetric`` chooses the TensorRT recipe. Raises `QuantizationError` for a model that cannot be
    brought there, naming the operators, and `BackendUnavailable` without onnx and onnxruntime.
    """
    if job.precision != "int8":
        return convert_float(source, target, job.precision)
    if symmetric and job.mode == "dynamic":
        raise QuantizationError(
            "this backend runs no int8 whose activations are scaled as they run",
            "use --quantization static",
        )
    _need_libraries()
    with (
        boundary(source, job.libraries),
        tempfile.TemporaryDirectory(prefix="harness-quantize-") as folder,
    ):
        prepared = Path(folder, "prepared.onnx")
        prepare(source, prepared)
        samples = list(islice(feeds_of(prepared, job), max(1, PROOF_SAMPLES // job.batch_size)))
        _check_prepared(source, prepared, samples[0])
        maker = (Dynamic if job.mode == "dynamic" else Static)(prepared, job, symmetric=symmetric)
        # TensorRT's kernels are not here to be run: its artifacts are held as they are written
        prover = Prover(prepared, samples, job.batch_size, fused=not symmetric)
        model, findings = proven(source, maker, prover)
        proof = _proof(findings.sqnr_db, maker, prover.samples)
        save(model, target)
        _check_target(target, samples[0], fused=not symmetric)
    return _quantization(job, maker, proof)


def proven(source: Path, maker: Static | Dynamic, prover: Prover) -> tuple[Any, Findings]:
    """The model without what fails the proof, made anew until nothing fails.

    Raises `QuantizationError` where nothing is left to quantize, or nothing more to leave out.
    """
    findings = Findings({}, [], {})
    for _ in range(_ROUNDS):
        model = maker.make()
        _refuse_unquantized(source, model, maker)
        findings = prover.prove(model)
        if not findings.faults:
            return model, findings
        # all of them at once, since each round makes the model anew
        if not maker.left.add(findings.faults):
            break
    worst = findings.faults[0].layer
    raise QuantizationError(
        f"{source.name} cannot be quantized: {worst} computes something else in int8 "
        f"({findings.sqnr_db[worst]:.1f} dB), whatever else stays in fp32",
        "run it with --precision fp32",
    )


def _proof(sqnr_db: dict[str, float], maker: Static | Dynamic, samples: int) -> Proof:
    worst = min(sqnr_db, key=sqnr_db.__getitem__, default="")
    reached = sqnr_db.get(worst, math.inf)
    return Proof(
        layers=len(sqnr_db),
        worst=worst if reached < math.inf else "",
        worst_sqnr_db=reached if reached < math.inf else None,
        left=maker.left.named(),
        floor_db=FLOOR_DB,
        samples=samples,
    )


def convert_float(source: Path, target: Path, precision: str) -> Quantization:
    """Write ``source`` computing in fp16 to ``target``; its inputs and outputs keep their types.

    Raises `QuantizationError` for bf16, which no runtime here takes from ONNX, for weights beyond
    the range of fp16, and for models of 2 GB and more.
    """
    if precision != "fp16":
        raise QuantizationError(
            f"there is no route from ONNX to {precision}", "use --precision fp16 or int8"
        )
    _need_libraries()
    with boundary(source):
        import onnx
        from onnxruntime.transformers.float16 import (
            DEFAULT_OP_BLOCK_LIST,
            convert_float_to_float16,
        )
        from onnxruntime.transformers.onnx_model import OnnxModel

        model = onnx.load(str(source))
        _refuse_unfit_for_fp16(model, source)
        kept = {node.op_type for node in model.graph.node} & set(DEFAULT_OP_BLOCK_LIST)
        converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
        converted.topological_sort()
        onnx.save(converted.model, str(target))
    scheme = "weights and activations in fp16, inputs and outputs as they were"
    if kept:
        scheme += f"; in fp32: {', '.join(sorted(kept))}"
    return Quantization("onnxruntime float16 conversion", "cast", scheme, "none", "", 0)


def _need_libraries() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        text = f"quantizing needs onnx and ONNX Runtime, and one cannot be imported: {error}"
        raise BackendUnavailable(text, _PIP) from error


@contextlib.contextmanager
def boundary(source: Path, libraries: Sequence[str] = ()) -> Iterator[None]:
    """Keep the libraries quiet and turn what they raise into a `QuantizationError`.

    ``libraries`` of custom operators are known to every session that is made meanwhile.
    """
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            _silence_runtime()
            with _operators_of(libraries):
                yield
    except HarnessError:
        raise
    except Exception as error:
        raise QuantizationError(
            f"{source.name} cannot be quantized: {reason(error)}", "run it with --precision fp32"
        ) from error
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _operators_of(libraries: Sequence[str]) -> Iterator[None]:
    """The quantizer makes sessions of its own with options of its own: those are replaced."""
    import onnxruntime as ort

    plain: Any = ort.SessionOptions

    class Options(plain):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for library in libraries:
                self.register_custom_ops_library(library)

    if libraries:
        ort.SessionOptions = Options
    try:
        yield
    finally:
        ort.SessionOptions = plain


def _silence_runtime() -> None:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)  # what fails comes as an exception


def _quantization(job: QuantizeJob, maker: Static | Dynamic, proof: Proof) -> Quantization:
    calibration = (job.calibration_source, job.calibration_sha256, job.calibration_samples)
    if job.mode == "dynamic":
        return Quantization(maker.route, "dynamic", maker.scheme, "none", "", 0, proof)
    return Quantization(maker.route, job.method, maker.scheme, *calibration, proof)


def _check_prepared(source: Path, prepared: Path, feed: dict[str, Any]) -> None:
    """What the libraries made ready to be quantized still computes what the file does."""
    reference, again, ready = (_outputs(path, feed) for path in (source, source, prepared))
    for name, exact in reference.items():
        if not np.array_equal(exact, again[name], equal_nan=True):
            return  # it draws random numbers, and no two runs are alike
        if decibels(*powers(exact, ready[name])) < _SAME_DB:
            raise QuantizationError(
                f"{source.name} cannot be quantized: its output {name!r} changes when it is "
                "raised to opset 13 and its constants are folded",
                "export it with opset 17",
            )


def _outputs(path: Path, feed: dict[str, Any]) -> dict[str, Any]:
    """The floating-point outputs of one inference as the file is written."""
    made = _infer(start(path, fused=False), feed)
    return {n: a for n, a in made.items() if a.dtype.kind == "f"}


def _infer(session: Any, feed: dict[str, Any]) -> dict[str, Any]:
    """The outputs of one inference that numpy can hold; it runs even where there are none."""
    kinds = {f"tensor({name})" for name in (*NUMBERS, "float", "double")}
    found = {o.name: o.type for o in session.get_outputs() if not o.type.startswith("optional(")}
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for name in found:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    pairs = zip(found.items(), binding.get_outputs(), strict=True)
    return {n: value.numpy() for (n, kind), value in pairs if kind in kinds and value.is_tensor()}


def _refuse_unquantized(source: Path, model: Any, maker: Static | Dynamic) -> None:
    """Raises `QuantizationError` for a model in which nothing was quantized."""
    operators = sorted({node.op_type for node in model.graph.node})
    if any(QUANTIZED.fullmatch(operator) for operator in operators):
        return
    mode = "static" if isinstance(maker, Static) else "dynamic"
    message = f"{source.name} has nothing for {mode} quantization: "
    left = [f"{name} {why}" for name, why in maker.left.named().items()]
    if left:
        message += "; ".join(left[:_SHOWN]) + f"; and {len(left) - _SHOWN} more" * (len(left) > 3)
    else:
        message += f"its operators are {', '.join(operators)}"
    other = " or --quantization static" * (mode == "dynamic")
    raise QuantizationError(message, f"run it with --precision fp32{other}")


def _check_target(target: Path, feed: dict[str, Any], *, fused: bool) -> None:
    """The new file has kernels for all of its operators, and they run."""
    _infer(start(target, fused=fused), feed)


def _refuse_unfit_for_fp16(model: Any, source: Path) -> None:
    from onnx import TensorProto, numpy_helper

    if is_large(model):
        raise QuantizationError(
            f"{source.name} is larger than the fp16 conversion can take (2 GB)",
            "export it in fp16 from its framework",
        )
    for initializer in model.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT:
            continue
        largest = float(np.max(np.abs(numpy_helper.to_array(initializer)), initial=0.0))
        if not largest <= _FP16_MAX:
            raise QuantizationError(
                f"{initializer.name!r} holds {largest:g}, beyond fp16's {_FP16_MAX:g}",
                "run it with --precision fp32",
            )
