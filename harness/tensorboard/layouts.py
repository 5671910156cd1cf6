"""Layouts of the CUSTOM SCALARS tab: which curves share a chart.

A layout is ``{category: {chart: [tag, ...]}}``; a tag may be a regular expression. TensorBoard
wants the names of charts unique in a run, and takes one layout a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError
from harness.tensorboard.events import part

TAG = "custom_scalars__config__"
Layout = Mapping[str, Mapping[str, Sequence[str]]]

TRAINING: dict[str, dict[str, list[str]]] = {
    "Training over validation": {
        "loss": ["(training|validation)/loss$"],
        "accuracy": ["(training|validation)/accuracy$"],
        "F1 score": ["(training|validation)/f1_score$"],
    },
    "Progress by step": {
        "by step": ["training/step/.*"],
        "learning rate": ["training/learning_rate.*"],
        "gradient and weight norms": ["training/(gradients|weights)/total_norm"],
    },
}
# FP32 over INT8, and whatever precision there is besides
COMPRESSION: dict[str, list[str]] = {
    "latency [ms]": ["latency/[^/]+"],
    "accuracy": ["accuracy/[^/]+"],
    "size [MB]": ["model_size/[^/]+"],
    "memory [MB]": ["memory/[^/]+"],
    "energy": ["energy/[^/]+"],
    "ratios": ["compression/.*"],
}
# of a run of ours, while it goes
LIVE: dict[str, dict[str, list[str]]] = {
    "While it goes": {
        "median latency [ms]": ["latency/median_ms"],
        "throughput [1/s]": ["throughput/per_s"],
        "processor": ["utilization/.*"],
        "memory of the machine": ["memory/.*"],
        "power": ["power/.*"],
    }
}


def below(model: str, layout: Layout) -> dict[str, dict[str, list[str]]]:
    """``layout`` with every tag below ``model``."""
    return {
        category: {
            chart: [f"^{re.escape(model)}/{tag.removeprefix('^')}" for tag in tags]
            for chart, tags in charts.items()
        }
        for category, charts in layout.items()
    }


def of_models(models: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """A category a model (its name as in tags), FP32 over INT8 in each chart."""
    return {
        model: {
            f"{model}: {chart}": [f"^{re.escape(model)}/{tag}$" for tag in tags]
            for chart, tags in COMPRESSION.items()
        }
        for model in models
    }


def encoded(layout: Layout) -> dict[str, Any]:
    """The layout as an event's value. Raises `DataError` for one of another form, for a chart's
    name that comes twice, and for a tag that is no regular expression."""
    charts = [chart for found in _checked(layout).values() for chart in found]
    if twice := next((chart for chart in charts if charts.count(chart) > 1), None):
        raise DataError(f"the chart {twice!r} is there twice", "give each a name of its own")
    made = {
        category: {chart: ["Multiline", [*tags]] for chart, tags in found.items()}
        for category, found in layout.items()
    }
    (value,) = part("summary").custom_scalars(made).value
    return {"metadata": value.metadata, "tensor": value.tensor}


def _checked(layout: Any) -> Layout:
    form = "give {category: {chart: [tag, ...]}}"
    if not isinstance(layout, Mapping):
        raise DataError(f"a layout of type {type(layout).__name__}", form)
    for charts in layout.values():
        if not isinstance(charts, Mapping):
            raise DataError(f"a category of type {type(charts).__name__}", form)
        for chart, tags in charts.items():
            if isinstance(tags, str) or not isinstance(tags, Sequence):
                raise DataError(f"the tags of {chart!r} are {tags!r:.40}", form)
            for tag in tags:
                _check_tag(tag)
    return layout


def _check_tag(tag: Any) -> None:
    try:
        re.compile(tag)
    except (TypeError, re.error) as error:
        raise DataError(f"the tag {tag!r:.60} is no regular expression: {error}") from error
