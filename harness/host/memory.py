"""How much memory processes may still take here."""

from __future__ import annotations

from pathlib import Path

from harness.host.procfs import cgroup_chain, read_text

_NO_LIMIT = 1 << 60  # as `harness.host.procfs`


def available_bytes(root: str = "/") -> int | None:
    """What the kernel calls available, and no more than the cgroups leave; None where neither says.

    Of a cgroup, pages of files that nobody uses just now can be had back, so they count as free.
    Swap does not count: what waits for a disk is no measurement.
    """
    found = [_of_machine(root), *(_of_cgroup(*one) for one in _limits(root))]
    return min((one for one in found if one is not None), default=None)


def _of_machine(root: str) -> int | None:
    for line in (read_text(root, "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _limits(root: str) -> list[tuple[Path, int]]:
    version, chain = cgroup_chain(root, "memory")
    return [(folder, version) for folder in chain]


def _of_cgroup(folder: Path, version: int) -> int | None:
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, used = (_number(read_text(str(folder), name)) for name in names[:2])
    if limit is None or used is None or limit >= _NO_LIMIT:
        return None
    stat = dict(
        line.split(maxsplit=1)
        for line in (read_text(str(folder), "memory.stat") or "").splitlines()
        if " " in line
    )
    return max(limit - used + (_number(stat.get(names[2])) or 0), 0)


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None
