"""What an event file says about a model beside its scalars: ``{model}/metadata/info``.

A text event holding JSON in a fenced block, which TensorBoard's TEXT tab shows as it is:

    {"schema": "harness.board/1", "model": "resnet18",
     "precisions": {"int8": {"status": "imported", "random_weights": false,
                             "reference": "fp32",
                             "units": {"latency": "ms", "energy": "mW"},
                             "missing": {"f1_score": "why"}, "derived": {"energy_j": "how"},
                             "info": {"library": "torchvision", "evaluated_on": "cpu"},
                             "aurora": null}}}

A run writes it twice: with its first event (status ``running``), and at its end. Older ones, which
had one precision, wrote its facts beside ``model``. ``units`` goes by tag, ``missing`` and
``derived`` by metric. The model's name here is the true one; in a tag it has no control characters
and no great length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.compression.model import METRICS, Entry

SCHEMA = "harness.board/1"
TAG = "metadata/info"


def written_figures(entry: Entry) -> list[str]:
    """The metrics that have a tag of their own.

    Power and energy share the tag ``energy``: it holds what was measured, the power in mW where the
    joules were derived from it.
    """
    by_power = "power_mw" in entry.figures and (
        "energy_j" in entry.derived or "energy_j" not in entry.figures
    )
    skipped = "energy_j" if by_power else "power_mw"
    return [name for name in entry.figures if name in METRICS and name != skipped]


def encode(model: str, entries: Sequence[Entry], info: Mapping[str, str]) -> str:
    """The text event of one model's entries. Raises `UnicodeEncodeError`."""
    said = {
        "schema": SCHEMA,
        "model": model,
        "info": info,
        "precisions": {entry.precision: _facts(entry) for entry in entries},
    }
    return f"```json\n{msgspec.json.format(msgspec.json.encode(said), indent=2).decode()}\n```"


def _facts(entry: Entry) -> dict[str, Any]:
    metrics = [METRICS[name] for name in written_figures(entry)]
    return {
        "status": entry.status,
        "random_weights": entry.random_weights,
        "reference": entry.reference,
        "units": {metric.tag: metric.unit for metric in metrics if metric.unit},
        "missing": entry.missing,
        "derived": entry.derived,
        "info": entry.info,
        "aurora": entry.aurora,
    }
