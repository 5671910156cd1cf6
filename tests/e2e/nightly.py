"""Writes nights of results: what a lab's folder looks like after months."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from harness.records.result import Result, Timing
from harness.records.store import RESULT_NAME
from harness.testing.results import fake_result

FIRST = datetime(2026, 8, 1, 2, tzinfo=UTC)


def night(number: int, launch: int, median_ms: float, onnxruntime: str = "1.31.1") -> Result:
    """One launch of the sweep ``nightly-NUMBER``."""
    base = fake_result()
    started = FIRST + timedelta(days=number, minutes=launch)
    assert isinstance(base.timing, Timing)
    replace = msgspec.structs.replace
    return replace(
        base,
        id=f"{started:%Y%m%dT%H%M%SZ}-digits-onnxruntime-int8-{number:03x}{launch:03x}",
        started_at=started.isoformat(),
        status="complete",
        tags={"sweep": f"nightly-{number:03d}", "launch": str(launch)},
        software=replace(
            base.software,
            commit=f"{number:040x}",
            versions={**base.software.versions, "onnxruntime": onnxruntime},
        ),
        timing=replace(
            base.timing,
            latency_ms=replace(base.timing.latency_ms, median=median_ms),
            launches=(replace(base.timing.launches[0], median_ms=median_ms),),
        ),
    )


def write(results: Path, runs: Sequence[Result]) -> None:
    for run in runs:
        folder = results / run.tags["sweep"] / run.id
        folder.mkdir(parents=True)
        (folder / RESULT_NAME).write_bytes(msgspec.json.encode(run))
