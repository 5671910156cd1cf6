"""Artifact files: what `harness.models.prepare` made on one machine, to be run on another."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from harness import maybe
from harness.errors import ModelError, UsageError
from harness.host.digest import sha256_of
from harness.host.files import atomically
from harness.models.cache import Cache
from harness.models.prepared import Prepared
from harness.protocols import Artifact
from harness.spec import RunSpec, flag, unparse
from harness.spec.artifact_file import FORMAT, MANIFEST, Manifest, Member, read_manifest
from harness.spec.fields import BUILDING
from harness.version import __version__

_CHUNK_BYTES = 1 << 20
_NATIVE = ("custom_ops",)  # an option that names native code is not taken from a file


class _Unpacked(msgspec.Struct, frozen=True):
    """The record of an unpacked file; its members lie beside it."""

    manifest: Manifest


def pack(prepared: Prepared, spec: RunSpec, target: Path) -> int:
    """Write ``prepared`` to ``target``, whole or not at all; its size in bytes.

    Raises `ModelError` for a model that is code, `ResultError` where the disk refuses.
    """
    members: dict[str, Path] = {}
    told = msgspec.structs.replace(
        prepared,
        artifact=_packed(prepared.artifact, "model", members),
        reference=prepared.reference and _packed(prepared.reference, "reference", members),
        inputs_path=_member(Path(prepared.inputs_path), "inputs.npz", members),
        evaluation_path=prepared.evaluation_path
        and _member(Path(prepared.evaluation_path), "data.npz", members),
    )
    manifest = Manifest(
        format=FORMAT,
        harness=__version__,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run=_run(spec),
        prepared=msgspec.to_builtins(told),
        files={
            name: Member(sha256_of([path]), path.stat().st_size) for name, path in members.items()
        },
    )
    with atomically(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        for name, path in members.items():
            packed.write(path, name)
    return target.stat().st_size


def _run(spec: RunSpec) -> dict[str, Any]:
    """What the run was asked for, of what decides the artifact."""
    options = {name: text for name, text in spec.options.items() if name not in _NATIVE}
    texts = unparse(msgspec.structs.replace(spec, options=options))
    return {name: value for name, value in texts.items() if name in BUILDING}


def _member(path: Path, name: str, members: dict[str, Path]) -> str:
    members[name] = path
    return name


def _packed(artifact: Artifact, stem: str, members: dict[str, Path]) -> Artifact:
    """``artifact`` with names of members for paths. A zoo model of torch has no file."""
    kind, _, where = artifact.source.partition(":")
    if artifact.format == "torch" and kind == "factory":
        raise ModelError(
            f"{where} is code, which no artifact holds", "export it: torch.export.save, or as ONNX"
        )
    path = Path(artifact.path) if artifact.path else None
    if path is None or (artifact.format == "torch" and kind == "zoo"):
        return artifact
    name = f"{stem}/{path.name}"
    members[name] = path
    for location in _external(artifact):
        members[f"{stem}/{location}"] = path.parent / location
    source = f"{kind}:{name}" if where == artifact.path else artifact.source
    return msgspec.structs.replace(artifact, path=name, source=source, bound="")


def _external(artifact: Artifact) -> tuple[str, ...]:
    """The files beside an ONNX graph that hold its weights."""
    if artifact.format != "onnx" or artifact.size_bytes <= Path(artifact.path).stat().st_size:
        return ()
    from harness.models.onnx_file import external_files

    return external_files(Path(artifact.path))


def unpack(spec: RunSpec, cache: Cache) -> Prepared:
    """What the file ``spec.artifact`` holds, unpacked in the cache.

    Raises `UsageError` where ``spec`` asks for something else, `ModelError` for a damaged file.
    """
    path = Path(str(spec.artifact))
    manifest = read_manifest(str(path))
    _check_same(spec, manifest, path)

    def build(folder: Path) -> _Unpacked:
        for name, target in _extracted(path, manifest, folder):
            if sha256_of([target]) != manifest.files[name].sha256:
                raise ModelError(
                    f"{path} is damaged: {name} is not what was packed", "copy it anew"
                )
        return _Unpacked(manifest)

    key = {"artifact": hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()}
    folder = cache.product("artifact", key, _Unpacked, build, light=True).folder
    found = maybe.convert(manifest.prepared, Prepared)
    return msgspec.structs.replace(
        found,
        artifact=_opened(found.artifact, folder),
        reference=found.reference and _opened(found.reference, folder),
        inputs_path=_path(folder, found.inputs_path),
        evaluation_path=found.evaluation_path and _path(folder, found.evaluation_path),
    )


def _opened(artifact: Artifact, folder: Path) -> Artifact:
    kind, _, where = artifact.source.partition(":")
    if artifact.format == "torch" and kind not in ("zoo", "pt2", "torchscript"):
        raise ModelError(f"the artifact names code, {artifact.source}", "build it from a file")
    if artifact.format == "torch" and kind == "zoo":
        return artifact
    path = _path(folder, artifact.path)
    source = f"{kind}:{path}" if where == artifact.path else artifact.source
    return msgspec.structs.replace(artifact, path=path, source=source)


def _path(folder: Path, name: str) -> str:
    return str(folder / _flat(name))


def _flat(name: str) -> str:
    """Where member ``name`` lies: below the folder, whatever the name is."""
    steps = PurePosixPath(name)
    if steps.is_absolute() or ".." in steps.parts or not steps.parts or "\\" in name:
        raise ModelError(f"the artifact has a member {name!r}", "build it anew")
    return str(steps)


def _extracted(path: Path, manifest: Manifest, folder: Path) -> Iterator[tuple[str, Path]]:
    try:
        with zipfile.ZipFile(path) as packed:
            for name in manifest.files:
                info, target = packed.getinfo(name), folder / _flat(name)
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ModelError(f"{path}: {name} is compressed", "build it anew")
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
                yield name, target
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is damaged: {error}", "copy it anew") from error


def _check_same(spec: RunSpec, manifest: Manifest, path: Path) -> None:
    """Raises `UsageError` naming the first field that the artifact was not built for."""
    built, asked = manifest.run, _run(spec)
    for name in sorted({*built, *asked} - {"options"}):
        if built.get(name) != asked.get(name):
            raise UsageError(
                f"{flag(name)} is {asked.get(name, 'the default')}, and {path} was built for "
                f"{built.get(name, 'the default')}",
                f"leave out {flag(name)}, or build another artifact",
            )
    lost = [text for text in built.get("options", ()) if text not in asked.get("options", ())]
    if lost:
        raise UsageError(
            f"{path} was built with --option {lost[0]}", "leave it as it is, or build another"
        )
