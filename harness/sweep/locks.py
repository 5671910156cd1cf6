"""One sweep at a time on a device: file locks that outlive no process.

A lock is a ``flock`` on a file in the system's folder for temporary files, one per GPU (by UUID)
and one per processor. A sweep takes all that its cells use, in one order, and hands them on to the
runs that it starts, so that a run whose sweep was killed still holds them until it ends.

    cell on the CPU    its processors, alone
    cell on a GPU      the GPU, alone; its processors along with other GPUs' sweeps
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.errors import MeasurementFailed
from harness.host import lock
from harness.machine import usable_cpus
from harness.maybe import Unavailable
from harness.spec import RunSpec

_POLL_S = 0.5


def needs(specs: Sequence[RunSpec]) -> dict[str, bool]:
    """Lock name -> whether it is held alone, for all that runs of ``specs`` use."""
    wanted: dict[str, bool] = {}
    for spec in specs:
        on_cpu = spec.device == "cpu"
        for cpu in spec.cpus or usable_cpus():
            name = f"cpu{cpu:04d}"
            wanted[name] = wanted.get(name, False) or on_cpu
        if not on_cpu and (uuid := _gpu(spec.device)):
            wanted[f"gpu-{uuid}"] = True
    return dict(sorted(wanted.items()))


def _gpu(device: str) -> str | None:
    """The device's UUID; None for one that is not here, whose cells will say so themselves."""
    from harness.host.gpus import cuda_device

    found = cuda_device(device)
    return None if isinstance(found, Unavailable) else found.uuid


@contextlib.contextmanager
def held(
    wanted: dict[str, bool],
    wait_s: float,
    waiting: Callable[[str], None] = lambda holder: None,
    folder: Path | None = None,
) -> Iterator[list[int]]:
    """Hold all of ``wanted``; yields their descriptors, for runs to inherit.

    ``waiting`` is told once who is in the way. Raises `MeasurementFailed` after ``wait_s``.
    """
    base = folder or Path(tempfile.gettempdir())
    deadline = time.monotonic() + wait_s
    descriptors: list[int] = []
    try:
        for name, alone in wanted.items():
            path = base / f"harness-{name}.lock"
            descriptor = _open(path)
            descriptors.append(descriptor)
            _take(descriptor, path, alone, deadline, waiting)
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _open(path: Path) -> int:
    """Reading is enough to lock, and possible where the file is another user's."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise MeasurementFailed(
            f"the lock {str(path)!r} cannot be opened: {error.strerror}",
            "set TMPDIR to a folder that all users of this machine share",
        ) from error


def _take(
    descriptor: int, path: Path, alone: bool, deadline: float, waiting: Callable[[str], None]
) -> None:
    told = False
    while not lock.take(descriptor, alone=alone):
        if time.monotonic() >= deadline:
            raise MeasurementFailed(
                f"another sweep holds {path.name}", "wait for its end, or raise --wait"
            )
        if not told:
            waiting(path.name)
            told = True
        time.sleep(_POLL_S)
