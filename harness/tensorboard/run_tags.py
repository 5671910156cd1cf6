"""The tags by which TensorBoard's COMPRESSION tab knows a run: model and precision in each.

    {model}/metadata/info                    JSON: status, units, what is missing and why
    {model}/latency/{precision}  [ms]        and _ci_low, _ci_high beside it where there is one
    {model}/latency_distribution/{precision}

The metadata is written twice: when the first event is (status ``running``), and at the end.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from harness.compression.entries import model_of, spec_info
from harness.compression.model import METRICS, Entry
from harness.spec import RunSpec

SCHEMA = "harness.board/1"


class Feed(Protocol):
    """Events that share a step."""

    def scalar(self, tag: str, value: float | None) -> None: ...

    def histogram(self, tag: str, fields: dict[str, Any]) -> None: ...

    def text(self, tag: str, markdown: str) -> None: ...


def write_running(feed: Feed, spec: RunSpec) -> None:
    """Say which model and precision is being measured, so that the tab can show it live."""
    entry = Entry(
        model=model_of(spec), precision=spec.precision, run="", status="running",
        info=spec_info(spec),
    )  # fmt: skip
    feed.text(f"{entry.model}/metadata/info", metadata(entry))


def write_entry(feed: Feed, entry: Entry, latencies: dict[str, Any] | None) -> None:
    """Every figure of ``entry``, the distribution (fields of a histogram event), the metadata."""
    for name, figure in entry.figures.items():
        tag = METRICS[name].tag
        feed.scalar(f"{entry.model}/{tag}/{entry.precision}", figure.value)
        feed.scalar(f"{entry.model}/{tag}_ci_low/{entry.precision}", figure.low)
        feed.scalar(f"{entry.model}/{tag}_ci_high/{entry.precision}", figure.high)
    if latencies is not None:
        feed.histogram(f"{entry.model}/latency_distribution/{entry.precision}", latencies)
    feed.text(f"{entry.model}/metadata/info", metadata(entry))


def metadata(entry: Entry) -> str:
    """JSON in a fenced block, which TensorBoard's TEXT tab shows as it is."""
    facts = {
        "schema": SCHEMA,
        "model": entry.model,
        "precision": entry.precision,
        "status": entry.status,
        "random_weights": entry.random_weights,
        "units": {METRICS[n].tag: METRICS[n].unit for n in entry.figures if METRICS[n].unit},
        "missing": entry.missing,
        "info": entry.info,
    }
    return f"```json\n{msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()}\n```"
