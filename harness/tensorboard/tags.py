"""The Compression Board's tags, ``{model}/{step}/{precision}``, told from everybody else's.

A training run may well log ``resnet/accuracy/val``. So a last step counts as a precision where it
looks like a number format (int8, fp16, bf16, nf4, w8a8, ...), or where the run itself declares its
model by ``{model}/metadata/info`` or ``{model}/compression/...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from harness.compression.model import METRICS

LOW, HIGH = "_ci_low", "_ci_high"
LATENCIES = "latency_distribution"
_STEPS = {metric.tag for metric in METRICS.values()}
_FORMAT = re.compile(
    r"(?i)(?:^|[^a-z])(?:u?int|fp|float|bf|bfloat|tf|nf|mxfp|nvfp|w|q)\d|binary|ternary|mixed"
)
_TEXT_SUFFIX = "/text_summary"  # tensorboardX adds it to the tag of every text


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
        name: tag
        for name, tag in parsed.items()
        if tag.model in declared or _FORMAT.search(tag.last)
    }


def _declares(tag: Tag) -> bool:
    return tag.step in ("metadata", "compression")
