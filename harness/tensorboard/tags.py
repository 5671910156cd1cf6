"""The Compression Board's tags, ``{model}/{step}/{precision}``, told from everybody else's.

A training run may well log ``resnet/accuracy/val``. So a last step counts as a precision where it
looks like a number format (int8, fp16, bf16, nf4, w8a8, ...), or where the run itself declares its
model by ``{model}/metadata/info`` or ``{model}/compression/...``.

    {model}/latency/{precision}  [ms]        and _ci_low, _ci_high beside it where there is one
    {model}/latency_distribution/{precision}
    {model}/latency_by_launch/{precision}    a step a launch
    {model}/compression/{ratio}
    {model}/metadata/info                    see `harness.tensorboard.metadata`

Whoever writes them writes them here: runs, imports and `CompressionWriter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from harness.compression.entries import model_of, spec_info
from harness.compression.model import METRICS, Entry
from harness.host.names import tag_name
from harness.spec import RunSpec
from harness.tensorboard import layouts, metadata
from harness.tensorboard.events import Feed

LOW, HIGH = "_ci_low", "_ci_high"
LATENCIES = "latency_distribution"
BY_LAUNCH = "latency_by_launch"
_STEPS = {metric.tag for metric in METRICS.values()}
_FORMAT = re.compile(
    r"(?i)(?:^|[^a-z])(?:u?int|fp|float|bf|bfloat|tf|nf|mxfp|nvfp|w|q)\d|binary|ternary|mixed"
)
_TEXT_SUFFIX = "/text_summary"  # tensorboardX adds it to the tag of every text, and we once did


def is_format(name: str) -> bool:
    """Whether ``name`` looks like that of a number format."""
    return _FORMAT.search(name) is not None


class Tag(NamedTuple):
    """``{model}/{step}/{last}``; ``last`` is a precision, or a name under metadata/compression."""

    model: str
    step: str
    last: str


def parse(tag: str) -> Tag | None:
    """A tag of the board, or something that could be one; None for anything else."""
    parts = tag.removesuffix(_TEXT_SUFFIX).rsplit("/", 2)
    if len(parts) != 3 or not all(parts):
        return None
    found = Tag(*parts)
    step = found.step.removesuffix(LOW).removesuffix(HIGH)
    known = step in _STEPS or found.step in (LATENCIES, "compression")
    return found if known or found[1:] == ("metadata", "info") else None


def of_the_board(tags: Iterable[str]) -> dict[str, Tag]:
    """Those of one run's ``tags`` that are the board's, each with its parts."""
    parsed = {tag: found for tag in tags if (found := parse(tag)) is not None}
    declared = {tag.model for tag in parsed.values() if _declares(tag)}
    return {
        name: tag for name, tag in parsed.items() if tag.model in declared or is_format(tag.last)
    }


def _declares(tag: Tag) -> bool:
    return tag.step in ("metadata", "compression")


def write_running(feed: Feed, spec: RunSpec) -> None:
    """Say which model and precision is being measured, so that the tab can show it live."""
    entry = Entry(
        model=model_of(spec), precision=spec.precision, run="", status="running",
        info=spec_info(spec),
    )  # fmt: skip
    write_metadata(feed, entry.model, metadata.encode(entry.model, [entry], {}))


def write_run(feed: Feed, entry: Entry, latencies: dict[str, Any] | None) -> None:
    """All that one run has to say: figures, distribution (a histogram's fields), metadata."""
    write_figures(feed, entry)
    if latencies is not None:
        write_latencies(feed, entry.model, entry.precision, latencies)
    write_metadata(feed, entry.model, metadata.encode(entry.model, [entry], {}))


def write_layout(feed: Feed, model: str) -> None:
    """Charts of the CUSTOM SCALARS tab: FP32 over INT8 of ``model``."""
    feed.add(layouts.TAG, layouts.encoded(layouts.of_models([tag_name(model)])))


def write_figures(feed: Feed, entry: Entry) -> None:
    """The scalars of one precision, each with its interval where there is one."""
    for name in metadata.written_figures(entry):
        figure, stem = entry.figures[name], f"{tag_name(entry.model)}/{METRICS[name].tag}"
        feed.scalar(f"{stem}/{entry.precision}", figure.value)
        feed.scalar(f"{stem}{LOW}/{entry.precision}", figure.low)
        feed.scalar(f"{stem}{HIGH}/{entry.precision}", figure.high)


def write_ratios(feed: Feed, entry: Entry) -> None:
    """What ``entry`` gained and cost against its reference."""
    for name, value in entry.ratios.items():
        feed.scalar(f"{tag_name(entry.model)}/compression/{name}", value)
    if entry.aurora is not None:
        write_aurora(feed, entry.model, entry.aurora.score)


def write_aurora(feed: Feed, model: str, score: float) -> None:
    feed.scalar(f"{tag_name(model)}/compression/aurora", score)


def write_latencies(feed: Feed, model: str, precision: str, fields: dict[str, Any]) -> None:
    """``fields`` as `harness.stats.histogram.histogram_fields` gives them."""
    feed.histogram(f"{tag_name(model)}/{LATENCIES}/{precision}", fields)


def write_launch(feed: Feed, model: str, precision: str, fields: dict[str, Any]) -> None:
    """The latencies of one launch; its step is the launch."""
    feed.histogram(f"{tag_name(model)}/{BY_LAUNCH}/{precision}", fields)


def write_metadata(feed: Feed, model: str, said: str) -> None:
    """``said`` as `harness.tensorboard.metadata.encode` gives it."""
    feed.text(f"{tag_name(model)}/{metadata.TAG}", said)
