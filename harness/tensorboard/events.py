"""One TensorBoard event file, written synchronously with tensorboardX's record writer.

tensorboardX's own `SummaryWriter` hands events to a thread that dies on a full disk, after which
every further call blocks for good. Here the call that cannot write raises `OSError`. Tags are kept
as they are given: tensorboardX would replace a space in a model's name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.tensorboard.tensorboardx import part


class EventFile:
    """The event file at ``path``, begun. Its folder must be there.

    Raises `OSError` from every method, and `ImportError` at the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._event = part("proto.event_pb2").Event
        self._summary = part("proto.summary_pb2").Summary
        self._writer = part("record_writer").RecordWriter(str(path.absolute()))
        self._write(file_version="brain.Event:2")

    def scalar(self, tag: str, value: float | None, step: int = 0) -> None:
        """Nothing where ``value`` is None. TensorBoard keeps 32 bits of it."""
        if value is not None:
            one = self._summary.Value(tag=tag, simple_value=value)
            self._write(summary=self._summary(value=[one]), step=step)

    def histogram(self, tag: str, fields: Mapping[str, Any], step: int = 0) -> None:
        """``fields`` as `harness.tensorboard.histograms.histogram_fields` gives them."""
        from tensorboardX.summary import histogram_raw

        self._write(summary=histogram_raw(tag, **fields), step=step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """For TensorBoard's TEXT tab."""
        from tensorboardX.summary import text

        summary = text(tag, markdown)
        summary.value[0].tag = tag  # without the suffix that tensorboardX gives it
        self._write(summary=summary, step=step)

    def hparams(
        self, values: Mapping[str, str | bool | float], metrics: Mapping[str, float]
    ) -> None:
        """The row of this run in the HPARAMS tab; ``metrics`` are names of scalars."""
        from tensorboardX.summary import hparams

        for summary in hparams(dict(values), dict(metrics)):
            self._write(summary=summary, step=0)

    def flush(self) -> None:
        """To the disk, if the folder is still there."""
        if not self.path.exists():
            raise FileNotFoundError(f"{str(self.path)!r} is gone")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())
