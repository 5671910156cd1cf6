"""A TensorBoard event file that never disturbs the training that writes it.

Events are collected in memory and appended in one write about every two seconds. One that cannot be
written (disk full, folder gone) ends the file for good: `EventFile.problem` says why, a warning is
logged once, and every later call returns at once. A process forked off (a data loader's worker)
never writes what its parent collected.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from harness.tensorboard.tensorboardx import part
from harness.training import pictures
from harness.training.measures import Bins

LOGGER = logging.getLogger("harness.training")
FLUSH_S = 2.0
FLUSH_EVENTS = 2000

_Pending: TypeAlias = tuple[float, int, str, float | dict[str, Any]]  # wall time, step, tag, value


class EventFile:
    """One event file in ``folder``, which must exist. Raises `OSError` if it cannot be begun."""

    def __init__(self, folder: Path) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._proto = _Protocol()
        now_s = time.time()
        self._path = folder / f"events.out.tfevents.{now_s:.0f}.{os.getpid()}.harness"
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # plain events as tuples: they cost the garbage collector next to nothing
        self._pending: list[_Pending] = []
        self._head = [{"wall_time": now_s, "file_version": "brain.Event:2"}]
        self._flushed_s = time.time()
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    # -- what can be written ---------------------------------------------------------------------

    def add(self, tag: str, value: float | dict[str, Any], step: int) -> None:
        """A scalar, or the fields of another kind of value.

        Messages are built when they are written: many at once cost a fraction of one by one, since
        a training step leaves nothing of this code in the processor's caches.
        """
        if self.problem is not None:
            return
        now_s = time.time()
        self._pending.append((now_s, step, tag, value))
        if not 0 <= now_s - self._flushed_s <= FLUSH_S or len(self._pending) > FLUSH_EVENTS:
            self.flush()

    def histogram(self, tag: str, bins: Bins, step: int) -> None:
        fields = {"min": bins.low, "max": bins.high, "num": sum(bins.counts), "sum": bins.total,
                  "sum_squares": bins.squares, "bucket_limit": bins.limits,
                  "bucket": bins.counts}  # fmt: skip
        self.add(tag, {"histo": fields}, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        tensor = {"dtype": "DT_STRING", "string_val": [markdown.encode("utf-8", "replace")],
                  "tensor_shape": {"dim": [{"size": 1}]}}  # fmt: skip
        metadata = {"plugin_data": {"plugin_name": "text"}}
        self.add(tag, {"metadata": metadata, "tensor": tensor}, step)

    def image(self, tag: str, image: pictures.Picture, step: int) -> None:
        height, width = image.shape[:2]
        fields = {"height": height, "width": width, "colorspace": 3,
                  "encoded_image_string": pictures.png(image)}  # fmt: skip
        self.add(tag, {"image": fields}, step)

    def graph(self, definition: bytes) -> None:
        """A serialised GraphDef."""
        if self.problem is None:
            self._head.append({"wall_time": time.time(), "graph_def": definition})

    # -- the file --------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand to the system what is pending."""
        with self._lock:
            head, self._head = self._head, []
            pending = self._pending[:]
            del self._pending[: len(pending)]  # other threads may add meanwhile
            self._flushed_s = time.time()
            if self.problem is not None or os.getpid() != self._pid:
                return
            events = (self._proto.Event(**fields) for fields in head), map(self._event, pending)
            try:
                self._write(b"".join(map(self._record, chain(*events))))
            except OSError as error:
                self.fail(f"TensorBoard events end here: {error.strerror or error}")

    def _event(self, pending: _Pending) -> Any:
        wall_s, step, tag, value = pending
        fields = value if isinstance(value, dict) else {"simple_value": value}
        summary = {"value": [{"tag": tag, **fields}]}
        return self._proto.Event(wall_time=wall_s, step=step, summary=summary)

    def _record(self, event: Any) -> bytes:
        """Length, its checksum, the event, its checksum."""
        data, crc = event.SerializeToString(), self._proto.checksum
        length = struct.pack("<Q", len(data))
        return b"".join(
            (length, struct.pack("<I", crc(length)), data, struct.pack("<I", crc(data)))
        )

    def _write(self, data: bytes) -> None:
        if not self._path.exists():  # a write into a deleted file succeeds
            raise FileNotFoundError(f"the log folder {str(self._folder)!r} is gone")
        while data:
            data = data[os.write(self._file, data) :]

    def fail(self, problem: str) -> None:
        """End the file; said once."""
        if self.problem is None:
            self.problem = problem
            LOGGER.warning("%s; training goes on", problem)

    def close(self) -> None:
        """Idempotent; what comes later is dropped."""
        if self._file < 0:
            return
        self.flush()
        os.close(self._file)
        self._file = -1
        self.problem = self.problem or "the log is closed"


class _Protocol:
    """tensorboardX's messages and table, without the torch that their import brings along."""

    def __init__(self) -> None:
        self.Event: Any = part("proto.event_pb2").Event
        self._table: Sequence[int] = part("crc32c").CRC_TABLE

    def checksum(self, data: bytes) -> int:
        """The masked CRC-32C of a record, in half the time of tensorboardX's own loop.

        At a few dozen bytes a scalar it is most of what writing one costs.
        """
        table, crc = self._table, 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        crc ^= 0xFFFFFFFF
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
