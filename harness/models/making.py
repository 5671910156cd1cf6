"""`build`: what a run would load, made and described, and nothing run."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from harness import registry
from harness.errors import HarnessError, ModelError, UsageError
from harness.host.cache_root import default_root
from harness.models.builder_client import examine
from harness.models.packed import pack
from harness.models.prepare import prepare
from harness.models.prepared import Prepared
from harness.protocols import Compiler, Node, Proof, SessionOptions, TensorSpec, Wanted
from harness.spec import RunSpec


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing was built."""

    message: str
    remedy: str
    exit_code: int


class Building(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``nodes`` are those of the graph that the backend's parser was given; empty
    where the backend has no parser to ask. Sizes in bytes, times in seconds."""

    model: str
    backend: str
    precision: str
    format: str
    nodes: tuple[Node, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    size_bytes: int | None = None
    fp32_bytes: int | None = None
    sha256: str = ""
    seconds: float = 0.0  # from the model to the artifact, what was cached included
    facts: dict[str, str] = {}  # what the backend says of it
    proof: Proof | None = None  # of the quantization
    file: str | None = None
    file_bytes: int | None = None
    error: Refused | None = None


def build(spec: RunSpec, target: Path | None) -> Building:
    """Make the artifact of ``spec``, and write it to ``target``.

    What the runtime refuses is told by the `Building`. Raises `HarnessError` for what is wrong
    before it is asked, and where ``target`` cannot be written.
    """
    if target is not None and not target.absolute().parent.is_dir():
        raise UsageError(f"--output {target}: there is no such folder", "make it first")
    wanted = _wanted(spec)
    described = Building(
        model=spec.model, backend=spec.backend, precision=spec.precision, format=wanted.format
    )
    began = time.perf_counter()
    nodes: tuple[Node, ...] = ()
    try:
        if wanted.of is not None:
            nodes = tuple(examine(spec, wanted, default_root()))
        refuse(nodes, spec)
        prepared = prepare(spec, wanted)
    except HarnessError as error:
        if not nodes and not isinstance(error, ModelError):
            raise
        refused = Refused(message=error.message, remedy=error.remedy, exit_code=error.exit_code)
        return msgspec.structs.replace(described, nodes=nodes, error=refused)
    seconds = time.perf_counter() - began
    size = None if target is None else pack(prepared, spec, target)
    return msgspec.structs.replace(
        _filled(described, prepared),
        nodes=nodes,
        seconds=seconds,
        file=None if target is None else str(target),
        file_bytes=size,
    )


def _wanted(spec: RunSpec) -> Wanted:
    backend = registry.backend(spec.backend)
    options = SessionOptions(device=spec.device, options=spec.options)
    if isinstance(backend, Compiler):
        return backend.compiled(spec.conversion, options)
    return backend.wants(spec.conversion, options)


def refuse(nodes: tuple[Node, ...], spec: RunSpec) -> None:
    """Raises `ModelError` naming the first nodes that are not taken."""
    refused = [node for node in nodes if node.taken is False]
    if not refused:
        return
    named = "; ".join(f"node {n.name!r} ({n.type}): {n.reason}" for n in refused[:3])
    more = f" (and {len(refused) - 3} more)" if len(refused) > 3 else ""
    raise ModelError(
        f"{spec.backend} refuses {len(refused)} of {len(nodes)} "
        f"node{'s' * (len(nodes) > 1)}: {named}{more}",
        "replace the operators, or use another backend",
    )


def _filled(described: Building, prepared: Prepared) -> Building:
    artifact = prepared.artifact
    quantization = artifact.quantization
    return msgspec.structs.replace(
        described,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        size_bytes=artifact.size_bytes,
        fp32_bytes=prepared.model.file_size_bytes,
        sha256=artifact.sha256,
        facts=artifact.facts,
        proof=quantization.proof if quantization else None,
    )
