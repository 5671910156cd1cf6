"""What an event file says about a model beside its scalars: ``{model}/metadata/info``.

A text event holding JSON in a fenced block, which TensorBoard's TEXT tab shows as it is:

    {"schema": "harness.board/1", "model": "resnet18", "info": {"library": "torchvision", ...},
     "entries": [{"precision": "int8", "status": "imported", "random_weights": false,
                  "units": {"latency": "ms", "energy": "mW"},  by tag
                  "missing": {"energy_j": "why"}, "derived": {"energy_j": "how"}, "info": {...}}]}

``harness run`` writes the fields of its only entry beside ``model``, without ``entries``. The model
and precision here are the true names; those in tags have no control characters and no great length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from harness.board.model import METRICS, Entry

SCHEMA = "harness.board/1"
TAG = "metadata/info"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model at one precision; ``units`` by tag, ``missing`` and ``derived`` by metric."""

    precision: str
    status: str = "imported"
    random_weights: bool = False
    units: dict[str, str] = {}
    missing: dict[str, str] = {}
    derived: dict[str, str] = {}
    info: dict[str, str] = {}


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    schema: str = SCHEMA
    info: dict[str, str] = {}
    entries: tuple[Facts, ...] = ()


def facts_of(entry: Entry, info: Mapping[str, str]) -> Facts:
    """The facts of ``entry`` but for the ``info`` that all of its model share."""
    return Facts(
        precision=entry.precision,
        status=entry.status,
        random_weights=entry.random_weights,
        units=units(entry),
        missing=entry.missing,
        derived=entry.derived,
        info={key: text for key, text in entry.info.items() if info.get(key) != text},
    )


def units(entry: Entry) -> dict[str, str]:
    """The unit of each tag that is written. Energy is in mW where the source gave power."""
    written = [METRICS[name] for name in written_figures(entry)]
    return {metric.tag: metric.unit for metric in written if metric.unit}


def written_figures(entry: Entry) -> list[str]:
    """The metrics that have a tag of their own: one of power and the energy derived from it."""
    power = "power_mw" in entry.figures and "energy_j" in entry.derived
    skipped = "energy_j" if power or "energy_j" not in entry.figures else "power_mw"
    return [name for name in entry.figures if name in METRICS and name != skipped]


def encode(entries: Sequence[Entry]) -> str:
    """The text event of one model's entries. Raises `ValueError` for text that is no Unicode."""
    first = entries[0]
    shared = {
        key: text
        for key, text in first.info.items()
        if all(entry.info.get(key) == text for entry in entries)
    }
    facts = tuple(facts_of(entry, shared) for entry in entries)
    data = msgspec.json.encode(Metadata(model=first.model, info=shared, entries=facts))
    return f"```json\n{msgspec.json.format(data, indent=2).decode()}\n```"


def decode(text: str) -> Metadata | None:
    """What `encode` or ``harness run`` wrote; None for any other text, however hostile."""
    body = text.strip().removeprefix("```json").removesuffix("```")
    try:
        raw = msgspec.json.decode(body)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            return None
        if "entries" not in raw and "precision" in raw:
            raw = {**raw, "entries": [raw], "info": {}}
        return msgspec.convert(raw, Metadata)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
