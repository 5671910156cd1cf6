"""How long does a history take, from the index to the verdict, among many runs?

    python benchmarks/history_scale.py [--rows 1000000]

* ``series``: one cell of so many indexed runs: its points, its nights, its history.
* ``change points``: ours beside ruptures (KernelCPD, written in C; the same cost and penalty) on
  series of 90, 365 and 1,000 nights; both in turn, and the breakpoints must be the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import ruptures
from index_scale import ASKED, measure_rows
from interleaved import counted

from harness.compare.history import history
from harness.compare.nights import nights
from harness.records.index.database import Index
from harness.stats.changepoints import MIN_NIGHTS, segments


def measure_series(results: Path, rows: int) -> None:
    with Index(results) as index:
        keys = [(one.cell.key, one.fingerprint) for one in index.cells()]
        random.shuffle(keys)
        asked, told, count = [], [], 0
        for key in (keys * (ASKED // len(keys) + 1))[:ASKED]:
            began = time.perf_counter()
            found = nights(index.series(*key, "latency_median"))
            between = time.perf_counter()
            history([night.value for night in found], "lower", 0.02)
            asked.append(between - began)
            told.append(time.perf_counter() - between)
            count = len(found)
    print(
        f"history of {count} nights out of {rows} runs: {1e3 * statistics.median(asked):.2f} ms to "
        f"find, {1e3 * statistics.median(told):.2f} ms to judge (medians of {len(told)})"
    )


def measure_change_points(rounds: int = 20) -> None:
    rng = np.random.default_rng(0)
    for count in (90, 365, 1000):
        ours, theirs = [], []
        for _ in counted(rounds, f"{count} nights"):
            values = rng.normal(0, 0.01, count) + 0.05 * (np.arange(count) > count // 2)
            penalty = 5 * float(np.log(count)) * 0.01**2
            ours.append(_timed(partial(segments, values, penalty)))
            theirs.append(_timed(partial(_peer, values, penalty)))
            assert tuple(ours[-1][1]) == tuple(theirs[-1][1])
        medians = [1e3 * statistics.median(time for time, _ in side) for side in (ours, theirs)]
        print(
            f"change points of {count} nights: {medians[0]:.2f} ms; ruptures {medians[1]:.2f} ms; "
            f"the same breakpoints in {rounds} of {rounds}"
        )


def _peer(values: np.ndarray, penalty: float) -> Sequence[int]:
    fitted = ruptures.KernelCPD(kernel="linear", min_size=MIN_NIGHTS).fit(values)
    return [int(end) for end in fitted.predict(pen=penalty)[:-1]]


def _timed(call: Callable[[], Sequence[int]]) -> tuple[float, Sequence[int]]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    random.seed(0)
    measure_change_points()
    with tempfile.TemporaryDirectory() as folder:
        measure_rows(Path(folder), given.rows)
        measure_series(Path(folder), given.rows)


if __name__ == "__main__":
    main()
