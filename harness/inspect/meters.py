"""Every meter and every channel as ``harness doctor`` shows them: there, or why not.

Channels that share quantity, scope and reason share a line, so that a remedy is read once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

import msgspec

from harness.inspect.probe import GpuStatus, ProfilerStatus
from harness.maybe import Maybe, Unavailable, explain
from harness.protocols import Available, Channel, ProfilerContext
from harness.views.text import plain

Line = tuple[str, str, str, str]  # what, scope, verdict, detail
_NAMES_SHOWN = 8
NO_METER = """\
No meter works here: a result says so in place of joules, and nothing is
estimated. A wall meter that logs to a file is enough (docs/method.md)."""


class MeterStatus(msgspec.Struct, frozen=True):
    """A source of `harness.profiles.power.sources`. ``scopes``: what it measures, or would."""

    name: str
    scopes: str
    selected: str  # how a run comes to use it
    status: Maybe[Available]
    channels: tuple[Channel, ...]


def meters(root: str = "/") -> list[MeterStatus]:
    """Every power source, opened where that needs no file of the user's, and closed again."""
    from harness.profiles.power.sources import COVERS, SOURCES

    return [_meter(name, *COVERS[name], root) for name in SOURCES]


def _meter(name: str, scopes: str, selected: str, root: str) -> MeterStatus:
    from harness.profiles.power.sources import SOURCES

    if name == "external":
        needs = Unavailable("needs the file that a wall meter's logger writes", selected)
        return MeterStatus(name, scopes, selected, needs, ())
    device = "cuda:0" if name == "nvml" else "cpu"
    source = SOURCES[name](ProfilerContext(os.getpid(), device, root, name))
    try:
        status = source.open()
        return MeterStatus(name, scopes, selected, status, tuple(source.channels))
    except Exception as error:  # pyRAPL is a stranger's, and a tree in /sys may hold anything
        why = Unavailable(f"opening it raised {type(error).__name__}: {error}", "report it")
        return MeterStatus(name, scopes, selected, why, ())
    finally:
        with contextlib.suppress(Exception):
            source.close()


def meter_lines(found: Sequence[MeterStatus]) -> list[Line]:
    """One line per source that cannot be used; else one per scope and reason."""
    lines: list[Line] = []
    for meter in found:
        if isinstance(meter.status, Unavailable):
            lines.append((meter.name, meter.scopes, "n/a", explain(meter.status)))
        else:
            lines += [(meter.name, *rest) for _, *rest in channel_lines(meter.channels)]  # type: ignore[misc]
    return _once(lines)


def profiler_lines(found: Iterable[ProfilerStatus]) -> list[Line]:
    """The channels of all profilers but the meters, by quantity."""
    lines: list[Line] = []
    for profiler in found:
        if profiler.name == "power":
            continue
        if isinstance(profiler.status, Unavailable) and not profiler.channels:
            lines.append((profiler.name, "", "n/a", explain(profiler.status)))
        lines += channel_lines(profiler.channels, profiler.name)
    return _once(lines)


def gpu_lines(found: Maybe[Sequence[GpuStatus]]) -> list[Line]:
    """Each device, and below it what its driver tells and what not."""
    if isinstance(found, Unavailable):
        return [("none", "", "n/a", explain(found))]
    lines: list[Line] = []
    for gpu in found:
        device = gpu.device
        facts = (
            f"{device.name}, {device.memory_bytes / 2**30:.0f} GiB",
            f"compute capability {device.compute_capability}",
            f"driver for CUDA {device.driver_cuda}",
            device.uuid,
        )
        lines.append((f"cuda:{device.index}", "", "yes", plain(", ".join(facts))))
        lines += _once(channel_lines(gpu.channels))
    return lines


def channel_lines(channels: Iterable[Channel], default: str = "") -> list[Line]:
    """Channels of one quantity, scope and reason on one line, in order of appearance."""
    groups: dict[tuple[str, str, str, float | None], list[str]] = {}
    for channel in channels:
        quantity = channel.tag.rpartition("/")[0] or default
        reason = "" if channel.unavailable is None else explain(channel.unavailable)
        key = (quantity, channel.scope, reason, channel.period_s)
        groups.setdefault(key, []).append(channel.name)
    return [
        (quantity, scope, "n/a" if reason else "yes", _detail(names, reason, period_s))
        for (quantity, scope, reason, period_s), names in groups.items()
    ]


def _detail(names: Sequence[str], reason: str, period_s: float | None) -> str:
    shown = ", ".join(names)
    if len(names) > _NAMES_SHOWN:
        shown = f"{names[0]} to {names[-1]} ({len(names)})"
    every = "" if period_s is None else f", every {period_s * 1e3:.3g} ms"
    return plain(f"{shown}: {reason}" if reason else shown + every)


def _once(lines: Sequence[Line]) -> list[Line]:
    """The first cell is left out where it repeats the line above."""
    before = [""] + [line[0] for line in lines[:-1]]
    return [
        ("" if line[0] == above else line[0], *line[1:])
        for line, above in zip(lines, before, strict=True)
    ]
