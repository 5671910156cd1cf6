"""Whether all variants of a duel fit into memory at once, before any of them takes a turn.

    files of the models     a bound: each worker holds its own weights, and more
    the first one loaded    measured: another variant of the same file takes as much again

Nothing is guessed beyond that: a duel that passes may still run out, and says so when it does.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.engine.outcome.evidence import LaunchRecord
from harness.errors import UsageError
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact
from harness.views.text import count, size

_LOADED = ("loaded", "warm-up")


class Room:
    """``names`` of the variants, what each of them loads, and where."""

    def __init__(self, names: Sequence[str], artifacts: Sequence[Artifact], device: str) -> None:
        self._names, self._artifacts, self._device = names, artifacts, device

    def before_any(self, free_bytes: int | None) -> None:
        """By the files, with so much of the host's memory free. Raises `UsageError`."""
        needs = [one.size_bytes for one in self._artifacts]
        basis = "the files of their models"
        self._refuse(needs, free_bytes, "memory", basis)
        self._refuse(needs, device_bytes(self._device), f"{self._device}'s memory", basis)

    def after_the_first(self, first: LaunchRecord, free_bytes: int | None) -> None:
        """By what the first one took, with so much free beside it. Raises `UsageError`."""
        took = _grown(first.memory)
        basis = f"{self._names[0]} took {size(took)} when it was loaded"
        free = None if free_bytes is None else free_bytes + took
        self._refuse(self._as_the_first(took), free, "memory", basis)
        took = max((_bytes(told, "allocator_peak_bytes") for told in first.device_memory.values()),
                   default=0)  # fmt: skip
        device = f"{self._device}'s memory"
        self._refuse(self._as_the_first(took), device_bytes(self._device), device, basis)

    def _as_the_first(self, took: int) -> list[int]:
        alike = self._artifacts[0].sha256
        return [took if one.sha256 == alike else one.size_bytes for one in self._artifacts]

    def _refuse(self, needs: Sequence[int], free: int | None, where: str, basis: str) -> None:
        total = sum(needs)
        if free is None or total <= free:
            return
        fits: list[str] = []
        left = free
        for need, name in sorted(zip(needs, self._names, strict=True), key=lambda one: one[0]):
            if need <= left:
                left -= need
                fits.append(name)
        told = f"{', '.join(fits)} would fit" if fits else "not one of them fits"
        raise UsageError(
            f"{count(len(needs), 'variant')} at once need at least {size(total)} of {where} "
            f"({basis}), and {size(free)} can be had: {told}",
            "take fewer or smaller ones, or one at a time: harness run, then harness compare",
        )


def device_bytes(device: str) -> int | None:
    """All memory of a GPU; None where there is none of its own, or nobody tells."""
    if device == "cpu":
        return None
    from harness.host.gpus import cuda_device

    found = cuda_device(device)
    return None if isinstance(found, Unavailable) else found.memory_bytes


def _grown(memory: dict[str, dict[str, Maybe[float]]]) -> int:
    """What a worker took at most since it had imported its runtime; 0 where nobody tells."""
    began = _bytes(memory.get("imported", {}), "rss_bytes")
    seen = [
        _bytes(memory.get(phase, {}), name)
        for phase in _LOADED
        for name in ("rss_bytes", "peak_bytes")
    ]
    return max(max(seen) - began, 0) if began else 0


def _bytes(figures: dict[str, Maybe[float]] | dict[str, Maybe[int]], name: str) -> int:
    value = figures.get(name, 0)
    return 0 if isinstance(value, Unavailable) else round(value)
