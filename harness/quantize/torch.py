"""FP32 torch module to a program with integer kernels for the CPU. Imports torch.

    trace ─> observers ─> calibration ─> integer modules ─> TorchScript, frozen ─> check ─> file

The route is FX graph mode, traced and frozen. Medians against FP32 eager on two cores of a CPU with
AVX-512 VNNI (torch 2.13, torchao 0.18, batch 1; ratios, smaller is faster):

                                      ResNet-18   MobileNetV2   4-layer encoder
    FX, frozen (this)                   0.20         0.24           0.25
    FX, run as a Python module          0.23         0.40            -
    PT2E, compiled by inductor          0.24         0.37           0.25
    PT2E, lowered for x86, eager        0.29         0.92           2.41
    dynamic (Linear only), frozen        -            -             0.29
    torchao dynamic, compiled            -            -             0.29

The fusion of an addition into the convolution before it (torch's oneDNN configuration) would gain
5 % and is left out: it writes the sum over the other addend, which may have further readers.

The file is a TorchScript archive: torch's C++ reader builds it from a fixed set of types and runs
no pickled Python.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import BackendUnavailable, ModelError, QuantizationError, one_line
from harness.protocols import Quantization
from harness.quantize.job import QuantizeJob

_FACTS = "harness.json"
_DYNAMIC = (nn.Linear, nn.LSTM, nn.GRU)
_REMEDY = "use --backend onnxruntime, or --precision fp32"


class _Facts(msgspec.Struct, frozen=True):
    """What the archive tells its loader."""

    engine: str
    torch: str


def engine() -> str:
    """The kernel library for this CPU; a program is made for one.

    oneDNN needs VNNI to add up 8-bit products without overflow. Without VNNI, ``x86`` keeps
    activations to 7 bits instead.
    """
    supported = torch.backends.quantized.supported_engines
    if "onednn" in supported and torch.cpu._is_vnni_supported():
        return "onednn"
    for name in ("x86", "qnnpack"):
        if name in supported:
            return name
    raise BackendUnavailable(
        f"PyTorch {torch.__version__} has no quantized kernels for this CPU",
        "use --backend onnxruntime",
    )


def quantize(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    target: Path,
    job: QuantizeJob,
    input_names: Sequence[str] | None = None,
) -> Quantization:
    """Write to ``target`` the int8 program of ``module`` for inputs shaped like ``example_inputs``.

    ``input_names`` gives the calibration file's array for each input in turn; by default the file's
    own order counts. Raises `QuantizationError` naming the operator or module that this route
    cannot handle, or the operators of a model in which nothing could be quantized.
    """
    if job.precision != "int8":
        raise QuantizationError(f"no torch program is made for {job.precision}", "cast the module")
    _refuse_exported(module)
    kernels = engine()
    with _quiet(), _using(kernels), torch.no_grad():
        graph = _observed(copy.deepcopy(module).eval(), example_inputs, kernels, job)
        if job.mode == "static":
            _calibrate(graph, example_inputs, job, input_names)
        program = _program(graph, example_inputs)
        _check_kernels(program, job)
        facts = _Facts(kernels, str(torch.__version__))
        program.save(str(target), _extra_files={_FACTS: msgspec.json.encode(facts).decode()})
    return _record(job, kernels)


def _refuse_exported(module: nn.Module) -> None:
    """This route knows layers and functions; an exported program has operators in their place."""
    for path, inner in module.named_modules():
        nodes = inner.graph.nodes if isinstance(inner, torch.fx.GraphModule) else ()
        found = {str(n.target) for n in nodes if isinstance(n.target, torch._ops.OpOverload)}
        if found:
            raise QuantizationError(
                f"{path or 'the model'} is an exported program, whose operators this route cannot "
                f"quantize: {', '.join(sorted(found))}",
                "give the module itself (package.module:factory), or use --backend onnxruntime",
            )


def load(target: Path) -> Any:
    """The program in ``target``: called with tensors by position. Raises `ModelError`.

    Selects the program's kernel library for this process.
    """
    extra = {_FACTS: ""}
    with _quiet():
        try:
            name = msgspec.json.decode(_facts(target, extra), type=_Facts).engine
            if name not in torch.backends.quantized.supported_engines:
                raise ModelError(f"{target} is made for {name!r} kernels", "quantize it again here")
            torch.backends.quantized.engine = name
            return torch.jit.load(str(target), map_location="cpu")
        except (RuntimeError, ValueError, OSError, msgspec.DecodeError) as error:
            raise ModelError(
                f"{target} is no int8 program that PyTorch can load: {_line(error)}",
                "delete it and run again",
            ) from error


def _facts(target: Path, extra: dict[str, str]) -> str:
    # the archive's own reader: no code is looked at, and weights are not packed twice
    reader = torch._C.PyTorchFileReader(str(target))
    text: str = reader.get_record(f"extra/{_FACTS}").decode()
    return text


def _record(job: QuantizeJob, kernels: str) -> Quantization:
    if job.mode == "dynamic":
        return Quantization(
            route=f"torch FX dynamic, {kernels} kernels",
            method="dynamic",
            scheme="activations ranged at run time, per-channel weights",
            calibration_source="none",
            calibration_sha256="",
            calibration_samples=0,
        )
    return Quantization(
        route=f"torch FX static, {kernels} kernels",
        method=job.method,
        scheme="affine uint8 activations, symmetric per-channel int8 weights",
        calibration_source=job.calibration_source,
        calibration_sha256=job.calibration_sha256,
        calibration_samples=job.calibration_samples,
    )


def _observed(
    module: nn.Module, examples: tuple[Tensor, ...], kernels: str, job: QuantizeJob
) -> Any:
    """A graph of ``module`` with observers where values will be quantized."""
    from torch.ao.quantization.quantize_fx import prepare_fx

    mapping = _static_mapping(kernels, job.method) if job.mode == "static" else _dynamic_mapping()
    if job.mode == "static":
        _open_relu6(module)
    with _blamed(module, "cannot be traced"):
        return prepare_fx(module, mapping, examples)


def _static_mapping(kernels: str, method: str) -> Any:
    """torch's own choice of what to quantize for these kernels, with our observers."""
    from torch.ao.quantization import QConfig, get_default_qconfig_mapping

    from harness.quantize.torch_observers import OBSERVERS

    mapping = get_default_qconfig_mapping(kernels)
    default: Any = mapping.global_qconfig
    ours = OBSERVERS[method].with_args(
        dtype=torch.quint8, qscheme=torch.per_tensor_affine, reduce_range=kernels == "x86"
    )
    for kind, config in list(mapping.object_type_qconfigs.items()):
        if config is not None and config.activation is default.activation:
            mapping.set_object_type(kind, QConfig(activation=ours, weight=config.weight))
    return mapping.set_global(QConfig(activation=ours, weight=default.weight))


def _dynamic_mapping() -> Any:
    from torch.ao.quantization import QConfigMapping
    from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

    mapping = QConfigMapping()
    for kind in (*_DYNAMIC, nn.functional.linear):
        mapping.set_object_type(kind, per_channel_dynamic_qconfig)
    return mapping


def _open_relu6(module: nn.Module) -> None:
    """Have each ReLU6 pass for a ReLU, so that it fuses into the convolution before it.

    It still clips at 6 while observers look, so the range that they set ends at 6 or below, and the
    fused kernel saturates there. MobileNetV2 takes 17 % less time for it. Where nothing fuses, the
    clipping stays in the graph.
    """
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.ReLU6:
                relu = nn.ReLU().eval()
                relu.forward = functools.partial(nn.functional.hardtanh, min_val=0.0, max_val=6.0)
                setattr(parent, name, relu)


def _calibrate(
    graph: nn.Module,
    examples: tuple[Tensor, ...],
    job: QuantizeJob,
    names: Sequence[str] | None,
) -> None:
    with np.load(job.calibration_path, allow_pickle=False) as arrays:
        columns = [arrays[name] for name in (names or arrays.files)[: len(examples)]]
    with _blamed(graph, "cannot be calibrated"):
        for start in range(0, job.calibration_samples, job.batch_size):
            graph(*(_slice(c, e, start, job) for c, e in zip(columns, examples, strict=True)))


def _slice(column: Any, example: Tensor, start: int, job: QuantizeJob) -> Tensor:
    """The batch from ``start`` on, wrapping around; one sample where axis 0 is no batch.

    A source's own example comes as it is, without a leading axis of samples.
    """
    if column.shape == tuple(example.shape):
        return torch.from_numpy(column).to(example.dtype)
    count = 1 if column.ndim > example.dim() else job.batch_size
    chosen = column[(start + np.arange(count)) % len(column)].reshape(example.shape)
    return torch.from_numpy(np.ascontiguousarray(chosen)).to(example.dtype)


def _program(graph: Any, examples: tuple[Tensor, ...]) -> Any:
    from torch.ao.quantization.quantize_fx import convert_fx

    with _blamed(graph, "cannot be quantized"):
        converted = convert_fx(graph).eval()
        traced: Any = torch.jit.trace(converted, examples, check_trace=False, strict=False)
        return torch.jit.freeze(traced.eval())


def _check_kernels(program: Any, job: QuantizeJob) -> None:
    """At least one integer kernel that computes: conversions alone are no int8 model."""
    kinds = Counter(node.kind() for node in program.inlined_graph.nodes())
    if any(kind.startswith("quantized::") for kind in kinds):
        return
    found = sorted(kind for kind in kinds if not kind.startswith("prim::"))
    covered = (
        "dynamic quantization covers Linear, LSTM and GRU"
        if job.mode == "dynamic"
        else "this route covers convolutions, linear layers and what stands between them"
    )
    raise QuantizationError(
        f"no operator of this model can run in int8: it has {', '.join(found) or 'none at all'}",
        f"{covered}; {_REMEDY}",
    )


@contextlib.contextmanager
def _using(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch says of this route to its developers; it still is the fastest one."""
    from torch.jit._trace import TracerWarning

    with warnings.catch_warnings():
        for message in (
            "torch.ao.quantization is deprecated",
            "`torch.jit.[a-z_]+` is deprecated",
            "torch.quantize_per_tensor, torch.quantize_per_channel and other",
            "Please use quant_min and quant_max to specify the range",
            "must run observer before calling calculate_qparams",
        ):
            warnings.filterwarnings("ignore", message)
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield


@contextlib.contextmanager
def _blamed(module: nn.Module, what: str) -> Iterator[None]:
    """Whatever torch raises at one step, as the fault of the submodule in which it happened."""
    try:
        yield
    except Exception as error:  # tracing runs any code of the model
        raise QuantizationError(
            f"{_culprit(module, error)} {what}: {_line(error)}", _REMEDY
        ) from error


def _culprit(module: nn.Module, error: Exception) -> str:
    """The innermost submodule whose own code stands in the error's traceback."""
    paths = {id(inner): path for path, inner in module.named_modules()}
    name = f"the model ({type(module).__name__})"
    for frame, line in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals.get("self")
        path = paths.get(id(found))
        if path and isinstance(found, nn.Module):
            name = f"{path!r} ({type(found).__name__}, line {line})"
    return name


def _line(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
