"""Event files read without TensorBoard: record by record, untrusted."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.tensorboard.events import part

MARK = ".tfevents."
_GREATEST_RECORD = 64 * 1024 * 1024
_HEAD, _TAIL = 12, 4  # bytes: a record's length and its checksum; the checksum of its content


def values(files: Iterable[Path]) -> Iterator[tuple[Any, Any]]:
    """Each event and each value in it, in the order of the files. Raises `DataError`.

    A record that is cut short ends its file: it may still be written.
    """
    try:
        event_type = part("proto.event_pb2").Event
        for file in files:
            for data in _records(file):
                event = event_type.FromString(data)
                for value in event.summary.value:
                    yield event, value
    except OSError as error:
        raise DataError(f"its events cannot be read: {error.strerror or error}") from error
    except (DataError, ImportError):
        raise
    except Exception as error:  # whatever protobuf calls bytes that are no message
        raise DataError(f"its events cannot be read: {type(error).__name__}: {error}") from error


def _records(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while len(head := stream.read(_HEAD)) == _HEAD:
            (length,) = struct.unpack("<Q", head[:8])
            if length > _GREATEST_RECORD:
                raise DataError(f"{file.name} is damaged: a record of {length} bytes")
            data = stream.read(length)
            if len(data) < length or len(stream.read(_TAIL)) < _TAIL:
                return
            yield data
