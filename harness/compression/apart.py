"""Names that tell apart what only the content of its files tells apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from harness.compression.model import Entry


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
