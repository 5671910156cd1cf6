"""Whether each layer of a quantized ONNX model computes what the same layer does in FP32.

    FP32   x ─ Conv ─ t ─ Add ─ u        one run gives x, t, u
                   │  └──────┐
    INT8   x ─ Q DQ Conv Q DQ ~ t        each layer is cut off, given FP32's inputs, and run by the
                        t ─ Q DQ Add ~ u  kernels that the runtime fuses it into

So no layer answers for the errors of those before it, and the floor can be one number. A layer is
what lies between two quantized tensors, or between one and an output of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.quantize.onnx_graph import QUANTIZED, Graph, Segment, is_random
from harness.quantize.onnx_session import reason, start

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]
    Cut = dict[str, str]  # a tensor of the quantized graph -> the same in the FP32 one

# 15 dB: an error of 18 % of the signal. A sound layer of 8 bits has 20 to 45 dB, one whose factor
# or bound is lost has 0 to 12.
FLOOR_DB = 15.0
_CHUNK_BYTES = 256 << 20
_CHUNK_LAYERS = 64
_UNKNOWN_BYTES = 1 << 20  # of a tensor whose shape nobody inferred
# Scores that a mask took out (-1e4, -65504, -1e9, the lowest float) say nothing about the others:
# they lie this far out, with nothing between them and the rest.
_MASKED = 5e3
_GAP = 100.0
_MADE = "made: "


class Layer(NamedTuple):
    """``end`` is its output in the quantized graph and ``origin`` in the FP32 one."""

    end: str
    origin: str
    name: str
    segment: Segment


class Fault(NamedTuple):
    """A layer below the floor: FP32 nodes to leave out, or tensors not to quantize, and why.

    ``last`` are the tensors to try where all of that was left out before.
    """

    layer: str
    nodes: dict[str, str]
    tensors: dict[str, str]
    last: dict[str, str]


class Findings(NamedTuple):
    """``sqnr_db`` by layer (infinite where nothing differs), and what is below the floor.

    ``apart_db`` is of the same noise what lies around the mean: values that differ by little around
    a large one, as logits with a bias, lose their order at an SQNR that looks splendid.
    """

    sqnr_db: dict[str, float]
    faults: list[Fault]
    apart_db: dict[str, float]


def powers(reference: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    """Of signal and noise; what a mask took out counts only where ``other`` has lost it."""
    exact = reference.astype(np.float64).ravel()
    ours = other.astype(np.float64).ravel()
    finite = np.isfinite(exact)
    lost = not np.array_equal(exact[~finite], ours[~finite], equal_nan=True)
    if lost or not np.isfinite(ours[finite]).all():
        return 0.0, math.inf
    exact, ours = exact[finite], ours[finite]
    kept = _unmasked(np.abs(exact))
    return float((exact[kept] ** 2).sum()), float(((exact - ours)[kept] ** 2).sum())


def spread(reference: NDArray[Any]) -> float:
    """The power of the signal around its mean."""
    exact = reference.astype(np.float64).ravel()
    exact = exact[np.isfinite(exact)]
    kept = exact[_unmasked(np.abs(exact))]
    return float(((kept - kept.mean()) ** 2).sum()) if kept.size else 0.0


def _unmasked(size: NDArray[np.float64]) -> NDArray[np.bool_]:
    masked: NDArray[np.bool_] = size >= _MASKED
    if not masked.any() or masked.all():
        return np.ones_like(masked)
    apart = float(size[masked].min()) > _GAP * float(size[~masked].max())
    return ~masked if apart else np.ones_like(masked)


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``, infinite without noise."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 and noise < math.inf else -math.inf


class Prover:
    """Holds quantized models against the FP32 one that they were made from, on ``feeds``.

    ``fused`` runs their layers as the runtime optimises them, else as written.
    """

    def __init__(
        self, prepared: Path, feeds: Sequence[Arrays], batch_size: int, *, fused: bool
    ) -> None:
        import onnx

        self._path = prepared
        self._exact = Graph(onnx.load(str(prepared), load_external_data=False))
        self._feeds = feeds
        self._batch_size = batch_size
        self._fused = fused

    @property
    def samples(self) -> int:
        """How many inputs the layers are compared on."""
        return len(self._feeds) * self._batch_size

    def prove(self, made: Any) -> Findings:
        """Compare every layer of the model ``made``, which is not changed."""
        graph = Graph(made)
        cut = self._cut(graph)
        findings = Findings({}, [], {})
        for chunk in self._chunks(graph, list(self._layers(graph, cut)), cut):
            names = {layer.origin for layer in chunk}
            names.update(cut.get(n, n) for layer in chunk for n in layer.segment.inputs)
            self._compare(graph, chunk, cut, list(self._run_exact(names)), findings)
        return findings

    def parts(self, made: Any) -> dict[str, tuple[str, ...]]:
        """The FP32 nodes that each layer of the model ``made`` does the work of, by layer."""
        graph = Graph(made)
        cut = self._cut(graph)
        found: dict[str, tuple[str, ...]] = {}
        for layer in self._layers(graph, cut):
            segment = self._exact.segment([layer.origin], set(cut.values()) - {layer.origin})
            found[layer.name] = tuple(node.name for node in segment.nodes)
        return {name: nodes for name, nodes in found.items() if nodes}

    def _cut(self, graph: Graph) -> Cut:
        """Where layers begin and end."""
        cut = {}
        for node in graph.model.graph.node:
            if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
                # the library renames what goes into the quantizer of an output of the model
                for known in (node.input[0], node.input[0].removesuffix("_QuantizeLinear_Input")):
                    if known in self._exact.types or known in self._exact.makers:
                        cut[node.input[0]] = known
                        break
        for node in self._exact.model.graph.node:
            made = {
                name: graph.makers[name].op_type for name in node.output if name in graph.makers
            }
            if not {node.op_type, "DequantizeLinear"}.issuperset(made.values()):
                cut |= dict(zip(made, made, strict=True))  # quantized dynamically
        return cut

    def _layers(self, graph: Graph, cut: Cut) -> Iterator[Layer]:
        outputs = {value.name: value.name for value in graph.model.graph.output}
        for end, origin in {**outputs, **cut}.items():
            maker = graph.makers.get(end)
            if maker is None or maker.op_type == "DequantizeLinear" or not self._is_float(origin):
                continue  # an input, or an output whose quantized form is the layer's end
            segment = graph.segment([end], cut)
            in_8_bits = end in graph.quantizers or any(map(_is_quantized, segment.nodes))
            if in_8_bits and not is_random(segment.nodes):
                yield Layer(end, origin, self._name(origin), segment)

    def _is_float(self, name: str) -> bool:
        from onnx import TensorProto

        known = self._exact.types.get(name)
        kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
        return known is None or known.type.tensor_type.elem_type in kinds

    def _name(self, origin: str) -> str:
        maker = self._exact.makers.get(origin)
        return str(maker.name) if maker is not None else f"input {origin}"

    def _chunks(self, graph: Graph, layers: list[Layer], cut: Cut) -> Iterator[list[Layer]]:
        """As many layers at once as keep tensors and weights within memory."""
        chunk: list[Layer] = []
        room = _CHUNK_BYTES
        for layer in layers:
            names = {layer.origin, *(cut.get(name, name) for name in layer.segment.inputs)}
            need = graph.constant_bytes(layer.segment)
            need += len(self._feeds) * sum(map(self._bytes, names))
            if chunk and (need > room or len(chunk) == _CHUNK_LAYERS):
                yield chunk
                chunk, room = [], _CHUNK_BYTES
            chunk.append(layer)
            room -= need
        if chunk:
            yield chunk

    def _bytes(self, name: str) -> int:
        known = self._exact.types.get(name)
        if known is None or not known.type.tensor_type.HasField("shape"):
            return _UNKNOWN_BYTES
        dims = known.type.tensor_type.shape.dim
        return 4 * math.prod(dim.dim_value or self._batch_size for dim in dims)

    def _run_exact(self, names: set[str]) -> Iterator[Arrays]:
        """The tensors ``names`` of the FP32 model, for each feed."""
        import onnx

        model = onnx.load(str(self._path), load_external_data=False)
        given = {value.name for value in model.graph.input}
        wanted = sorted(names & self._exact.makers.keys())
        del model.graph.output[:]
        model.graph.output.extend(self._exact.declare(name) for name in wanted)
        tapped = self._path.with_name("tapped.onnx")  # beside the weights, if those are in a file
        onnx.save(model, str(tapped))
        session = start(tapped, fused=False) if wanted else None
        for feed in self._feeds:
            run = session.run(wanted, feed) if session else []
            yield {**dict(zip(wanted, run, strict=True)), **{n: feed[n] for n in given & names}}

    def _compare(
        self, graph: Graph, layers: list[Layer], cut: Cut, runs: list[Arrays], findings: Findings
    ) -> None:
        """All of ``layers`` in one session; fewer at once where the runtime refuses them."""
        layers = [
            layer for layer in layers if not self._is_empty(graph, layer, cut, runs, findings)
        ]
        if not layers:
            return
        sums = {layer.end: (0.0, 0.0) for layer in layers}
        around = dict.fromkeys(sums, 0.0)
        try:
            session = start(self._tapped(graph, layers, cut, runs[0]), fused=self._fused)
            inputs = [str(value.name) for value in session.get_inputs()]
            for exact in runs:
                given = {name: exact[cut.get(name, name)] for name in inputs}
                for layer, ours in zip(layers, session.run(None, given), strict=True):
                    found = powers(exact[layer.origin], ours)
                    sums[layer.end] = (sums[layer.end][0] + found[0], sums[layer.end][1] + found[1])
                    around[layer.end] += spread(exact[layer.origin])
        except Exception as error:  # the runtime's, of several types
            if len(layers) > 1:
                half = len(layers) // 2
                self._compare(graph, layers[:half], cut, runs, findings)
                self._compare(graph, layers[half:], cut, runs, findings)
                return
            why = f"has no kernel that runs it in 8 bits ({reason(error)})"
            findings.sqnr_db[layers[0].name] = -math.inf
            findings.faults.append(self._leave_nodes(graph, layers[0], cut, why))
            return
        for layer in layers:
            reached = decibels(*sums[layer.end])
            findings.sqnr_db[layer.name] = min(reached, findings.sqnr_db.get(layer.name, math.inf))
            apart = decibels(around[layer.end], sums[layer.end][1])
            findings.apart_db[layer.name] = min(apart, findings.apart_db.get(layer.name, math.inf))
            if reached < FLOOR_DB:
                findings.faults.append(self._blame(graph, layer, cut, runs[-1], reached))

    def _is_empty(
        self, graph: Graph, layer: Layer, cut: Cut, runs: list[Arrays], findings: Findings
    ) -> bool:
        """Whether there is nothing to compare. 8-bit kernels end the process on an empty tensor."""
        names = [name for name in (layer.end, *layer.segment.inputs) if name in graph.quantizers]
        empty = [cut[name] for name in names if any(run[cut[name]].size == 0 for run in runs)]
        if empty:
            findings.sqnr_db[layer.name] = -math.inf
            why = dict.fromkeys(empty, "had no element in a calibration sample")
            findings.faults.append(Fault(layer.name, {}, why, {}))
        return bool(empty) or any(run[layer.origin].size == 0 for run in runs)

    def _tapped(self, graph: Graph, layers: list[Layer], cut: Cut, exact: Arrays) -> Any:
        """``layers`` side by side, each from FP32's tensors to its own output in floating point."""
        from onnx import NodeProto, helper

        whole = graph.segment([layer.end for layer in layers], cut)
        nodes = []
        for node in whole.nodes:
            copy = NodeProto()
            copy.CopyFrom(node)
            # under its own name a tensor is what FP32 gives to the layers behind
            copy.output[:] = [_MADE + name if name in cut else name for name in node.output]
            nodes.append(copy)
        constants = dict.fromkeys(whole.constants)
        outputs = []
        for layer in layers:
            end = _MADE + layer.end if layer.end in cut else layer.end
            if (quantizer := graph.quantizers.get(layer.end)) is not None:
                scaling = quantizer.input[1:]
                constants |= dict.fromkeys(scaling)
                q, end = f"{end} in 8 bits", f"{end} back"
                how = {"domain": quantizer.domain}
                made = _MADE + layer.end
                nodes.append(helper.make_node("QuantizeLinear", [made, *scaling], [q], **how))
                nodes.append(helper.make_node("DequantizeLinear", [q, *scaling], [end], **how))
            outputs.append(self._typed(layer.origin, end, exact[layer.origin]))
        inputs = [self._typed(cut.get(n, n), n, exact[cut.get(n, n)]) for n in whole.inputs]
        return graph.build(Segment(nodes, whole.inputs, list(constants)), inputs, outputs)

    def _typed(self, name: str, alias: str, array: NDArray[Any]) -> Any:
        from onnx import helper

        if name in self._exact.types:
            return self._exact.declare(name, alias)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(alias, kind, None)

    def _blame(self, graph: Graph, layer: Layer, cut: Cut, exact: Arrays, reached: float) -> Fault:
        """Whether 8 bits cannot hold what goes out or in, or it is the arithmetic between."""
        own = graph.quantizers.get(layer.end)
        if own is not None and self._held(graph, own, exact[layer.origin]) < FLOOR_DB:
            return Fault(layer.name, {}, {layer.origin: _too_wide(exact[layer.origin])}, {})
        inputs = {
            cut[name]: in_8_bits(graph, graph.quantizers[name], exact[cut[name]])
            for name in layer.segment.inputs
            if name in graph.quantizers
        }
        if inputs and self._moved(layer, cut, exact, inputs) < FLOOR_DB:
            guilty = [
                name
                for name, array in inputs.items()
                if len(inputs) == 1 or self._moved(layer, cut, exact, {name: array}) < FLOOR_DB
            ]
            why = {name: _too_wide(exact[name]) for name in guilty or inputs}
            return Fault(layer.name, {}, why, {})
        why_node = f"computes something else in 8 bits ({reached:.1f} dB)"
        return self._leave_nodes(graph, layer, cut, why_node)

    def _held(self, graph: Graph, quantizer: Any, array: NDArray[Any]) -> float:
        return decibels(*powers(array, in_8_bits(graph, quantizer, array)))

    def _moved(self, layer: Layer, cut: Cut, exact: Arrays, inputs: Arrays) -> float:
        """How near the FP32 layer stays to itself if ``inputs`` are what 8 bits hold of them."""
        segment = self._exact.segment([layer.origin], set(cut.values()) - {layer.origin})
        if not segment.nodes or not exact.keys() >= set(segment.inputs):
            return math.inf
        types = [self._typed(name, name, exact[name]) for name in segment.inputs]
        output = self._typed(layer.origin, layer.origin, exact[layer.origin])
        session = start(self._exact_part(segment, types, [output]), fused=False)
        (found,) = session.run(None, {n: inputs.get(n, exact[n]) for n in segment.inputs})
        return decibels(*powers(exact[layer.origin], found))

    def _exact_part(self, segment: Segment, inputs: list[Any], outputs: list[Any]) -> Any:
        from onnx.external_data_helper import load_external_data_for_model

        part = self._exact.build(segment, inputs, outputs)
        load_external_data_for_model(part, str(self._path.parent))
        return part

    def _leave_nodes(self, graph: Graph, layer: Layer, cut: Cut, why: str) -> Fault:
        """All FP32 nodes of the layer; what goes in and out of it where they are left already."""
        segment = self._exact.segment([layer.origin], set(cut.values()) - {layer.origin})
        around = [layer.origin, *(cut.get(name, name) for name in layer.segment.inputs)]
        nodes = dict.fromkeys((node.name for node in segment.nodes), why)
        return Fault(layer.name, nodes, {}, dict.fromkeys(around, why))


def in_8_bits(graph: Graph, quantizer: Any, array: NDArray[Any]) -> NDArray[Any]:
    """``array`` after the QuantizeLinear ``quantizer`` and back, by its definition."""
    from onnx import numpy_helper

    scale, zero = (numpy_helper.to_array(graph.constants[name]) for name in quantizer.input[1:3])
    bounds = np.iinfo(zero.dtype)
    steps = np.rint(array.astype(np.float64) / scale) + zero
    held = (np.clip(steps, bounds.min, bounds.max) - zero) * scale.astype(np.float64)
    return np.asarray(held.astype(array.dtype))


def _too_wide(array: NDArray[Any]) -> str:
    low, high = (float(bound) for bound in (array.min(), array.max()))
    return f"has values from {low:.4g} to {high:.4g}, which 8 bits do not tell apart"


def _is_quantized(node: Any) -> bool:
    return QUANTIZED.fullmatch(node.op_type) is not None or node.op_type == "DequantizeLinear"
