"""Plain events under any tag, for scripts that know a SummaryWriter: one run, and one a curve."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.compression.fields import finite
from harness.errors import DataError
from harness.host.names import fact, tag_name
from harness.tensorboard import events, layouts
from harness.tensorboard.events import EventFile
from harness.tensorboard.model_run import mapped

_MOST_CURVES = 512  # of `scalars`, each of which is a folder
_serial = itertools.count()


class PlainEvents:
    """In ``logdir``, which is there. A step of None is 0. What is written is on the disk after
    each call, or raises `ResultError`; what is no number, `DataError`."""

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        self._files: dict[str, EventFile] = {}

    def scalar(self, tag: str, value: Any, step: int | None) -> None:
        self._add("", tag, finite(tag, value), step)

    def scalars(self, tag: str, values: Mapping[str, Any], step: int | None) -> None:
        """One run a curve, called ``{tag}_{name}``: they share the chart of the tag."""
        numbers = {name: finite(f"{tag}: {name}", value) for name, value in values.items()}
        for name, number in numbers.items():
            curve = f"{tag_name(tag).replace('/', '_')}_{tag_name(str(name)).replace('/', '_')}"
            if curve not in self._files and len(self._files) >= _MOST_CURVES:
                raise DataError(
                    f"more than {_MOST_CURVES} curves", "log models by log_compression_comparison"
                )
            self._add(curve, tag, number, step)

    def histogram(self, tag: str, values: Any, step: int | None) -> None:
        """In equal bins, as many as TensorBoard draws."""
        import numpy as np

        from harness.stats.histogram import equal_bins

        if hasattr(values, "detach"):
            values = values.detach().cpu().numpy()
        try:
            flat = np.asarray(values, dtype=np.float64).ravel()
        except (TypeError, ValueError) as error:
            raise DataError(f"{tag}: no array of numbers: {error}") from error
        fields = equal_bins(flat[np.isfinite(flat)].tolist())
        if fields is None:
            raise DataError(f"{tag}: no finite value", "give at least one")
        self._add("", tag, events.histogram(fields), step)

    def text(self, tag: str, text: str, step: int | None) -> None:
        self._add("", tag, events.text(str(text)), step)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        numbers = {name: finite(name, value) for name, value in metrics.items()}
        row = {fact(k): v if isinstance(v, bool | int | float) else fact(v)
               for k, v in values.items() if v is not None}  # fmt: skip
        for name, number in numbers.items():
            self._add("", name, number, 0)
        for tag, fields in events.hparams(row, dict.fromkeys(numbers, 0.0)):
            self._add("", tag, fields, 0)

    def layout(self, layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """SummaryWriter's form: ``{category: {chart: ["Multiline", [tag, ...]]}}``."""
        charts = {
            category: {chart: _tags(said) for chart, said in found.items()}
            for category, found in layout.items()
        }
        self._add("", layouts.TAG, layouts.encoded(charts), 0)

    def flush(self) -> None:
        with mapped(self._logdir):
            for file in self._files.values():
                file.flush()

    def close(self) -> None:
        """Idempotent."""
        files, self._files = self._files, {}
        with mapped(self._logdir):
            for file in files.values():
                file.close()

    def _add(self, run: str, tag: str, value: float | dict[str, Any], step: int | None) -> None:
        with mapped(self._logdir):
            file = self._files.get(run)
            if file is None:
                folder = self._logdir / run if run else self._logdir
                folder.mkdir(parents=True, exist_ok=True)
                order = f"{time.time():.0f}.{os.getpid()}.{next(_serial):06d}"
                file = EventFile(folder / f"events.out.tfevents.{order}.harness-plain")
                self._files[run] = file
            file.add(tag, value, 0 if step is None else int(step))
            file.flush()


def _tags(said: Sequence[Any]) -> Sequence[str]:
    if len(said) == 2 and said[0] in ("Multiline", "Margin") and not isinstance(said[1], str):
        found: Sequence[str] = said[1]
        return found
    return said
