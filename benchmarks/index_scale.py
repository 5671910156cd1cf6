"""How fast is the index of a results folder, at the size that years of nights leave?

    python benchmarks/index_scale.py [--rows 100000] [--folder DIR] [--result result.json]

Two measurements:

* ``files``: so many result files are written (copies of one result with other ids, cells, times
  and figures), then indexed from nothing, then looked through again without a change. The files
  have just been written, so the kernel still holds as many of them as fit into memory.
  The time of the processor is given too: on a busy machine the other one tells little.
* ``rows``: ten times as many runs are put into the tables directly, over cells on ten machines;
  then series are asked for, each once, in an order that jumps about. ``cold`` asks after the kernel
  was told to forget the database.

The limits: 8,000 files a second, and one series out of a million runs within 20 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.records.cell import Cell
from harness.records.index import sql as index_sql
from harness.records.index.database import Index
from harness.records.index.figures import NAMES, IndexedFigures
from harness.records.index.file import FILE_NAME

CELLS, MACHINES, BATCH = 200, 10, 20_000
ASKED = 200  # series


class _File(NamedTuple):
    path: str
    changed_ns: int
    size_bytes: int


def template(given: str | None) -> bytes:
    """A result as it lies on the disk: a real one, of about 20 kB."""
    if given:
        return Path(given).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "harness", "run", "--iterations", "500", "--quiet"]
        subprocess.run([*command, "--out", folder], check=True, stdout=subprocess.DEVNULL)
        return next(Path(folder).glob("*/result.json")).read_bytes()


def write_files(results: Path, count: int, data: bytes) -> None:
    """``count`` runs of `CELLS` cells, a night of each cell after the other."""
    known = json.loads(data)
    old_id, old_start = known["id"].encode(), known["started_at"].encode()
    median = b'"median": %r' % known["timing"]["latency_ms"]["median"]
    batch = b'"batch_size": %d' % known["spec"]["batch_size"]
    for number in range(count):
        stamp = _stamp(number)
        run_id = f"{re.sub('[-:]', '', stamp)}Z-model-onnxruntime-fp32-{number:06x}"
        text = data.replace(old_id, run_id.encode()).replace(old_start, f"{stamp}+00:00".encode())
        text = text.replace(median, b'"median": %r' % random.uniform(1, 2), 1)
        text = text.replace(batch, b'"batch_size": %d' % (1 + number % CELLS), 1)
        folder = results / run_id
        folder.mkdir()
        (folder / "result.json").write_bytes(text)


def _stamp(number: int) -> str:
    """ISO 8601: the runs of a night one minute apart, a night a day."""
    day, place = divmod(number, CELLS)
    years, days = divmod(day, 336)
    month, date = divmod(days, 28)
    minute = f"{place // 60:02d}:{place % 60:02d}:00"
    return f"{2020 + years % 80}-{month + 1:02d}-{date + 1:02d}T{minute}"


def made_up(count: int) -> Iterator[tuple[_File, IndexedFigures]]:
    """``count`` rows over `CELLS` cells on `MACHINES` machines, in the order of time."""
    for number in range(count):
        night, place = divmod(number, CELLS * MACHINES)
        cell, machine = place % CELLS, place // CELLS
        name = f"{number:08x}-model-onnxruntime-fp32"
        yield (
            _File(f"nightly-{night}/{name}", number, 20_000),
            IndexedFigures(
                id=name,
                status="complete",
                started_at=_stamp(night * CELLS + cell),
                cell=Cell(f"model/onnxruntime/cpu/fp32/b{cell}/latency", f"{cell:016x}"),
                fingerprint=f"{machine:016x}",
                model="model",
                model_sha=None,
                commit=f"{night:040x}",
                branch="main",
                tags={"sweep": f"nightly-{night}", "night": str(night), "launch": "0"},
                values=tuple(random.uniform(1, 2) for _ in NAMES),
            ),
        )


def measure_files(results: Path, count: int, data: bytes) -> None:
    print(f"writing {count} files of {len(data) / 1e3:.0f} kB", file=sys.stderr)
    began = time.perf_counter()
    write_files(results, count, data)
    print(f"{count} files of {len(data) / 1e3:.0f} kB written in {_since(began):.1f} s")
    with Index(results) as index:
        began, cpu_began = time.perf_counter(), time.process_time()
        report = index.rebuild()
        seconds, cpu_s = _since(began), time.process_time() - cpu_began
        assert (report.indexed, report.skipped, report.uncounted) == (count, (), ())
        print(
            f"rebuild    {seconds:8.2f} s   {count / seconds:8.0f} files/s"
            f"   ({cpu_s:.2f} s of CPU, {count / cpu_s:.0f} files/s of it)"
        )
        began = time.perf_counter()
        assert index.refresh().unchanged == count
        seconds = _since(began)
        print(f"refresh    {seconds:8.2f} s   {count / seconds:8.0f} files/s, none changed")
    ask(results, count)


def measure_rows(results: Path, count: int) -> None:
    print(f"storing {count} rows", file=sys.stderr)
    with Index(results) as index:
        began = time.perf_counter()
        rows = made_up(count)
        with index_sql.transaction(index._db):
            index_sql.clear(index._db)
            for _ in range(0, count, BATCH):
                index_sql.fill(index._db, [row for row, _ in zip(rows, range(BATCH), strict=False)])
            index_sql.complete(index._db)
        print(f"{count} rows stored in {_since(began):.1f} s")
    ask(results, count)


def ask(results: Path, rows: int) -> None:
    """Time a query of one series."""
    size_mb = (results / FILE_NAME).stat().st_size / 1e6
    with Index(results) as index:
        series = [(one.cell.key, one.fingerprint) for one in index.cells()]
    random.shuffle(series)
    for kind in ("cold", "warm"):
        times, cpu_ms, points = [], 0.0, 0
        for key in (series * (ASKED // len(series) + 1))[:ASKED]:
            with Index(results) as index:
                if kind == "cold":
                    _forget(results / FILE_NAME)
                began, cpu_began = time.perf_counter(), time.process_time()
                points = len(index.series(*key, "latency_median"))
                times.append(_since(began) * 1e3)
                cpu_ms += (time.process_time() - cpu_began) * 1e3 / ASKED
        p95 = statistics.quantiles(times, n=20)[-1]
        print(
            f"series {kind} {statistics.median(times):8.2f} ms median, {p95:.2f} ms p95,"
            f" {cpu_ms:.2f} ms of CPU   {points} points of {rows} rows, database {size_mb:.0f} MB"
        )


def _forget(path: Path) -> None:
    """Ask the kernel to drop what it holds of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())  # it keeps what is not yet on the disk
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _since(began: float) -> float:
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", help="Where to write; emptied by nobody but you.")
    parser.add_argument("--result", help="The result file to copy; measured if not given.")
    given = parser.parse_args()
    random.seed(0)
    data = msgspec.json.format(template(given.result), indent=2)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for name in ("files", "rows"):
            (Path(folder) / name).mkdir()
        measure_files(Path(folder) / "files", given.rows, data)
        measure_rows(Path(folder) / "rows", 10 * given.rows)


if __name__ == "__main__":
    main()
