"""ONNX models of mixed precision: INT8 but for some layers, or FP32 but for one.

The layers are those of the proof: what lies between two quantized tensors (`Prover`), since that is
what can be left in FP32 without changing another layer. Calibration is done once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import QuantizationError
from harness.quantize.job import QuantizeJob
from harness.quantize.onnx import PROOF_SAMPLES, boundary, proven
from harness.quantize.onnx_calibration import feeds_of
from harness.quantize.onnx_make import WEIGHTED, Static, save
from harness.quantize.onnx_overflow import Overflow, overflows
from harness.quantize.onnx_prepare import prepare
from harness.quantize.onnx_proof import Findings, Prover

KEPT = "left in fp32 by the ledger"
_ALONE = "in fp32, so that one layer's cost shows"


class MixedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that runs in INT8, and the nodes of the FP32 model that it consists of.

    ``sqnr_db``: its output against FP32's, given FP32's own inputs; None where nothing differs.
    ``apart_db``: of the same, by what lies around the mean of the output.
    """

    name: str
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    sqnr_db: float | None
    apart_db: float | None = None


class Mixer:
    """Writes the variants of one model into ``folder``. Raises `QuantizationError`."""

    def __init__(self, source: Path, folder: Path, job: QuantizeJob) -> None:
        self._job, self._source = job, source
        self.fp32, self.int8 = folder / "fp32.onnx", folder / "int8.onnx"
        with boundary(source, job.libraries):
            prepare(source, self.fp32)
            samples = list(
                islice(feeds_of(self.fp32, job), max(1, PROOF_SAMPLES // job.batch_size))
            )
            self._maker = Static(self.fp32, job, symmetric=False)
            prover = Prover(self.fp32, samples, job.batch_size, fused=True)
            model, findings = proven(source, self._maker, prover)
            save(model, self.int8)
            self._left = dict(self._maker.left.nodes)
            self.layers = self._layers(prover.parts(model), findings)
            self.overflows: tuple[Overflow, ...] = overflows(model, samples, self.fp32)

    def _layers(
        self, parts: dict[str, tuple[str, ...]], findings: Findings
    ) -> tuple[MixedLayer, ...]:
        kinds = {n.name: str(n.op_type) for n in self._maker.left.graph.model.graph.node}
        found: dict[tuple[str, ...], MixedLayer] = {}
        for name, nodes in parts.items():
            weighted = [node for node in nodes if kinds[node] in WEIGHTED]
            found[nodes] = MixedLayer(
                name=weighted[0] if len(weighted) == 1 else name,
                nodes=nodes,
                operators=tuple(kinds[node] for node in nodes),
                sqnr_db=_finite(findings.sqnr_db.get(name)),
                apart_db=_finite(findings.apart_db.get(name)),
            )
        return tuple(found.values())

    def without(self, names: Sequence[str], target: Path) -> None:
        """INT8, with the layers ``names`` left in FP32."""
        kept = {node for layer in self._chosen(names) for node in layer.nodes}
        self._write(self._left | dict.fromkeys(kept, KEPT), target)

    def alone(self, name: str, target: Path) -> None:
        """FP32, with the layer ``name`` in INT8 and nothing else."""
        (layer,) = self._chosen([name])
        every = {node.name for node in self._maker.left.graph.model.graph.node}
        self._write(dict.fromkeys(every - set(layer.nodes), _ALONE) | self._left, target)

    def _chosen(self, names: Sequence[str]) -> list[MixedLayer]:
        known = {layer.name: layer for layer in self.layers}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise QuantizationError(f"{self._source.name} has no int8 layer {unknown[0]!r}")
        return [known[name] for name in names]

    def _write(self, left: dict[str, str], target: Path) -> None:
        with boundary(self._source, self._job.libraries):
            self._maker.left.nodes.clear()
            self._maker.left.nodes.update(left)
            model: Any = self._maker.make()
            save(model, target)


def _finite(decibels: float | None) -> float | None:
    return decibels if decibels is not None and abs(decibels) < float("inf") else None
