"""What the profilers that read kernel files share: groups of channels, each read in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import msgspec

from harness.host.procfs import KernelFile, why
from harness.maybe import Maybe, Unavailable, coded
from harness.protocols import Available, Channel, ProfilerContext

Values = Sequence[float | None]


class Group(Protocol):
    """Channels that are read together."""

    @property
    def channels(self) -> Sequence[Channel]: ...

    def open(self) -> None:
        """Probe; a channel that cannot be read gets its reason. Raises nothing for absence."""
        ...

    def read(self) -> Values: ...

    def close(self) -> None: ...


class AbsentGroup:
    """Channels of which it is known beforehand why they cannot be read."""

    def __init__(self, channels: Sequence[Channel], reason: Unavailable) -> None:
        self.channels = absent(channels, reason)

    def open(self) -> None:
        """Nothing to acquire."""

    def read(self) -> Values:
        return [None] * len(self.channels)

    def close(self) -> None:
        """Nothing to release."""


class FileGroup:
    """Channels parsed from kernel files that stay open.

    ``parse`` takes the files' bytes in order and returns one value per channel, None for a quantity
    that they do not hold. ``missing`` is what the absence of a file means.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        channels: Sequence[Channel],
        parse: Callable[..., Values],
        missing: Unavailable,
        size_bytes: int = 4096,
    ) -> None:
        self.channels = tuple(channels)
        self._paths = paths
        self._parse = parse
        self._missing = missing
        self._size_bytes = size_bytes
        self._files: list[KernelFile] = []

    def open(self) -> None:
        self._acquire()

    def look(self) -> dict[str, Maybe[float]]:
        """Channel -> value now or why there is none. Opens, reads once and closes."""
        values = self._acquire()
        self.close()
        return {
            channel.name: channel.unavailable or cast(float, value)
            for channel, value in zip(self.channels, values, strict=True)
        }

    def _acquire(self) -> Values:
        path = self._paths[0]
        try:
            for path in self._paths:
                self._files.append(KernelFile(path, self._size_bytes))
            values = self._parse(*[file.read() for file in self._files])
        except OSError as error:
            return self._lose(why(error, path, self._missing))
        except (ValueError, LookupError):
            reason = f"{path} has an unknown format"
            return self._lose(coded("not_supported", reason, "please report the file"))
        self.channels = tuple(
            channel if value is not None else _lacking(channel, path)
            for channel, value in zip(self.channels, values, strict=True)
        )
        return values

    def read(self) -> Values:
        if not self._files:
            return [None] * len(self.channels)
        try:
            values = self._parse(*[file.read() for file in self._files])
        except (OSError, ValueError, LookupError):  # the process or the device is gone
            return [None] * len(self.channels)
        return [
            value if channel.unavailable is None else None
            for channel, value in zip(self.channels, values, strict=True)
        ]

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []

    def _lose(self, reason: Unavailable) -> Values:
        self.close()
        self.channels = absent(self.channels, reason)
        return [None] * len(self.channels)


class GroupProfiler:
    """A `Profiler` made of groups; a subclass says which."""

    name = ""

    def __init__(self, context: ProfilerContext) -> None:
        self.context = context
        self._groups: list[Group] = []

    def groups(self) -> list[Group]:
        """The groups to read, not yet opened."""
        raise NotImplementedError

    def open(self) -> Available | Unavailable:
        """Open every group; `Unavailable` with the first one's reason where none can be read."""
        self.close()
        self._groups = self.groups()
        for group in self._groups:
            group.open()
        reasons = [channel.unavailable for channel in self.channels]
        readable = reasons.count(None)
        if readable:
            return Available({"channels": f"{readable} of {len(reasons)}"})
        return reasons[0] or Unavailable("it has no channels", "please report this")

    @property
    def channels(self) -> Sequence[Channel]:
        return [channel for group in self._groups for channel in group.channels]

    def read(self) -> Values:
        return [value for group in self._groups for value in group.read()]

    def close(self) -> None:
        for group in self._groups:
            group.close()


def absent(channels: Sequence[Channel], reason: Unavailable) -> tuple[Channel, ...]:
    """``channels``, each marked unavailable for ``reason``."""
    return tuple(msgspec.structs.replace(channel, unavailable=reason) for channel in channels)


def _lacking(channel: Channel, path: Path) -> Channel:
    reason = f"{path} does not give {channel.name}"
    unavailable = coded("not_supported", reason, "use a kernel that counts it")
    return msgspec.structs.replace(channel, unavailable=unavailable)


def process_missing(context: ProfilerContext) -> Unavailable:
    """What a missing /proc/PID means."""
    if not (Path(context.root) / "proc").is_dir():
        return coded("not_supported", "this system has no /proc", "measure on Linux")
    return coded("not_present", f"there is no process {context.pid}", "see why it ended")
