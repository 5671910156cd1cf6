"""A wall meter's log: parsed, placed on our clock, and read while another process writes it."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.analysis.energy.attribute import SourceReadings, Window, attribute
from harness.errors import UsageError
from harness.maybe import Unavailable, code_of
from harness.profiles.power import external
from harness.profiles.power.external import ExternalSource, Table, WallClock, parse_time_s
from harness.profiles.power.sources import PowerProfiler
from harness.protocols import Available, ProfilerContext


def source(path: Path) -> ExternalSource:
    return ExternalSource(ProfilerContext(pid=1, power_source=f"external:{path}"))


def opened(path: Path) -> ExternalSource:
    found = source(path)
    answer = found.open()
    assert isinstance(answer, Available), answer
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """[wall, monotonic] seconds, both set by the test."""
    now = [1_700_000_000.0, 500.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[1])
    return now


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


@pytest.mark.parametrize(
    "text",
    ["1700000000.25", "2023-11-14T22:13:20.250Z", "2023-11-14 23:13:20.25+01:00"],
)
def test_times_are_seconds_since_1970_or_iso_with_an_offset(text: str) -> None:
    assert parse_time_s(text) == 1_700_000_000.25


@pytest.mark.parametrize("text", ["2023-11-14T22:13:20", "noon", "", "nan"])
def test_other_times_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time_s(text)


def test_a_wall_time_is_placed_by_the_nearest_pair() -> None:
    clock = WallClock()
    assert clock.pair(1000.0, 10.0) == 0.0
    assert clock.pair(1000.5, 10.5) == 0.0
    assert clock.pair(1020.02, 30.0) == pytest.approx(0.02)  # slewed by 20 ms in 20 s
    assert clock.monotonic_s(1001.0) == pytest.approx(11.0)
    assert clock.monotonic_s(1019.0) == pytest.approx(28.98)
    assert clock.monotonic_s(990.0) == pytest.approx(0.0)


def test_rows_come_one_by_one_with_their_own_times(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("time_s,volts,power_w,energy_j\n1699999999,230,9,100\n")
    meter = opened(path)
    assert [channel.name for channel in meter.channels] == [
        "energy/wall_j",
        "power/wall_w",
        "time/wall_s",
    ]
    assert {channel.scope for channel in meter.channels} == {"wall"}
    assert [channel.tag for channel in meter.channels] == [
        "energy/wall_j",
        "power/wall_w",
        "time/wall_s",
    ]
    assert meter.read() == [None, None, None], "a row from before the run is no reading"
    clock[0] += 2
    clock[1] += 2
    append(path, "1700000001,230,50,150\n1700000002,231,60,2")
    assert meter.read() == [0.0, 50.0, 501.0]
    assert meter.read() == [None, None, None], "an unfinished line is no row"
    append(path, "10\n")
    assert meter.read() == [60.0, 60.0, 502.0]


def test_a_meter_that_logs_faster_than_it_is_read_loses_no_joule(
    tmp_path: Path, clock: list[float]
) -> None:
    """A log at 100 Hz, read at 10 Hz: twelve rows a reading before long, and no joule lost."""
    path = tmp_path / "meter.csv"
    start_s = 1_700_000_000.0
    old = "".join(f"{start_s - 1 + row / 100:.2f},7\n" for row in range(100))
    path.write_text("time_s,power_w\n" + old)
    meter = opened(path)
    assert meter.channels[0].period_s == pytest.approx(0.06, rel=1e-3)
    readings, row = [], 0
    for _ in range(60):
        clock[0] += 0.1
        clock[1] += 0.1
        fresh = ""
        for _ in range(10):
            power_w = 20.0 + row % 7
            fresh += f"{start_s + row / 100:.2f},{power_w}\n"
            row += 1
        append(path, fresh)
        readings.append(meter.read())
    known = [(power, at) for power, at in readings if power is not None and at is not None]
    assert meter.channels[0].period_s == pytest.approx(0.12, rel=1e-3)
    assert known[-1][1] > 505.8  # of 506: nothing is left waiting
    ends = [499.99, *(at for _, at in known)]
    joules = sum(power * (end - begin) for (power, end), begin in zip(known, ends, strict=False))
    handed_out_j = sum((20.0 + k % 7) / 100 for k in range(round((known[-1][1] - 499.99) * 100)))
    assert joules == pytest.approx(handed_out_j, rel=1e-5)


@pytest.mark.parametrize(
    "line",
    [
        "1700000000.5",
        "1700000000.5,ten",
        "1700000000.5,nan",
        "1700000000.5,-3",
        "2023-11-14T22:13:20,10",
        "1700000090,10",
        "1699999000,10",
        "1700000000.5,10,11",
    ],
)
def test_malformed_rows_are_counted_and_left_out(
    tmp_path: Path, clock: list[float], line: str
) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("time_s,power_w\n1699999999,5\n")
    meter = opened(path)
    append(path, f"{line}\n1700000000.75,20\n")
    assert meter.read() == [20.0, 500.75]
    assert meter.channels[0].facts == {"malformed_rows": 1.0}


def test_the_logging_period_is_learnt_from_older_rows(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "meter.csv"
    rows = "".join(f"{1_699_999_900 + 2 * row},{row}\n" for row in range(10))
    path.write_text("time_s,power_w\n" + rows)
    assert opened(path).channels[0].period_s == 2.0


def test_a_shortened_file_and_a_set_clock_break_the_source(
    tmp_path: Path, clock: list[float]
) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("time_s,power_w\n1699999999,5\n")
    shortened, adjusted = opened(path), opened(path)
    clock[0] += 7.0
    adjusted.read()
    clock[0] -= 7.0
    path.write_text("time_s\n")
    shortened.read()
    for meter in (shortened, adjusted):
        assert meter.read() == [None, None]
        reason = meter.channels[0].unavailable
        assert reason is not None
        assert code_of(reason) == "error"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "not_present"),
        ("", "error"),
        ("time_s,watts\n", "error"),
        ("power_w\n", "error"),
        ("time_s,power_w\nfoo,bar\n", "error"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str | None, code: str) -> None:
    path = tmp_path / "meter.csv"
    if text is not None:
        path.write_text(text)
    meter = source(path)
    answer = meter.open()
    meter.close()
    assert isinstance(answer, Unavailable)
    assert code_of(answer) == code


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "meter.csv"
    path.write_bytes(b"\xef\xbb\xbftime_s,power_w\r\n1699999999,5\r\n")
    meter = opened(path)
    append(path, "1700000000,7\r\n")
    assert meter.read() == [7.0, 500.0]


def test_a_file_must_be_named() -> None:
    with pytest.raises(UsageError, match="external:"):
        PowerProfiler(ProfilerContext(pid=1, power_source="external:"))


def test_empty_header_cells_do_not_matter() -> None:
    table = Table(["", " Time ", "POWER_W"])
    row = table.parse("x,12.5,3", now_s=13.0)
    assert row == external.Row(12.5, 3.0, None)


WRITER = """
import sys, time
path, period_s = sys.argv[1], float(sys.argv[2])
with open(path, "a", buffering=1) as log:
    log.write("time_s,power_w,energy_j\\n")
    row = 0
    while True:
        # The constant 40 W lets the reader know every row's energy from its time alone.
        now = time.time()
        log.write(f"{now:.6f},")
        log.flush()
        log.write(f"40,{40 * now:.6f}\\n")
        row += 1
        time.sleep(period_s)
"""


def test_a_log_that_another_process_is_still_writing(tmp_path: Path) -> None:
    """Six seconds of a meter at 25 Hz read at 50 Hz, attributed by counter and by power."""
    path = tmp_path / "meter.csv"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), "0.04"]) as process:
        try:
            while not (path.exists() and path.stat().st_size > 60):
                time.sleep(0.01)
            profiler = PowerProfiler(ProfilerContext(pid=1, power_source=f"external:{path}"))
            assert isinstance(profiler.open(), Available)
            times: list[int] = []
            rows: list[list[float | None]] = []
            while not times or times[-1] - times[0] < 6_600_000_000:
                times.append(time.perf_counter_ns())
                rows.append(list(profiler.read()))
                time.sleep(0.02)
        finally:
            process.kill()
    sources = [
        SourceReadings(channel, times, [row[index] for row in rows])
        for index, channel in enumerate(profiler.channels)
    ]
    profiler.close()
    start_ns = times[0] + 400_000_000
    window = Window(start_ns, start_ns + 5_500_000_000, 1000, guard_before_s=1, guard_after_s=1)
    energy = attribute(sources, window)
    assert not isinstance(energy, Unavailable)
    wall = energy.sources["wall"]
    if isinstance(wall.energy_j, Unavailable):
        # A stalled machine leaves gaps, and then there must be no figure.
        assert code_of(wall.energy_j) == "insufficient_samples"
        pytest.skip(f"the machine stalled: {wall.energy_j.reason}")
    assert wall.energy_j.value == pytest.approx(40 * 5.5, rel=1e-4)
    assert wall.scope == "wall"
    assert wall.method == "counter"
    assert energy.primary == "wall"


def test_iso_times_of_this_very_moment_are_not_the_future(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("time,power_w\n")
    meter = opened(path)
    append(path, f"{datetime.now(UTC).isoformat()},12\n")
    watts, stamp = meter.read()
    meter.close()
    assert watts == 12.0
    assert stamp is not None
    assert stamp <= time.perf_counter()
