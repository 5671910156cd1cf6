"""What the sampler says to the driver: MessagePack frames, each behind its length, on a pipe.

driver                                     sampler (fresh process)
  SamplerJob, one JSON line  ─ stdin ─>      opens its profilers
                             <─ pipe ──      Header    at the start and, refreshed, at the end
                             <─ pipe ──      Tick      at each deadline
                             <─ pipe ──      Failed    when a profiler raises: it is read no more
  closes stdin               ─ stdin ─>      one last Tick and Header, then it leaves
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from harness.maybe import Unavailable
from harness.protocols import Channel, ProfilerContext

_LENGTH = struct.Struct("<I")


class SamplerJob(msgspec.Struct, frozen=True, kw_only=True):
    """``cpus``: where the sampler may run, None for no choice. ``fd`` is filled in at the start."""

    profilers: tuple[str, ...]
    context: ProfilerContext
    rate_hz: float | None  # None: what the sensors found ask for
    cpus: tuple[int, ...] | None = None
    fd: int = -1


class Opened(msgspec.Struct, frozen=True):
    """What opening one profiler gave."""

    name: str
    channels: tuple[Channel, ...]
    unavailable: Unavailable | None
    details: dict[str, str] = {}


class Header(msgspec.Struct, frozen=True, tag="header", array_like=True):
    """Profilers in the order that `Reading.profiler` and `Failed.profiler` index."""

    opened: tuple[Opened, ...]
    rate_hz: float


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """One profiler's channels, stamped halfway between the clock before and after its read."""

    profiler: int
    t_ns: int
    values: tuple[float | None, ...]


class Tick(msgspec.Struct, frozen=True, tag="tick", array_like=True):
    """``wall_ns`` (since 1970) pairs with ``t_ns`` once a second. ``cpu_ns``: own CPU time."""

    t_ns: int
    cpu_ns: int
    wall_ns: int | None
    readings: tuple[Reading, ...]


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    profiler: int
    reason: Unavailable


Frame = Header | Tick | Failed
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def pack(frame: Frame) -> bytes:
    """One frame behind its length."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def unpack(buffer: bytearray) -> Iterator[Frame]:
    """Take the complete frames off the front of ``buffer``."""
    while len(buffer) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return
        frame = _decoder.decode(bytes(buffer[_LENGTH.size : end]))
        del buffer[:end]
        yield frame
