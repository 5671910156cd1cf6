"""What does starting cost? `harness --help`, and `harness run` up to its first warm-up iteration.

    python benchmarks/startup.py

Beside a bare interpreter, and beside a bare script that imports ONNX Runtime and loads the same
model. Rounds are interleaved; medians over rounds, with their 5th and 95th percentile.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interleaved import counted

from harness.records.samples import read_samples
from harness.zoo.shipped import ASSETS

BARE_LOAD = """
import sys, time
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(time.perf_counter_ns())
"""


def run(*args: str) -> str:
    return subprocess.run(
        [sys.executable, *args], check=True, capture_output=True, text=True
    ).stdout


def whole(*args: str) -> Callable[[], float]:
    """Wall milliseconds of a command."""

    def measure() -> float:
        began = time.perf_counter_ns()
        run(*args)
        return (time.perf_counter_ns() - began) / 1e6

    return measure


def bare_load() -> float:
    """Milliseconds until a bare script has imported the runtime and loaded the model."""
    began = time.perf_counter_ns()
    loaded = int(run("-c", BARE_LOAD, str(ASSETS / "digits.onnx")))
    return (loaded - began) / 1e6


def harness_run() -> float:
    """Milliseconds until the first warm-up iteration begins: the clock is the same everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter_ns()
        flags = ["--warmup", "0", "--iterations", "100", "--quiet", "--out", folder]
        run("-m", "harness", "run", *flags)
        (results,) = Path(folder).iterdir()
        return (int(read_samples(results).start_ns[0]) - began) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    measures = {
        "bare interpreter": whole("-c", "pass"),
        "harness --help": whole("-m", "harness", "--help"),
        "import onnxruntime and load digits": bare_load,
        "harness run, to its first iteration": harness_run,
    }
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in counted(rounds, "startup"):
        for name, measure in measures.items():
            taken[name].append(measure())
    for name, values in taken.items():
        low, *_, high = statistics.quantiles(values, n=20)
        print(f"{name:38} {statistics.median(values):7.1f} ms   [{low:.1f}, {high:.1f}]")
    interpreter, shown, bare, first = (statistics.median(v) for v in taken.values())
    ratio = statistics.median(a / b for a, b in zip(*list(taken.values())[:1:-1], strict=True))
    print(f"harness --help above the interpreter: {shown - interpreter:.1f} ms (limit 120)")
    print(f"harness run over the bare script: {ratio:.2f} (limit 2), {first - bare:.1f} ms more")


if __name__ == "__main__":
    main()
