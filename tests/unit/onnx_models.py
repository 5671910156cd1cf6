"""ONNX models of a few nodes, and what a run makes of them without its processes and clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from harness import registry
from harness.engine.wire.messages import Job, Verified
from harness.engine.worker.verify import verify
from harness.models.cache import Cache
from harness.models.prepare import Prepared, assemble
from harness.protocols import SessionOptions
from harness.spec import parse

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
    domains: Mapping[str, int] | None = None,
    **more: Any,
) -> Path:
    """A model of opset 17, or of ``domains``; ``constants`` become initializers."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opsets = [helper.make_opsetid(d, v) for d, v in {"": 17, **(domains or {})}.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)
    path.write_bytes(model.SerializeToString())
    return path


def prepared(path: Path, **fields: Any) -> Prepared:
    """As a builder prepares it, in a cache beside the model."""
    cache = Cache(path.parent / "cache", building=True)
    spec = parse({"model": str(path), **fields})
    options = SessionOptions(device=spec.device, options=spec.options)
    return assemble(spec, registry.backend(spec.backend).wants(spec.precision, options), cache)


def measured(path: Path, inferences: int = 3, **fields: Any) -> tuple[Prepared, Verified]:
    """Prepared, run a few times as the timed loop does, and verified."""
    spec, made = parse({"model": str(path), **fields}), prepared(path, **fields)
    backend = registry.backend("onnxruntime")
    options = SessionOptions(options=spec.options)
    with np.load(made.inputs_path) as arrays:
        session = backend.prepare(made.artifact, dict(arrays), options)
    for _ in range(inferences):
        session.enqueue()
        session.synchronize()
    job = Job(
        artifact=made.artifact,
        inputs_path=made.inputs_path,
        options=options,
        batch_size=spec.batch_size,
        reference=made.reference,
        evaluation_path=made.evaluation_path,
        evaluation_name=made.evaluation_name,
        scores=spec.scores,
    )
    try:
        return made, verify(backend, session, job)
    finally:
        session.close()
