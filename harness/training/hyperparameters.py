"""Which of several trainings did best: the rows of the HPARAMS tab, read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import DataError, UsageError
from harness.tensorboard.events import part
from harness.tensorboard.read import MARK, values

_SESSION = "_hparams_/session_start_info"


class Configuration(msgspec.Struct, frozen=True):
    """One training: its folder, what it was given, and the last value of each of its metrics."""

    folder: Path
    hparams: dict[str, str | bool | float]
    metrics: dict[str, float]


def configurations(logdir: Path | str) -> list[Configuration]:
    """Every training below ``logdir`` that logged hyperparameters, by folder. Raises `DataError`
    for events that cannot be read."""
    found = []
    folders = sorted({path.parent for path in Path(logdir).rglob(f"*{MARK}*")})
    for folder in folders:
        hparams, metrics = _read(sorted(p for p in folder.iterdir() if MARK in p.name))
        if hparams:
            found.append(Configuration(folder, hparams, metrics))
    return found


def best_configuration(
    logdir: Path | str, metric: str, mode: Literal["min", "max"] = "min"
) -> Configuration:
    """The one with the least (``max``: greatest) last value of ``metric``, as `log_hparams` was
    given it, or of any scalar by its tag below the model. The earlier folder of equals.

    Raises `UsageError` for another mode, `DataError` where no training has the metric.
    """
    if mode not in ("min", "max"):
        raise UsageError(f"mode is {mode!r}", "choose min or max")
    ranked = [(value, one) for one in configurations(logdir) for value in _of(one, metric)]
    if not ranked:
        raise DataError(
            f"no training below {str(logdir)!r} has hyperparameters and {metric!r}",
            "log them by TrainingLogger.log_hparams(hparams, metrics)",
        )
    sign = 1 if mode == "min" else -1
    return min(ranked, key=lambda pair: sign * pair[0])[1]


def _of(one: Configuration, metric: str) -> Iterator[float]:
    names = [name for name in one.metrics if name.endswith((f"/hparams/{metric}", f"/{metric}"))]
    for name in [metric, *sorted(names, key=len)]:
        value = one.metrics.get(name, math.nan)
        if math.isfinite(value):
            yield value
            return


def _read(files: list[Path]) -> tuple[dict[str, str | bool | float], dict[str, float]]:
    hparams: dict[str, str | bool | float] = {}
    metrics: dict[str, float] = {}
    for _, value in values(files):
        if value.WhichOneof("value") == "simple_value":
            metrics[value.tag] = value.simple_value
        elif value.tag == _SESSION:
            hparams |= _session(value.metadata.plugin_data.content)
    return hparams, metrics


def _session(content: bytes) -> dict[str, str | bool | float]:
    said = part("proto.plugin_hparams_pb2").HParamsPluginData.FromString(content)
    return {name: _value(one) for name, one in said.session_start_info.hparams.items()}


def _value(one: Any) -> str | bool | float:
    """Of a `google.protobuf.Value`."""
    found: str | bool | float = getattr(one, one.WhichOneof("kind") or "string_value")
    return found
