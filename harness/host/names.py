"""Folder and tag names from model names, which are untrusted text."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from harness.compression.model import Entry

_TAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=@-]{0,99}")
_DIGEST = re.compile(r".*-[0-9a-f]{10}")
_LONGEST_TAG = 200


def run_name(model: str) -> str:
    """The name of a model's run folder: the same every time, and another for every other model.

    A tame name is its own. Any other becomes tame by replacing what is not, and unique by a digest
    of the true name, as does a name that looks as if it had one.
    """
    if _TAME.fullmatch(model) and not _DIGEST.fullmatch(model):
        return model
    tame = re.sub(r"[^A-Za-z0-9_.+=@-]+", "_", model)[:80].strip("._-")
    return f"{tame or 'model'}-{_digest(model)}"


def tag_name(model: str) -> str:
    """The name as it stands in tags: any script, slashes and spaces, but nothing unprintable.

    No empty step and none of a dot or two, which a reader of paths could stumble over.
    """
    printable = "".join(char if char.isprintable() else " " for char in model)
    steps = [" ".join(step.split()) for step in printable.split("/")]
    name = "/".join(step for step in steps if step.strip("."))
    if len(name) > _LONGEST_TAG:
        name = f"{name[:_LONGEST_TAG].rstrip('/ ')}...{_digest(model)}"
    return name or f"model-{_digest(model)}"


def told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Model files of one name and different contents under names of their own.

    With its folder where that is enough to tell a content from the others, else with the beginning
    of the content's hash. An entry that does not know its content yet has that of its folder.
    """
    named: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if "model_path" in entry.info:
            named[entry.model].append(entry)
    names = {id(entry): name for alike in named.values() for entry, name in _names(alike)}
    return [
        msgspec.structs.replace(entry, model=names.get(id(entry), entry.model)) for entry in entries
    ]


def _names(alike: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Each entry of one file name with what tells its content apart."""
    contents = {e.info["model_path"]: e.info["model_sha256"] for e in alike
                if "model_sha256" in e.info}  # fmt: skip
    paths: defaultdict[str, set[str]] = defaultdict(set)
    found = []
    for entry in alike:
        path = entry.info["model_path"]
        content = entry.info.get("model_sha256") or contents.get(path, path)
        paths[content].add(path)
        found.append((entry, content))
    times = Counter(path for those in paths.values() for path in those)
    for entry, content in found:
        path = min(paths[content], key=lambda one: (times[one], len(one), one))
        told = path if times[path] == 1 else f"{path}@{content[:8]}"
        yield entry, entry.model if len(paths) == 1 else told


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
