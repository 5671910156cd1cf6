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

import copy
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from harness.artifacts.torch_int8 import FACTS, Facts, quiet, using
from harness.artifacts.torch_values import Flat, is_flat
from harness.errors import QuantizationError
from harness.protocols import Proof, Quantization
from harness.quantize.job import QuantizeJob
from harness.quantize.torch_blame import REMEDY, blamed
from harness.quantize.torch_called import unwrapped
from harness.quantize.torch_check import check_kernels, check_program, check_trace, copies
from harness.quantize.torch_engine import Engine, choose
from harness.quantize.torch_places import Place, places_of
from harness.quantize.torch_proof import FLOOR_DB, Layer, compare, remember, worst

_DYNAMIC = (nn.Linear, nn.LSTM, nn.GRU)
_TRANSPOSED = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.functional.conv_transpose1d,
    nn.functional.conv_transpose2d,
    nn.functional.conv_transpose3d,
)
# at most as many times layers are left out and the rest is proven anew
_ROUNDS = 5


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
    module = unwrapped(module)
    kernels = choose()
    with quiet(), using(kernels.name), torch.no_grad():
        batches = _batches(example_inputs, job, input_names)
        converted, proof = _proven(module, example_inputs, batches, kernels, job)
        program = _program(converted, example_inputs)
        check_kernels(program, job, proof)
        check_program(program, converted, example_inputs)
        facts = Facts(kernels.name, str(torch.__version__), kernels.narrow)
        program.save(str(target), _extra_files={FACTS: msgspec.json.encode(facts).decode()})
    return _record(job, kernels, proof)


def _proven(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    batches: Sequence[tuple[Tensor, ...]],
    kernels: Engine,
    job: QuantizeJob,
) -> tuple[Any, Proof]:
    """The converted graph, without the layers that compute something else than FP32 does.

    A layer that is left out changes what is fused with what; so the rest is proven anew.
    """
    left: dict[Place, str] = {}
    wrong: dict[Place, str] = {}
    for _ in range(_ROUNDS):
        graph = _observed(_copy(module, examples), examples, kernels, job, left)
        check_trace(module, graph, examples)
        if job.mode == "static":
            _calibrate(graph, batches)
        places = places_of(graph)
        observed = remember(graph)
        converted = _converted(graph)
        with blamed(observed, "cannot run in int8"):
            layers = {
                places[layer.node]: layer for layer in compare(observed, converted, batches[0])
            }
        wrong = {place: why for place, layer in layers.items() if (why := _unfit(layer))}
        if not wrong:
            name, sqnr_db = worst({str(place): layer for place, layer in layers.items()})
            return converted, Proof(
                len(layers), name, sqnr_db, {str(p): w for p, w in left.items()}
            )
        if left.keys() & wrong.keys():
            break  # it did not stay out
        left |= wrong
    text = "; ".join(f"{place} {why}" for place, why in wrong.items())
    raise QuantizationError(f"layers compute something else in int8: {text}"[:600], REMEDY)


def _copy(module: nn.Module, examples: tuple[Tensor, ...]) -> nn.Module:
    """What hooks computed with gradients is not copied; an inference without them makes it anew."""
    try:
        made: nn.Module = copy.deepcopy(module)
    except Exception:  # whatever the module's own code raises
        with blamed(module, "cannot be copied"):
            module(*copies(examples))
            made = copy.deepcopy(module)
    return made.eval()


def _unfit(layer: Layer) -> str:
    """Why ``layer`` cannot stay in int8; empty if it can."""
    if layer.error:
        return f"cannot run in int8: {layer.error}"
    if layer.sqnr_db < FLOOR_DB:
        return f"computes something else in int8 (SQNR {layer.sqnr_db:.1f} dB against fp32)"
    return ""


def _refuse_exported(module: nn.Module) -> None:
    """This route knows layers and functions; an exported program has operators in their place."""
    if isinstance(module, torch.jit.ScriptModule):
        raise QuantizationError(
            "the model is TorchScript, whose operators this route cannot quantize",
            "give the module itself (package.module:factory), or use --backend onnxruntime",
        )
    for path, inner in module.named_modules():
        nodes = inner.graph.nodes if isinstance(inner, torch.fx.GraphModule) else ()
        found = {str(n.target) for n in nodes if isinstance(n.target, torch._ops.OpOverload)}
        if found:
            raise QuantizationError(
                f"{path or 'the model'} is an exported program, whose operators this route cannot "
                f"quantize: {', '.join(sorted(found))}",
                "give the module itself (package.module:factory), or use --backend onnxruntime",
            )


def _record(job: QuantizeJob, kernels: Engine, proof: Proof) -> Quantization:
    if job.mode == "dynamic":
        return Quantization(
            route=f"torch FX dynamic, {kernels.name} kernels",
            method="dynamic",
            scheme="activations ranged at run time, per-channel weights",
            calibration_source="none",
            calibration_sha256="",
            calibration_samples=0,
            proof=proof,
        )
    bits = ", 7 bits wide since this CPU overflows 8-bit sums" if kernels.narrow else ""
    return Quantization(
        route=f"torch FX static, {kernels.name} kernels",
        method=job.method,
        scheme=f"affine uint8 activations{bits}, symmetric per-channel int8 weights",
        calibration_source=job.calibration_source,
        calibration_sha256=job.calibration_sha256,
        calibration_samples=job.calibration_samples,
        proof=proof,
    )


def _observed(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    kernels: Engine,
    job: QuantizeJob,
    left: Iterable[Place],
) -> Any:
    """A graph of ``module`` with observers where values will be quantized."""
    from torch.ao.quantization.quantize_fx import prepare_fx

    mapping = (
        _static_mapping(kernels, job.method) if job.mode == "static" else _dynamic_mapping(module)
    )
    for place in left:
        place.leave(mapping)
    if job.mode == "static":
        _open_relu6(module, kernels)
    with blamed(module, "cannot be traced"):
        return prepare_fx(module, mapping, examples)


def _static_mapping(kernels: Engine, method: str) -> Any:
    """torch's own choice of what to quantize for these kernels, with our observers."""
    from torch.ao.quantization import (
        QConfig,
        default_weight_observer,
        get_default_qconfig_mapping,
    )

    from harness.quantize.torch_observers import OBSERVERS

    mapping = get_default_qconfig_mapping(kernels.name)
    default: Any = mapping.global_qconfig
    ours = OBSERVERS[method].with_args(
        dtype=torch.quint8, qscheme=torch.per_tensor_affine, reduce_range=kernels.narrow
    )
    for kind, config in list(mapping.object_type_qconfigs.items()):
        if config is not None and config.activation is default.activation:
            mapping.set_object_type(kind, QConfig(activation=ours, weight=config.weight))
    # no kernel takes a scale per channel there, and for oneDNN torch's own choice forgets it
    for kind in _TRANSPOSED:
        mapping.set_object_type(kind, QConfig(activation=ours, weight=default_weight_observer))
    return mapping.set_global(QConfig(activation=ours, weight=default.weight))


def _dynamic_mapping(module: nn.Module) -> Any:
    from torch.ao.quantization import QConfigMapping
    from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

    mapping = QConfigMapping().set_object_type(nn.functional.linear, per_channel_dynamic_qconfig)
    # by their names: torch wants one setting for all types that fuse, and a ReLU has none
    for path, inner in module.named_modules():
        if isinstance(inner, _DYNAMIC):
            mapping.set_module_name(path, per_channel_dynamic_qconfig)
    return mapping


def _open_relu6(module: nn.Module, kernels: Engine) -> None:
    """Have each ReLU6 pass for a ReLU, so that it fuses into the convolution before it.

    It still clips at 6 while observers look, so the range that they set ends at 6 or below, and the
    fused kernel saturates there. MobileNetV2 takes 17 % less time for it. Where nothing fuses, the
    clipping stays in the graph. Activations of 7 bits end at level 127, and kernels saturate at
    255: there the clipping stays too, behind the fused kernel.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.ReLU6:
                relu: nn.Module = nn.ReLU().eval()
                relu.forward = functools.partial(nn.functional.hardtanh, min_val=0.0, max_val=6.0)
                clipped = nn.Sequential(relu, nn.Hardtanh(0.0, 6.0)).eval()
                setattr(parent, name, clipped if kernels.narrow else relu)


def _batches(
    examples: tuple[Tensor, ...], job: QuantizeJob, names: Sequence[str] | None
) -> list[tuple[Tensor, ...]]:
    """What is calibrated and proven on: the calibration data, without any the examples."""
    if job.mode == "dynamic":
        return [examples]
    with np.load(job.calibration_path, allow_pickle=False) as arrays:
        columns = [arrays[name] for name in (names or arrays.files)[: len(examples)]]
    return [
        tuple(_slice(c, e, start, job) for c, e in zip(columns, examples, strict=True))
        for start in range(0, job.calibration_samples, job.batch_size)
    ]


def _calibrate(graph: nn.Module, batches: Sequence[tuple[Tensor, ...]]) -> None:
    with blamed(graph, "cannot be calibrated"):
        for batch in batches:
            graph(*(tensor.clone() for tensor in batch))


def _slice(column: Any, example: Tensor, start: int, job: QuantizeJob) -> Tensor:
    """The batch from ``start`` on, wrapping around; one sample where axis 0 is no batch.

    A source's own example comes as it is, without a leading axis of samples.
    """
    if column.shape == tuple(example.shape):
        return torch.from_numpy(column).to(example.dtype)
    count = 1 if column.ndim > example.dim() else job.batch_size
    chosen = column[(start + np.arange(count)) % len(column)].reshape(example.shape)
    return torch.from_numpy(np.ascontiguousarray(chosen)).to(example.dtype)


def _converted(graph: Any) -> Any:
    from torch.ao.quantization.quantize_fx import convert_fx

    with blamed(graph, "cannot be quantized"):
        converted = convert_fx(graph).eval()
    # integer kernels give channels last, of which not every view can be taken
    for node in converted.graph.nodes:
        typed = any(isinstance(arg, torch.dtype) for arg in (*node.args, *node.kwargs.values()))
        if node.op == "call_method" and node.target == "view" and not typed:
            node.target = "reshape"
    converted.recompile()
    return converted


def _program(converted: Any, examples: tuple[Tensor, ...]) -> Any:
    with blamed(converted, "cannot be compiled"):
        plain = is_flat(converted(*copies(examples)))
        whole = converted if plain else Flat(converted).eval()
        traced: Any = torch.jit.trace(whole, copies(examples), check_trace=False, strict=False)
        return torch.jit.freeze(traced.eval())
