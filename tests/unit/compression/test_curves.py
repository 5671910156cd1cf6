"""What the charts of a capacity and of a roofline are drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from board_runs import tab
from curve_runs import ROOFS, capacity, profiled, put_capacity
from made_runs import made

from harness.analysis.roofline import roofline
from harness.compression.curves import curve
from harness.compression.from_results import board_from
from harness.compression.model import LatencyBound
from harness.maybe import Unavailable
from harness.records.capacity import CAPACITY_NAME, read_capacity

RIDGES = (1e10 / 5e9, 1e10 / 1e9)  # operations a byte: of the fastest copy, of the largest


def test_operators_stand_where_their_work_and_their_time_put_them() -> None:
    found = roofline(profiled())
    assert found is not None
    wide, narrow, whole = found.points
    assert (wide.name, wide.type, wide.bound) == ("wide", "MatMul", "compute")
    assert wide.intensity == pytest.approx(524_288 / 49_152)
    assert wide.per_s == pytest.approx(524_288 / 1e-3)
    assert wide.of_model == 0.5
    # 49,152 bytes at 5 GB/s take 9.83 us, 524,288 operations at 10 GOP/s 52.4 us: of 1 ms
    assert wide.share == pytest.approx(0.0524288)
    assert narrow.per_s == pytest.approx(8192 / 0.25e-3) and narrow.bound == "memory"
    assert whole.whole and whole.intensity == pytest.approx(
        (524_288 + 8192) / (49_152 + 16_896 + 32_768)
    )
    assert found.left_out == ("1 (they only move data)",)


def test_roofs_are_drawn_from_end_to_end() -> None:
    found = roofline(profiled())
    assert found is not None
    product, fastest, largest = found.lines
    assert (product.name, fastest.name, largest.name) == (
        "product 384",
        "copy 256 KiB",
        "copy 128 MiB",
    )
    assert product.start == pytest.approx((RIDGES[0], 1e10)) and product.end[1] == 1e10
    assert fastest.end == pytest.approx((RIDGES[0], 1e10))
    assert largest.end == pytest.approx((RIDGES[1], 1e10))
    for line in (fastest, largest):  # bytes a second times operations a byte
        assert line.start[1] == pytest.approx(line.start[0] * line.per_s)
    spots = [point.intensity for point in found.points]
    assert fastest.start[0] < min(spots) and product.end[0] > max(spots)


def test_no_roof_no_picture() -> None:
    assert roofline(Unavailable("not asked for")) is None
    assert roofline(profiled(Unavailable("no roof here"))) is None
    assert roofline(profiled(ROOFS[:2])) is None  # no copies


def test_a_record_becomes_a_curve_by_rising_rate() -> None:
    found, _ = capacity(joules=(0.5, None, 0.25))
    below = msgspec.structs.replace(found.probes[0], rate_per_s=200.0)
    assert [
        point.rate_per_s for point in curve(msgspec.structs.replace(found, curve=(below,))).measured
    ] == [200, 376, 400, 412]
    drawn = curve(found)
    assert (drawn.per_s, drawn.low, drawn.high) == (400.0, 380.0, 420.0)
    assert drawn.bounds == (LatencyBound("p99=10ms", 10.0, "p99_ms"),)
    points = [
        (376.0, 2.0, 8.0, 0.7, 0.5, "pass"),
        (400.0, 3.0, 10.0, 0.8, None, "undecided"),
        (412.0, 4.0, 12.0, 0.9, 0.25, "fail, not stationary"),
    ]
    assert [msgspec.structs.astuple(one) for one in drawn.measured] == [
        tuple(pytest.approx(value) if isinstance(value, float) else value for value in point)
        for point in points
    ]
    assert [point.rate_per_s for point in drawn.predicted] == pytest.approx([120, 280, 400])


def test_without_an_interval_the_reason_is_kept() -> None:
    found, _ = capacity(ci95=Unavailable("2 probes are too few for an interval", "--probes 3"))
    drawn = curve(found)
    assert drawn.low is None and "too few" in drawn.why_no_interval


def test_the_tab_has_both_curves(tmp_path: Path) -> None:
    found, loop = capacity()
    loop = msgspec.structs.replace(loop, operators=profiled())
    folder = put_capacity(tmp_path, found, loop)
    (entry,) = tab(tmp_path).entries
    assert entry.capacity == curve(found) and entry.roofline == roofline(profiled())
    assert board_from([loop], [folder]).entries == (entry,)
    inside = tab(tmp_path / found.id)  # TensorBoard on the capacity's own folder
    assert inside.entries[0].capacity == curve(found)


def test_the_events_of_the_curve_are_ours(tmp_path: Path) -> None:
    from harness.board.logged import logged_in
    from harness.tensorboard.capacity import write_curve

    found, loop = capacity()
    folder = put_capacity(tmp_path, found, loop).parent
    write_curve(folder, msgspec.to_builtins(found))
    assert any("tfevents" in path.name for path in folder.iterdir())
    assert logged_in(tmp_path).unused == ()


def test_a_copied_run_has_no_curve_and_a_damaged_record_is_named(tmp_path: Path) -> None:
    found, loop = capacity()
    folder = put_capacity(tmp_path, found, loop)
    record = folder.parent / CAPACITY_NAME
    record.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, id="another")))
    assert tab(tmp_path).entries[0].capacity is None
    record.write_text("{")
    board = tab(tmp_path)
    assert board.entries[0].capacity is None and any("damaged" in note for note in board.notes)
    record.unlink()
    assert tab(tmp_path).notes == () and read_capacity(folder.parent) is None


def test_a_probe_has_no_curve_of_its_own(tmp_path: Path) -> None:
    found, loop = capacity()
    folder = put_capacity(tmp_path, found, loop)
    probe = made(2.0, scenario="server", rate=400.0, tags={"capacity": found.id})
    entries = board_from([loop, probe], [folder, folder]).entries
    assert [entry.capacity is not None for entry in entries] == [True, False]


def test_a_record_of_a_later_version_is_read(tmp_path: Path) -> None:
    found, _ = capacity()
    raw = json.loads(msgspec.json.encode(found))
    raw["spec"]["of_tomorrow"] = 1
    raw["more"] = True
    (tmp_path / CAPACITY_NAME).write_text(json.dumps(raw))
    assert read_capacity(tmp_path) == found


def test_another_record_beside_the_events_is_news(tmp_path: Path) -> None:
    from board_runs import provider
    from tensorboard.context import RequestContext

    from harness.board.source import Source

    found, loop = capacity()
    folder = put_capacity(tmp_path, found, loop)
    source = Source(provider(tmp_path), tmp_path)
    before, _ = source.json(RequestContext(), "")
    assert source.json(RequestContext(), "")[0] == before
    grown = msgspec.structs.replace(found, limit="saturation", ended="most probes")
    (folder.parent / CAPACITY_NAME).write_bytes(msgspec.json.encode(grown))
    after, content = source.json(RequestContext(), "")
    assert after != before and b"saturation" in content
