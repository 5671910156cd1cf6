"""Logs of scripts that draw FP32 over INT8 with ``add_scalars("resnet18/latency", {...})``.

A SummaryWriter gives each curve a run of its own, and the precision is that run's name:

    tensorboardX   runs/resnet18/latency/fp32    tag resnet18/latency
    torch          runs/resnet18_latency_fp32    tag resnet18/latency

The curves of one writer are one entry a precision. Only the board's own metrics count, and only
what looks like a number format is a precision, for a training draws its curves alike.
"""

from __future__ import annotations

import math
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.compression.model import METRICS, NEVER_ZERO, Entry, Figure
from harness.tensorboard.tags import is_format

# as the guides' scripts call them, beside the board's own names
_ALSO = {"size": "model_size_mb", "inference_time": "latency_ms", "energy_consumption": "energy_j"}
_BY_TAG = {metric.tag: name for name, metric in METRICS.items() if name != "power_mw"} | _ALSO
_BY_TAG |= {name: name for name in METRICS}
_NO_UNIT = "an energy was logged without its unit: neither J nor mW is said"


class _Curve(NamedTuple):
    writer: str  # the folder that the SummaryWriter was given
    model: str
    metric: str
    precision: str
    value: float


def added_up(runs: Mapping[str, Mapping[str, float]]) -> list[Entry]:
    """One entry per writer, model and precision. ``runs``: their scalars by tag."""
    found: defaultdict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for name, scalars in sorted(runs.items()):
        for curve in _curves(name, scalars):
            found[curve.writer, curve.model, curve.precision][curve.metric] = curve.value
    return [_entry(*key, values) for key, values in found.items()]


def is_curve(run: str, tag: str) -> bool:
    """Whether ``tag`` of ``run`` is a precision's curve as `added_up` reads them."""
    return next(_curves(run, {tag: 0.0}), None) is not None


def _curves(run: str, scalars: Mapping[str, float]) -> Iterator[_Curve]:
    for tag, value in scalars.items():
        model, _, step = tag.rpartition("/")
        metric = _BY_TAG.get(step.lower())
        if not model or metric is None:
            continue
        for joined in (f"{tag}/", f"{tag.replace('/', '_')}_"):
            before, found, precision = _split(run, joined)
            if found and is_format(precision):
                yield _Curve(before, model, metric, precision, value)
                break


def _split(run: str, joined: str) -> tuple[str, bool, str]:
    """``runs``, True, ``fp32`` of ``runs/resnet18/latency/fp32``; False where it ends otherwise."""
    at = f"/{run}".rfind(f"/{joined}")
    rest = run[at + len(joined) :]
    if at < 0 or not rest or "/" in rest:
        return "", False, ""
    return posixpath.normpath(run[:at] or "."), True, rest


def _entry(writer: str, model: str, precision: str, values: Mapping[str, float]) -> Entry:
    sound = {
        name: value for name, value in values.items()
        if math.isfinite(value) and not (value == 0 and name in NEVER_ZERO)
    }  # fmt: skip
    broken = {name: f"the event file holds {value:g}, which is no measurement"
              for name, value in values.items() if name not in sound}  # fmt: skip
    if "energy_j" in sound:
        del sound["energy_j"]
        broken["energy_j"] = _NO_UNIT
    return Entry(
        model=model, precision=precision, run=writer, status="imported",
        figures={name: Figure(value) for name, value in sound.items()}, missing=broken,
        info={"logged_by": "add_scalars"},
    )  # fmt: skip
