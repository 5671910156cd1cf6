"""Log folders for the board's tests, and a TensorBoard to look at them with."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.tensorboard.importer import log_benchmark_results

# never Playwright's own download: the system's browser, which the system keeps up to date
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Served(NamedTuple):
    url: str  # ends in a slash
    process: subprocess.Popen[str]


@contextlib.contextmanager
def served(logdir: Path, *args: str) -> Iterator[Served]:
    """``harness board`` on ``logdir`` and a free port, ended as Ctrl-C would."""
    command = [sys.executable, "-m", "harness", "board", "--logdir", str(logdir), "--port", "0"]
    process = subprocess.Popen(
        [*command, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, (line, process.stderr.read() if process.stderr else "")
        yield Served(found.group(), process)
    finally:
        process.send_signal(2)
        process.communicate(timeout=600)


def metrics(accuracy: float, latency_ms: float, size_mb: float, power_mw: float) -> dict[str, Any]:
    return {
        "accuracy": accuracy, "f1_score": accuracy, "latency_mean_ms": latency_ms,
        "latency_std_ms": latency_ms / 50, "model_size_mb": size_mb,
        "memory_usage_mb": 2 * size_mb, "energy_consumption_mw": power_mw, "evaluated_on": "cpu",
    }  # fmt: skip


def import_models(logdir: Path, count: int, folder: Path) -> None:
    """``count`` models at fp32 and int8, as a compression engine reports them.

    Model i takes 10 + i ms at fp32 and half of that at int8, which is a quarter of the size and
    loses a hundredth of the accuracy.
    """
    models = {
        f"model-{i}": {
            "fp32": metrics(0.5 + 0.4 * i / count, 10.0 + i, 40.0 + i, 8000.0),
            "int8": metrics(0.49 + 0.4 * i / count, (10.0 + i) / 2, (40.0 + i) / 4, 6000.0),
            "model_info": {"library": "torchvision", "category": "classification"},
        }
        for i in range(count)
    }
    path = folder / "benchmark.json"
    path.write_text(json.dumps(models))
    log_benchmark_results(path, logdir)


def tag_events(
    folder: Path, scalars: dict[str, float], texts: dict[str, str] | None = None
) -> None:
    """Events as a stranger may write them: any tag, any value."""
    from tensorboardX import RecordWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import text

    folder.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(str(folder / "events.out.tfevents.1800000000.stranger"))
    writer.write(Event(wall_time=1.8e9, file_version="brain.Event:2").SerializeToString())
    summaries = [
        Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        for tag, value in scalars.items()
    ]
    summaries += [text(tag, markdown) for tag, markdown in (texts or {}).items()]
    for summary in summaries:
        writer.write(Event(wall_time=1.8e9, step=0, summary=summary).SerializeToString())
    writer.close()
