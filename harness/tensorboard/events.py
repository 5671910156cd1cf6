"""TensorBoard event files, and the one place where they are written.

tensorboardX's own `SummaryWriter` hands events to a thread that dies on a full disk, after which
every further call blocks for good. Here events wait in memory until `EventFile.flush`, which writes
them at once and raises what goes wrong; who must not be disturbed catches it
(`harness.training.events`). Tags are kept as they are given: tensorboardX would replace a space in
a model's name, and put a suffix behind that of a text. Of its package only the messages are used.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

# wall time, step, tag, and a scalar or the fields of another kind of value
_Pending: TypeAlias = tuple[float, int, str, float | dict[str, Any]]
_MOST_PENDING = 2000


class EventFile:
    """The event file at ``path``, begun or gone on with. Its folder must be there.

    Nothing but `flush` and `close` writes, except that events beyond `_MOST_PENDING` are flushed
    on the way. Those raise `OSError`, and the start `ImportError` too. A process forked off (a data
    loader's worker) never writes what its parent collected.
    """

    def __init__(self, path: Path, wall_time_s: float | None = None) -> None:
        self.path = path.absolute()
        self._messages = _Messages()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # plain events as tuples: they cost the garbage collector next to nothing
        self._pending: list[_Pending] = []
        begun_s = time.time() if wall_time_s is None else wall_time_s
        self._head: list[dict[str, Any]] = [{"wall_time": begun_s, "file_version": "brain.Event:2"}]
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    # -- what can be written ---------------------------------------------------------------------

    def add(
        self,
        tag: str,
        value: float | dict[str, Any],
        step: int,
        wall_time_s: float | None = None,
    ) -> None:
        """A scalar, or the fields of another kind of value.

        Messages are built when they are written: many at once cost a fraction of one by one, since
        a training step leaves nothing of this code in the processor's caches.
        """
        stamp_s = time.time() if wall_time_s is None else wall_time_s
        self._pending.append((stamp_s, step, tag, value))
        if len(self._pending) > _MOST_PENDING:
            self.flush()

    def at(self, step: int, wall_time_s: float | None = None) -> Feed:
        """Events that share ``step`` and a wall time."""
        return Feed(self, step, time.time() if wall_time_s is None else wall_time_s)

    def graph(self, definition: bytes) -> None:
        """A serialised GraphDef."""
        self._head.append({"wall_time": time.time(), "graph_def": definition})

    # -- the file --------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand to the system what is pending, if the folder is still there."""
        with self._lock:
            head, self._head = self._head, []
            pending = self._pending[:]
            del self._pending[: len(pending)]  # other threads may add meanwhile
            if os.getpid() != self._pid:
                return
            events = chain(map(self._messages.plain, head), map(self._messages.valued, pending))
            self._write(b"".join(map(self._messages.record, events)))

    def close(self) -> None:
        """Flush and close. Idempotent."""
        file, self._file = self._file, -1
        if file < 0:
            return
        self._file = file
        try:
            self.flush()
        finally:
            self._file = -1
            os.close(file)

    def _write(self, data: bytes) -> None:
        if not self.path.exists():  # a write into a deleted file succeeds
            folder = self.path.parent
            gone = "the file was removed from" if folder.exists() else "the folder is gone:"
            raise FileNotFoundError(f"{gone} {str(folder)!r}")
        while data:
            data = data[os.write(self._file, data) :]


def ended(error: Exception) -> str:
    """Why no more events come."""
    return f"TensorBoard events end here: {getattr(error, 'strerror', None) or error}"


class Feed:
    """Events of one file that share a step and a wall time."""

    def __init__(self, file: EventFile, step: int, wall_time_s: float) -> None:
        self._file = file
        self._step = step
        self._wall_time_s = wall_time_s

    def scalar(self, tag: str, value: float | None) -> None:
        """Nothing where ``value`` is None. TensorBoard keeps 32 bits of it."""
        if value is not None:
            self.add(tag, value)

    def histogram(self, tag: str, fields: Mapping[str, Any]) -> None:
        """``fields`` as `harness.stats.histogram.histogram_fields` gives them."""
        self.add(tag, histogram(fields))

    def text(self, tag: str, markdown: str) -> None:
        """For TensorBoard's TEXT tab."""
        self.add(tag, text(markdown))

    def hparams(
        self, values: Mapping[str, str | bool | float], metrics: Mapping[str, float]
    ) -> None:
        """The row of this run in the HPARAMS tab; ``metrics`` are names of scalars.

        tensorboardX can only say that a session succeeded: write none for one that failed.
        """
        for tag, value in hparams(values, metrics):
            self.add(tag, value)

    def add(self, tag: str, value: float | dict[str, Any]) -> None:
        """A scalar, or the fields of another kind of value."""
        self._file.add(tag, value, self._step, self._wall_time_s)


def hparams(
    values: Mapping[str, str | bool | float], metrics: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tags and values of the events that make a row of the HPARAMS tab."""
    make = part("summary").hparams
    for value in (v for summary in make(dict(values), dict(metrics)) for v in summary.value):
        yield value.tag, {"metadata": value.metadata}


def histogram(fields: Mapping[str, Any]) -> dict[str, Any]:
    """min, max, num, sum, sum_squares, bucket_limits and bucket_counts as an event's value."""
    named = {"bucket_limits": "bucket_limit", "bucket_counts": "bucket"}
    return {"histo": {named.get(name, name): value for name, value in fields.items()}}


def text(markdown: str) -> dict[str, Any]:
    """A text as an event's value."""
    tensor = {"dtype": "DT_STRING", "string_val": [markdown.encode("utf-8", "replace")],
              "tensor_shape": {"dim": [{"size": 1}]}}  # fmt: skip
    return {"metadata": {"plugin_data": {"plugin_name": "text"}}, "tensor": tensor}


def image(png: bytes, height: int, width: int) -> dict[str, Any]:
    """An encoded picture in colour as an event's value."""
    return {"image": {"height": height, "width": width, "colorspace": 3,
                      "encoded_image_string": png}}  # fmt: skip


class _Messages:
    """tensorboardX's messages and table. Raises `ImportError`."""

    def __init__(self) -> None:
        self._event: Any = part("proto.event_pb2").Event
        self._table: Sequence[int] = part("crc32c").CRC_TABLE

    def plain(self, fields: dict[str, Any]) -> Any:
        return self._event(**fields)

    def valued(self, pending: _Pending) -> Any:
        wall_s, step, tag, value = pending
        fields = value if isinstance(value, dict) else {"simple_value": value}
        return self._event(wall_time=wall_s, step=step, summary={"value": [{"tag": tag, **fields}]})

    def record(self, event: Any) -> bytes:
        """Length, its checksum, the event, its checksum."""
        data, crc = event.SerializeToString(), self.checksum
        length = struct.pack("<Q", len(data))
        return b"".join(
            (length, struct.pack("<I", crc(length)), data, struct.pack("<I", crc(data)))
        )

    def checksum(self, data: bytes) -> int:
        """The masked CRC-32C of a record, in half the time of tensorboardX's own loop.

        At a few dozen bytes a scalar it is most of what writing one costs.
        """
        table, crc = self._table, 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        crc ^= 0xFFFFFFFF
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def part(name: str) -> Any:
    """The module ``tensorboardX.{name}``, without the torch that its import brings along.

    Raises `ImportError`, whatever is wrong with it.
    """
    with _without_torch():
        try:
            return importlib.import_module(f"tensorboardX.{name}")
        except Exception as error:  # protobuf has its own kinds for a version that does not fit
            raise ImportError(f"tensorboardX cannot be imported: {error}") from error


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Make ``import torch`` fail inside.

    tensorboardX imports torch, where it is installed, only to name a type in its annotations: 1.2 s
    of processor time, in the very seconds in which the worker loads the model. A None in
    `sys.modules` is the documented way to say *not importable*; without torch it uses numpy's type.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
