"""The quantized model, made by ONNX Runtime's quantizer without what has to stay in FP32.

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

import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.quantize.job import QuantizeJob
from harness.quantize.onnx_calibration import calibrate
from harness.quantize.onnx_graph import Graph, is_large
from harness.quantize.onnx_prepare import removes_wrongly
from harness.quantize.onnx_proof import Fault

WEIGHTED: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Left:
    """What stays in FP32, and why: nodes by name, and tensors between them.

    A tensor takes with it the nodes that read it, and the one that puts it out unless that computes
    on integers whatever its output is.
    """

    def __init__(self, graph: Graph, operators: list[str]) -> None:
        self.nodes: dict[str, str] = {}
        self.tensors: dict[str, str] = {}
        self.graph = graph
        self._nodes = {node.name: node for node in graph.model.graph.node}
        self._operators = frozenset(operators)

    def add(self, faults: Sequence[Fault]) -> bool:
        """Leave out what ``faults`` blame. False where all of that is left out already."""
        before = len(self.nodes) + len(self.tensors)
        for fault in faults:
            known = len(self.nodes) + len(self.tensors)
            for name, why in fault.tensors.items():
                self.leave_tensor(name, why)
            for name, why in fault.nodes.items():
                self.nodes.setdefault(name, why)
            if len(self.nodes) + len(self.tensors) == known:
                for name, why in fault.last.items():
                    self.leave_tensor(name, why)
        return len(self.nodes) + len(self.tensors) > before

    def leave_tensor(self, name: str, why: str) -> None:
        self.tensors.setdefault(name, why)
        maker = self.graph.makers.get(name)
        if maker is not None and maker.op_type not in WEIGHTED:
            self.nodes.setdefault(maker.name, why)
        source = f"input {name}" if maker is None else f"the output of {maker.name}"
        for node in self._nodes.values():
            if name in node.input:
                self.nodes.setdefault(node.name, f"reads {source}, which stays in fp32")

    def named(self) -> dict[str, str]:
        """What could have been quantized and is not, for people."""
        named = {
            name: why
            for name, why in self.nodes.items()
            if self._nodes[name].op_type in self._operators
        }
        for name, why in self.tensors.items():
            maker = self.graph.makers.get(name)
            if maker is None:
                named[f"input {name}"] = why
            elif maker.name not in self.nodes:
                named[f"output of {maker.name}"] = why
        return named


class Static:
    """Q/DQ pairs by the ranges that the calibration samples take."""

    route = "onnxruntime static QDQ"

    def __init__(self, prepared: Path, job: QuantizeJob, *, symmetric: bool) -> None:
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        self._prepared = prepared
        self._symmetric = symmetric
        self._narrow = saturates_here() and not symmetric
        everything = {*QDQRegistry, *QLinearOpsRegistry}
        self._operators = list(WEIGHTED) if symmetric else sorted(everything)
        model = onnx.load(str(prepared), load_external_data=False)
        self.left = Left(Graph(model), self._operators)
        self._ranges, infinite = calibrate(prepared, self._operators, job, _is_external(model))
        for name in infinite:
            self.left.leave_tensor(name, "has infinite values")
        self._leave_removed(model.graph)
        how = {"quant_type": QuantType.QInt8, "symmetric": True}
        # no kernel takes scales per channel where weights are a stack of matrices
        self._whole = {name: [how] for _, name, _ in _stacks(self.left.graph)}

    @property
    def scheme(self) -> str:
        kind = "symmetric int8" if self._symmetric else "asymmetric uint8"
        scheme = f"{kind} activations, symmetric int8 weights per channel"
        return scheme + ", 7 bits wide since this CPU has no VNNI" * self._narrow

    def _leave_removed(self, graph: Any) -> None:
        """Leave out the nodes that the library would drop, or trip over."""
        constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if "Clip" in self._operators and removes_wrongly(node, constants):
                self.left.nodes[node.name] = "clips to bounds that 8 bits do not stand for"
            if node.op_type == "Softmax" and node.output[0] not in self._ranges:
                self.left.nodes[node.name] = "is of no type that is quantized"

    def make(self) -> Any:
        """The model without what is in ``left``."""
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorsData

        model = _load(self._prepared)
        outputs = _set_aside(model)
        kept = {n: r for n, r in self._ranges.items() if n not in self.left.tensors}
        quantizer: Any = QDQQuantizer(
            model,
            True,  # per channel
            self._narrow,
            QuantType.QInt8,
            QuantType.QInt8 if self._symmetric else QuantType.QUInt8,
            TensorsData(self._ranges.calibration_method, kept),  # a copy, which it changes
            [],
            list(self.left.nodes),
            self._operators,
            {
                "ActivationSymmetric": self._symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not self._symmetric,
                "TensorQuantOverrides": self._whole,
                "OpTypesToExcludeOutputQuantization": list(WEIGHTED) if self._symmetric else [],
            },
        )
        takes = quantizer._is_tensor_quantizable  # there is no option to leave out a tensor
        quantizer._is_tensor_quantizable = lambda name: (
            name not in self.left.tensors and takes(name)
        )
        for name in _shortcuts(model.graph) if self._symmetric else ():
            quantizer.quantize_activation_tensor(name)
        quantizer.quantize_model()
        return _put_back(quantizer.model.model, outputs, self._prepared)


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


class Dynamic:
    """Integer matrix products, whose activations are scaled as they run."""

    route = "onnxruntime dynamic"

    def __init__(self, prepared: Path, job: QuantizeJob, *, symmetric: bool) -> None:
        import onnx
        from onnxruntime.quantization.registry import IntegerOpsRegistry

        self._prepared = prepared
        # Left out: Conv. ConvInteger with int8 weights took 3.7 times as long as fp32 (ResNet-18).
        self._operators = sorted({*IntegerOpsRegistry} - {"Conv"})
        model = onnx.load(str(prepared), load_external_data=False)
        self.left = Left(Graph(model), self._operators)
        for name, _, rank in _stacks(self.left.graph):
            self.left.nodes[name] = f"has weights of {rank} dimensions, where the kernel takes two"

    @property
    def scheme(self) -> str:
        scheme = "uint8 activations scaled as they run, symmetric int8 weights per channel"
        convolves = any(node.op_type == "Conv" for node in self.left.graph.model.graph.node)
        return scheme + "; convolutions stay in fp32" * convolves

    def make(self) -> Any:
        """The model without what is in ``left``."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = _load(self._prepared)
        outputs = _set_aside(model)
        # The library transposes the weights of a Gemm and then trips over their noted shapes.
        weights = {initializer.name for initializer in model.graph.initializer}
        for value in [value for value in model.graph.value_info if value.name in weights]:
            model.graph.value_info.remove(value)
        plain, made = (self._prepared.with_name(name) for name in ("plain.onnx", "dynamic.onnx"))
        large = is_large(model)
        save(model, plain)
        del model
        quantize_dynamic(
            str(plain),
            str(made),
            op_types_to_quantize=self._operators,
            nodes_to_exclude=list(self.left.nodes),
            per_channel=True,
            reduce_range=saturates_here(),
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )
        return _put_back(_load(made), outputs, self._prepared)


def _stacks(graph: Graph) -> Iterator[tuple[str, str, int]]:
    """Matrix products by constant weights that are no matrix: node, weights, dimensions."""
    for node in graph.model.graph.node:
        weights = graph.constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is not None and len(weights.dims) != 2:
            yield node.name, weights.name, len(weights.dims)


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))


def save(model: Any, path: Path) -> None:
    """Write ``model``, with its weights in a file beside it if it is large."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).save_model_to_file(str(path), is_large(model))


def _is_external(model: Any) -> bool:
    from onnx.external_data_helper import uses_external_data

    return any(uses_external_data(tensor) for tensor in model.graph.initializer)


def _set_aside(model: Any) -> list[Any]:
    """Take out the outputs that no node makes (inputs handed through, constants).

    The library would rename what makes them. Returns all outputs in their order.
    """
    outputs = list(model.graph.output)
    made = {name for node in model.graph.node for name in node.output}
    del model.graph.output[:]
    model.graph.output.extend(value for value in outputs if value.name in made)
    return outputs


def _put_back(model: Any, outputs: list[Any], prepared: Path) -> Any:
    """``model`` with all ``outputs``, and those constants among them that were quantized away."""
    made = {name for node in model.graph.node for name in node.output}
    made.update(tensor.name for tensor in (*model.graph.initializer, *model.graph.input))
    lost = {value.name for value in outputs} - made
    if lost:
        constants = _load(prepared).graph.initializer
        model.graph.initializer.extend(tensor for tensor in constants if tensor.name in lost)
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model


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
