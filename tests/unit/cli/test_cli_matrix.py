"""The capability matrix: what doctor says of machines that are folders, and how it groups."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from privileges import nobody
from test_powercap import Tree

from harness.inspect import findings
from harness.inspect import meters as matrix
from harness.inspect.probe import ProfilerStatus
from harness.maybe import Unavailable, coded
from harness.profiles.power.sources import COVERS, SOURCES
from harness.protocols import Available, Channel

GONE = coded("not_present", "no sensor", "fit one")


def channel(name: str, tag: str = "memory/x", scope: str = "process", **changes: object) -> Channel:
    return Channel(name, "s", "gauge", tag, scope, **changes)  # type: ignore[arg-type]


def test_channels_share_a_line_where_quantity_scope_reason_and_period_agree() -> None:
    lines = matrix.channel_lines(
        [
            channel("a"),
            channel("b"),
            channel("c", scope="machine"),
            channel("d", unavailable=GONE),
            channel("e", unavailable=GONE),
            channel("f", period_s=0.1),
            channel("g", tag="clocks/g"),
        ]
    )
    assert lines == [
        ("memory", "process", "yes", "a, b"),
        ("memory", "machine", "yes", "c"),
        ("memory", "process", "n/a", "d, e: no sensor; fit one"),
        ("memory", "process", "yes", "f, every 100 ms"),
        ("clocks", "process", "yes", "g"),
    ]


def test_many_channels_are_a_range() -> None:
    cores = [channel(f"cpu{number}_s") for number in range(128)]
    ((_, _, _, detail),) = matrix.channel_lines(cores)
    assert detail == "cpu0_s to cpu127_s (128)"


def test_each_label_stands_once_and_a_profiler_without_channels_says_why() -> None:
    found = [
        ProfilerStatus("one", Available(), (channel("a"), channel("b", scope="machine"))),
        ProfilerStatus("two", Unavailable("broken", "mend it"), ()),
        ProfilerStatus("three", GONE, (channel("c", tag="", unavailable=GONE),)),
        ProfilerStatus("power", Available(), (channel("p", tag="power/p"),)),
    ]
    assert matrix.profiler_lines(found) == [
        ("memory", "process", "yes", "a"),
        ("", "machine", "yes", "b"),
        ("two", "", "n/a", "broken; mend it"),
        ("three", "process", "n/a", "c: no sensor; fit one"),
    ]


def test_every_source_has_a_line_on_a_machine_without_any(tmp_path: Path) -> None:
    found = matrix.meters(str(tmp_path))
    assert [meter.name for meter in found] == list(SOURCES) == list(COVERS)
    lines = {name: (scopes, verdict) for name, scopes, verdict, _ in matrix.meter_lines(found)}
    assert lines == {name: (COVERS[name][0], "n/a") for name in SOURCES}
    assert all(isinstance(m.status, Unavailable) and m.status.remedy for m in found)
    (external,) = [meter for meter in found if meter.name == "external"]
    assert external.selected == "--power-source external:FILE.csv"


def test_a_readable_counter_shows_scope_meters_and_period(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:0:0", "dram")
    lines = [line for line in matrix.meter_lines(matrix.meters(str(tmp_path))) if line[2] == "yes"]
    assert lines == [
        ("powercap", "cpu-package", "yes", "energy/package-0_j, every 1 ms"),
        ("", "dram", "yes", "energy/package-0-dram_j, every 1 ms"),
    ]


def test_a_forbidden_counter_shows_the_command_that_grants_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tree = Tree(Path(folder))
        tree.zone("intel-rapl:0", "package-0")
        (tree.folder / "intel-rapl:0/energy_uj").chmod(0o400)
        with nobody():
            found = matrix.meters(folder)
    (line,) = [line for line in matrix.meter_lines(found) if line[0] == "powercap"]
    assert line[2] == "n/a"
    assert "energy_uj is readable by root alone" in line[3]
    assert "sudo chmod a+r /sys/class/powercap/*/energy_uj" in line[3]
    assert 'SUBSYSTEM=="powercap"' in line[3]


@pytest.mark.parametrize(
    ("stat", "verdict"),
    [
        ("cpu  10 0 5 100 0 0 0 3 0 0\ncpu0 1 2 3 4\n", "pass"),
        ("cpu  0 0 0 0 0 0 0 0 0 0\n", "unknown"),  # gVisor
        ("cpu  10 0 5 100\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_whether_steal_can_be_seen(stat: str, verdict: str) -> None:
    assert findings._steal(stat).verdict == verdict


def test_whether_peaks_can_be_reset(tmp_path: Path) -> None:
    path = tmp_path / "clear_refs"
    absent = findings._peaks(path)
    assert (absent.verdict, "No such file" in absent.found) == ("unknown", True)
    path.write_text("untouched")
    assert findings._peaks(path).verdict == "pass"
    assert path.read_text() == "untouched"
