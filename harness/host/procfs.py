"""The kernel's text files (/proc, /sys) under a root that tests can replace by a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.maybe import Unavailable, coded

_NO_LIMIT = 1 << 60  # cgroup v1 writes "no memory limit" as the largest page-aligned integer


def read_text(root: str, path: str) -> str | None:
    """The stripped text of ``path`` below ``root``; None where it cannot be read."""
    try:
        return (Path(root) / path).read_text(errors="replace").strip()
    except OSError:
        return None


def fields(text: str | None, separator: str = ":") -> dict[str, str]:
    """``key<separator>value`` lines as a dict; the first of equal keys counts."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, _, value = line.partition(separator)
        found.setdefault(key.strip(), value.strip())
    return found


def cpu_list(text: str | None) -> tuple[int, ...]:
    """The kernel's ``0-3,8`` as (0, 1, 2, 3, 8); empty where there is no such list."""
    cpus: list[int] = []
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.strip().isdigit():
            cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def is_virtual(root: str) -> bool:
    """Whether the CPU says that a hypervisor runs it (x86 alone has such a flag)."""
    flags = fields(read_text(root, "proc/cpuinfo")).get("flags", "")
    return "hypervisor" in flags.split()


def why(error: OSError, path: Path | str, missing: Unavailable) -> Unavailable:
    """An `OSError` on a kernel file in the user's words; ``missing`` is what no file means."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | ProcessLookupError):
        return missing
    if isinstance(error, PermissionError):
        return coded(
            "permission_denied",
            f"{path} is forbidden to this user",
            "run as its owner or as root, or widen its mode",
        )
    return coded("error", f"{path} cannot be read: {error.strerror or error}", missing.remedy)


def cgroup_chain(root: str, controller: str, pid: int | str = "self") -> tuple[int, list[Path]]:
    """The cgroup version of ``controller`` and the folders that limit ``pid``, innermost first.

    A container without its own cgroup namespace names a path of its host, which is not mounted in
    it; then the mount point itself is the container's group and the only one in the chain.
    """
    base, path, version = Path(root) / "sys/fs/cgroup", "/", 2
    for line in (read_text(root, f"proc/{pid}/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controller in controllers.split(","):
            base, path, version = base / controller, group, 1
            break
        if number == "0":
            path = group
    inner = base / path.strip("/")
    chain = [inner, *inner.parents]
    return version, [folder for folder in chain[: chain.index(base) + 1] if folder.is_dir()]


def cpu_quota_of(folder: Path) -> float | None:
    """CPUs' worth of time that one cgroup folder allows; None without a limit."""
    text = read_text(str(folder), "cpu.max")
    if text is None:
        texts = [read_text(str(folder), f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        text = " ".join(value or "" for value in texts)
    quota, _, period = text.partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period)


def cpu_quota(root: str = "/", pid: int | str = "self") -> float | None:
    """CPUs' worth of time that the cgroups allow ``pid``; None without a limit."""
    return _lowest([cpu_quota_of(folder) for folder in cgroup_chain(root, "cpu", pid)[1]])


def memory_limit_bytes(root: str = "/") -> int | None:
    """The memory limit of this process's cgroups in bytes; None without a limit."""
    version, chain = cgroup_chain(root, "memory")
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    texts = [read_text(str(folder), name) or "" for folder in chain]
    limit = _lowest([float(text) for text in texts if text.isdigit()])
    return None if limit is None or limit >= _NO_LIMIT else int(limit)


def _lowest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


class KernelFile:
    """A file of the kernel kept open, so that each new reading costs one ``pread``."""

    def __init__(self, path: Path, size_bytes: int = 4096) -> None:
        """Raises `OSError` where the file cannot be opened."""
        self._size_bytes = size_bytes
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """What the file says now, up to ``size_bytes``. Raises `OSError`."""
        return os.pread(self._fd, self._size_bytes, 0)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
