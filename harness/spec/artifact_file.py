"""What an artifact file says of itself: a zip of what `harness build` made, with `MANIFEST` in it.

    artifact.json    the fields of the run that it was built for, and what the other members are
    model...         the engine, graph or program
    reference...     the FP32 one that it is held against
    inputs.npz       what it is run on; data.npz: what its accuracy is measured on

Members are stored as they are, never compressed, so that nothing in it is larger than the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import UsageError

MANIFEST = "artifact.json"
FORMAT = "harness.artifact/1"
_LIMIT_BYTES = 16 << 20


class Member(msgspec.Struct, frozen=True):
    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``run`` holds texts as `harness.spec.parse` takes them; ``prepared`` is a `Prepared` in
    builtins whose paths are names of members."""

    format: str
    harness: str
    built_at: str
    run: dict[str, Any]
    prepared: Any
    files: dict[str, Member]


def read_manifest(path: str) -> Manifest:
    """Raises `UsageError` for what is no artifact file, or one of a newer format."""
    remedy = "give a file that harness build wrote"
    try:
        with zipfile.ZipFile(path) as packed:
            info = packed.getinfo(MANIFEST)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > _LIMIT_BYTES:
                raise UsageError(f"{path} is no artifact: its manifest is too large", remedy)
            text = packed.read(info)
        found = msgspec.json.decode(text, type=Manifest)
    except OSError as error:
        raise UsageError(
            f"--artifact {path} cannot be read: {error.strerror or error}", remedy
        ) from error
    except (zipfile.BadZipFile, KeyError, msgspec.MsgspecError, NotImplementedError) as error:
        raise UsageError(f"--artifact {path} is no artifact of Harness", remedy) from error
    if found.format != FORMAT:
        raise UsageError(
            f"--artifact {path} is of the format {found.format}, not {FORMAT}",
            "build it with the same version of Harness as runs it",
        )
    return found


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with what the artifact that they name was built for, where they do not say."""
    path = values.get("artifact")
    if not path:
        return dict(values)
    built = read_manifest(str(path)).run
    given = {name: value for name, value in values.items() if value not in (None, ())}
    merged = {**built, **given}
    if "options" in built:
        merged["options"] = [*built["options"], *_others(built["options"], given.get("options"))]
    merged["artifact"] = str(Path(str(path)).absolute())
    return merged


def _others(built: list[str], given: Any) -> list[str]:
    """Options that the artifact was not built with: a run may add to them, not change them."""
    return [text for text in given or [] if text not in built]
