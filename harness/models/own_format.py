"""Artifacts in a format that a backend brings, made by the backend of one that we make."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness import registry
from harness.errors import ModelError, UsageError
from harness.models.cache import Cache
from harness.protocols import Artifact, ArtifactMaker, SessionOptions
from harness.spec import RunSpec

_FILE = "artifact"


class _Made(msgspec.Struct, frozen=True):
    source_sha256: str
    facts: dict[str, str] = {}


def convert(
    spec: RunSpec, format: str, source: Artifact, inputs_path: str, cache: Cache
) -> Artifact:
    """``source`` in the ``format`` of ``spec.backend``; it will be run on ``inputs_path``.

    No hash of ours foretells what a stranger's code makes, so it is asked every time. Raises
    `UsageError` for a backend that makes none, `ModelError` where it makes no file, or
    `NeedsBuilder`.
    """
    target = f"{_FILE}.{source.precision}"

    def build(folder: Path) -> _Made:
        maker = registry.backend(spec.backend)
        if not isinstance(maker, ArtifactMaker):
            raise UsageError(
                f"no model comes as {format!r}, and {spec.backend} does not make it",
                "give the backend a method make_artifact",
            )
        options = SessionOptions(device=spec.device, options=spec.options)
        bound = msgspec.structs.replace(source, bound=inputs_path)
        facts = maker.make_artifact(bound, folder / target, options)
        if not (folder / target).is_file():
            raise ModelError(
                f"{spec.backend} made no file of {spec.model!r}", "repair its make_artifact"
            )
        return _Made(source.sha256, dict(facts or {}))

    made = cache.by_content("own-format", _Made, build, f"{spec.backend} {format}")
    return msgspec.structs.replace(
        source,
        format=format,
        facts=made.record.facts,
        path=str(made.folder / target),
        sha256=made.files[target].sha256,
        size_bytes=sum(stamp.size_bytes for stamp in made.files.values()),
    )
