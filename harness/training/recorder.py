"""What every logging method shares: the step counter, tags, refusal of NaN, and alerts.

Names are given below the model: ``training/loss`` becomes the tag ``{model}/training/loss``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import operator
import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.errors import DataError, ResultError, UsageError
from harness.host.names import tame
from harness.tensorboard import events, layouts
from harness.training import arrays, pictures
from harness.training.alerts import Alarms, Alert, TrainingAlert
from harness.training.events import NoEvents, QuietEventFile
from harness.training.measures import Array, bins

_CELL_LENGTH = 500  # characters of a value in a table


class Recorder:
    """The events of one model in one run folder."""

    def __init__(
        self,
        model_name: str,
        logdir: Path,
        alarms: Alarms,
        on_alert: Callable[[Alert], object] | None,
        raise_on: Collection[str],
        enabled: bool = True,
    ) -> None:
        self.model = model_tag(model_name)
        self.events: QuietEventFile | NoEvents
        if enabled:
            self.folder, self.events = _begin(logdir, self.model)
        else:
            self.folder, self.events = logdir, NoEvents()
        self.step = 0
        self.alerts: list[Alert] = []
        self._alarms = alarms
        self._on_alert = on_alert
        self._raise_on = raise_on
        self._seen: set[Hashable] = set()
        self._tags: dict[str, str] = {}
        self._lost: set[str] = set()  # what was not finite when it last came

    # -- steps -----------------------------------------------------------------------------------

    def next_step(self, count: int = 1) -> None:
        self.step += count
        self._seen.clear()

    def at(self, step: int | None, subject: Hashable) -> int:
        """``step``, or the counter's; a subject that comes again has begun the next step."""
        if step is not None:
            return _checked(step)
        if subject in self._seen:
            self.next_step()
        self._seen.add(subject)
        return self.step

    # -- events ----------------------------------------------------------------------------------

    def scalar(self, name: str, value: Any, step: int) -> None:
        """One point; an alert instead where ``value`` is not finite. Raises `DataError`."""
        number = value if type(value) is float else arrays.to_float(name, value)
        finite = math.isfinite(number)
        usual = finite and name not in self._lost  # and in every step, so it is short
        if usual or self._is_finite(name, 0 if finite else 1, step):
            self.events.add(self._tags.get(name) or self._tag(name), number, step)

    def scalars(self, prefix: str, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            if value is not None:
                self.scalar(f"{prefix}/{name}", value, step)

    def histogram(self, name: str, values: Any, step: int) -> None:
        """Of at most `arrays.SAMPLE` of ``values``; those that are not finite are left out."""
        found = bins(arrays.sample(values))
        if found is not None:
            self.events.add(self._tag(name), events.histogram(found), step)

    def text(self, name: str, markdown: str, step: int) -> None:
        self.events.add(self._tag(name), events.text(markdown), step)

    def image(self, name: str, image: pictures.Picture, step: int) -> None:
        height, width = image.shape[:2]
        value = events.image(pictures.png(image), height, width)
        self.events.add(self._tag(name), value, step)

    def png(self, name: str, png: bytes, height: int, width: int, step: int) -> None:
        """A picture that is a PNG file already."""
        self.events.add(self._tag(name), events.image(png, height, width), step)

    def hparams(self, values: Mapping[str, object], metrics: Sequence[str], step: int) -> None:
        """``values`` as TensorBoard keeps them: numbers, truth values, texts."""
        row = {name: value if isinstance(value, bool) else _plain(value)
               for name, value in values.items() if value is not None}  # fmt: skip
        columns = {f"{self.model}/{name}": 0.0 for name in metrics}
        for tag, fields in events.hparams({"model": self.model, **row}, columns):
            self.events.add(tag, fields, step)

    def layout(self, layout: Mapping[str, Mapping[str, Sequence[str]]], step: int) -> None:
        self.events.add(layouts.TAG, layouts.encoded(layouts.below(self.model, layout)), step)

    def finite(self, name: str, values: Any, step: int) -> Array | None:
        """``values`` as an array; None and an alert where some are not finite."""
        array = arrays.to_numpy(values)
        lost = int(array.size - np.isfinite(array).sum())
        return array if self._is_finite(name, lost, step) else None

    def _is_finite(self, name: str, lost: int, step: int) -> bool:
        if lost:
            self._lost.add(name)
        else:
            self._lost.discard(name)
        rule = "non_finite_loss" if "loss" in name.rpartition("/")[2] else "non_finite_value"
        self.check(rule, lost, step, name)
        return not lost

    def _tag(self, name: str) -> str:
        tag = self._tags[name] = f"{self.model}/{_printable(name)}"
        return tag

    # -- alerts ----------------------------------------------------------------------------------

    def check(self, rule: str, value: float, step: int, subject: str = "") -> None:
        """Tell of an onset in every way that was asked for. Raises `TrainingAlert` if it was."""
        alert = self._alarms.check(rule, value, step, subject)
        if alert is None and not self._alarms.changed:
            return
        tag = f"training/alerts/{rule}"
        self.events.add(self._tag(tag), float(self._alarms.active(rule)), step)
        if alert is None:
            return
        self.alerts.append(alert)
        place = f"{rule}/{subject}" if subject else rule
        self.text(f"training/alerts/text/{place}", f"step {step}: {cell(alert.message)}", step)
        if self._on_alert is not None:
            self._on_alert(alert)
        if rule in self._raise_on:
            raise TrainingAlert(alert.message)


def _plain(value: object) -> float | str:
    """A hyperparameter: a finite number as it is, anything else as text."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return " ".join(str(value).split())[:_CELL_LENGTH]


def _checked(step: int) -> int:
    """Raises `DataError` for what an event cannot hold."""
    try:
        number = operator.index(step)
    except TypeError as error:
        raise DataError(f"step {step!r:.40} is no whole number") from error
    if abs(number) >= 1 << 63:
        raise DataError(f"step {number} is beyond 64 bits")
    return number


def model_tag(model_name: str) -> str:
    """The name as the first steps of a tag. Raises `UsageError` for one without a letter."""
    tag = "/".join(filter(None, map(str.strip, _printable(model_name)[:120].split("/"))))
    if not re.search(r"[^\W_]", tag):
        raise UsageError(f"{model_name!r} names no model", "give a name with letters")
    return tag


def _printable(name: str) -> str:
    return name if name.isprintable() else "".join(c if c.isprintable() else "_" for c in name)


def folder_name(name: str, length: int = 60) -> str:
    """``name`` as a folder's: tame characters, no separator, never empty or hidden."""
    return tame(name, length, filler="-") or "unnamed"


def _begin(logdir: Path, model: str) -> tuple[Path, QuietEventFile]:
    """A new folder ``training-MODEL-TIME`` in ``logdir``, and its event file."""
    name = f"training-{folder_name(model)}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        folder = _new_folder(logdir.absolute(), name)
        return folder, QuietEventFile(folder)
    except (OSError, ValueError) as error:  # a null character in the path
        cause = getattr(error, "strerror", None) or str(error)
        raise ResultError(
            f"log folder {str(logdir)!r} cannot be written: {cause}", "name a writable folder"
        ) from error


def _new_folder(logdir: Path, name: str) -> Path:
    number = 1
    while True:
        path = logdir / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


# -- markdown ------------------------------------------------------------------------------------


def table(rows: Mapping[str, object], head: tuple[str, str] = ("name", "value")) -> str:
    """A markdown table; nested mappings become dotted names."""
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| {cell(name)} | {cell(value)} |" for name, value in flat(rows).items()]
    return "\n".join(lines)


def flat(
    rows: Mapping[str, object], prefix: str = "", above: tuple[int, ...] = ()
) -> dict[str, object]:
    """Nested mappings as dotted names; ``above``: the ids of those that these stand in."""
    found: dict[str, object] = {}
    for name, value in rows.items():
        if id(value) not in above and (inner := named(value)):
            found |= flat(inner, f"{prefix}{name}.", (*above, id(value)))
        else:
            found[f"{prefix}{name}"] = value
    return found


def named(value: object) -> dict[str, object] | None:
    """What a mapping, a dataclass or a namespace (of argparse, say) holds; None of others."""
    if isinstance(value, Mapping):
        return {str(name): inner for name, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, argparse.Namespace | SimpleNamespace):
        return vars(value)
    return None


def cell(value: object) -> str:
    """One line, at most 500 characters, that breaks neither a table nor out of it."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())[:_CELL_LENGTH]
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", text)
