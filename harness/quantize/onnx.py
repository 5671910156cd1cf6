"""ONNX models to int8 through ONNX Runtime's quantizer, and to fp16.

    source ── opset raised, constants folded, shapes inferred ── calibration ── Q/DQ pairs ── target

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
import platform
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import BackendUnavailable, HarnessError, QuantizationError, one_line
from harness.protocols import Quantization
from harness.quantize.job import QuantizeJob
from harness.quantize.onnx_calibration import calibrate

_PIP = "pip install 'hw-harness[onnxruntime]'"
# A protobuf message cannot reach 2 GiB; some room is left for the nodes that quantizing adds.
_INLINE_LIMIT_BYTES = 1_800_000_000
_PER_CHANNEL_OPSET = 13  # from here on QuantizeLinear has an axis
_FP16_MAX = 65504.0
_WEIGHTED: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTIZED = re.compile(r"(Dynamic)?Quantize\w*|QLinear\w+|\w+Integer\w*|Q[A-Z]\w+")


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
            "TensorRT runs no int8 whose activations are scaled as they run",
            "use --quantization static",
        )
    _need_libraries()
    with _boundary(source), tempfile.TemporaryDirectory(prefix="harness-quantize-") as folder:
        prepared = Path(folder, "prepared.onnx")
        large = _prepare(source, prepared)
        if job.mode == "dynamic":
            made = _dynamic(prepared, target, job, large)
        else:
            made = _static(prepared, target, job, large, symmetric)
        _check_target(source, target, job)
    return made


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
    with _boundary(source):
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
    for module in ("onnx", "onnxruntime"):
        try:
            __import__(module)
        except ImportError as error:
            raise BackendUnavailable(f"{module} cannot be imported: {error}", _PIP) from error


@contextlib.contextmanager
def _boundary(source: Path) -> Iterator[None]:
    """Keep the libraries quiet and turn what they raise into a `QuantizationError`."""
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            _silence_runtime()
            yield
    except HarnessError:
        raise
    except Exception as error:
        # Without numeric codes and the paths of files that are gone when this is read.
        noise = r"\[ONNXRuntimeError\] : \d+ : |Load model from \S+ failed: *"
        text = re.sub(noise, "", str(error))
        text = one_line(text) or type(error).__name__
        raise QuantizationError(
            f"{source.name} cannot be quantized: {text}", "run it with --precision fp32"
        ) from error
    finally:
        logging.disable(disabled)


def _silence_runtime() -> None:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)  # what fails comes as an exception


def _prepare(source: Path, prepared: Path) -> bool:
    """Opset raised if need be, batch norms folded, every shape inferred that can be.

    Returns whether the model is so large that its weights lie in a file beside it.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(str(source))
    already = sorted({n.op_type for n in model.graph.node if _QUANTIZED.fullmatch(n.op_type)})
    if already:
        raise QuantizationError(
            f"{source.name} is quantized already: it has {', '.join(already)}",
            "run it as it is, with --precision fp32: the result lists what ran in int8",
        )
    large: bool = model.ByteSize() > _INLINE_LIMIT_BYTES
    weights = {initializer.name for initializer in model.graph.initializer}
    # Models of IR version 3 list their weights as inputs too, which keeps them from being folded.
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    version = _opset(model)
    if version < _PER_CHANNEL_OPSET:
        if large:
            raise QuantizationError(
                f"{source.name} has opset {version} and over 2 GB", "export it with opset 17"
            )
        model = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
    named = prepared.with_name("source.onnx")
    onnx.save(model, str(named), save_as_external_data=large)
    del model
    quant_pre_process(
        str(named),
        str(prepared),
        skip_symbolic_shape=True,  # needs sympy, and the shapes are concrete
        save_as_external_data=large,
        all_tensors_to_one_file=True,
    )
    return large


def _opset(model: Any) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _static(
    prepared: Path, target: Path, job: QuantizeJob, large: bool, symmetric: bool
) -> Quantization:
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    operators = list(_WEIGHTED) if symmetric else sorted({*QDQRegistry, *QLinearOpsRegistry})
    ranges = calibrate(prepared, operators, job, large)
    model = onnx.load(str(prepared))
    narrow = saturates_here()
    quantizer = QDQQuantizer(
        model,
        True,  # per channel
        narrow and not symmetric,
        QuantType.QInt8,
        QuantType.QInt8 if symmetric else QuantType.QUInt8,
        ranges,
        [],
        [],
        operators,
        {
            "ActivationSymmetric": symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": not symmetric,
            "OpTypesToExcludeOutputQuantization": list(_WEIGHTED) if symmetric else [],
        },
    )
    for name in _shortcuts(model.graph) if symmetric else ():
        quantizer.quantize_activation_tensor(name)
    quantizer.quantize_model()
    still_large = quantizer.model.model.ByteSize() > _INLINE_LIMIT_BYTES
    quantizer.model.save_model_to_file(str(target), still_large)
    activations = "symmetric int8 activations" if symmetric else "asymmetric uint8 activations"
    weights = "symmetric int8 weights per channel"
    if narrow and not symmetric:
        weights += ", 7 bits wide since this CPU has no VNNI"
    return _quantization(job, "onnxruntime static QDQ", job.method, f"{activations}, {weights}")


def _shortcuts(graph: Any) -> Iterator[str]:
    """Of each Add of two convolutions the output of the one that is fewer steps from the inputs.

    A residual that is no convolution's output is quantized as what it is: the next layer's input.
    """
    steps: dict[str, int] = {}
    convolved: set[str] = set()
    for node in graph.node:  # each behind those that it takes from
        before = max((steps.get(name, 0) for name in node.input), default=0)
        steps.update(dict.fromkeys(node.output, before + 1))
        if node.op_type in ("Conv", "ConvTranspose"):
            convolved.update(node.output)
        elif node.op_type == "Add" and convolved.issuperset(node.input):
            yield min(reversed(node.input), key=steps.__getitem__)


def _dynamic(prepared: Path, target: Path, job: QuantizeJob, large: bool) -> Quantization:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    model = onnx.load(str(prepared))
    found = {node.op_type for node in model.graph.node}
    # The library transposes the weights of a Gemm and then trips over their noted shapes.
    weights = {initializer.name for initializer in model.graph.initializer}
    for value in [value for value in model.graph.value_info if value.name in weights]:
        model.graph.value_info.remove(value)
    onnx.save(model, str(prepared), save_as_external_data=large)
    del model
    quantize_dynamic(
        str(prepared),
        str(target),
        # Left out: Conv. ConvInteger with int8 weights took 3.7 times as long as fp32 (ResNet-18).
        op_types_to_quantize=sorted({*IntegerOpsRegistry} - {"Conv"}),
        per_channel=True,
        reduce_range=saturates_here(),
        weight_type=QuantType.QInt8,
        use_external_data_format=large,
    )
    scheme = "uint8 activations scaled as they run, symmetric int8 weights per channel"
    if "Conv" in found:
        scheme += "; convolutions stay in fp32"
    return _quantization(job, "onnxruntime dynamic", "dynamic", scheme)


def _quantization(job: QuantizeJob, route: str, method: str, scheme: str) -> Quantization:
    if method == "dynamic":
        return Quantization(route, method, scheme, "none", "", 0)
    return Quantization(
        route,
        method,
        scheme,
        job.calibration_source,
        job.calibration_sha256,
        job.calibration_samples,
    )


def saturates_here() -> bool:
    """Whether this CPU is one that `saturates`."""
    return saturates(platform.machine(), _cpuinfo())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def saturates(machine: str, cpuinfo: str) -> bool:
    """Whether uint8 x int8 products may overflow on this CPU: x86 with neither flavour of VNNI.

    Such CPUs add pairs of products in 16 bits, which full 8-bit weights overrun; weights of 7 bits
    do not. Without a readable ``/proc/cpuinfo`` the answer is the safe one.
    """
    if machine.lower() not in ("x86_64", "amd64", "i686"):
        return False
    return not re.search(r"\bavx512_vnni\b|\bavx_vnni\b", cpuinfo)


def _check_target(source: Path, target: Path, job: QuantizeJob) -> None:
    """The new file has quantized operators, and kernels for all of its operators."""
    import onnx
    import onnxruntime as ort

    model = onnx.load(str(target), load_external_data=False)
    operators = sorted({node.op_type for node in model.graph.node})
    if not any(_QUANTIZED.fullmatch(operator) for operator in operators):
        raise QuantizationError(
            f"{source.name} has nothing for {job.mode} quantization: its operators are "
            + ", ".join(operators),
            "run it with --precision fp32"
            + (" or --quantization static" if job.mode == "dynamic" else ""),
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ort.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])


def _refuse_unfit_for_fp16(model: Any, source: Path) -> None:
    from onnx import TensorProto, numpy_helper

    if model.ByteSize() > _INLINE_LIMIT_BYTES:
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
