"""Two sockets, one of whose meters fails: a part is never the whole, in any launch.

A powercap tree in a folder is read by the real reader while it counts 100 W and 60 W under load.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_assemble import result_of
from test_energy import READS, SECOND, WINDOW, channel, code, counter, energy_of, spread
from test_powercap import Tree, as_nobody, open_folder, opened  # noqa: F401  (a fixture)

from harness.analysis.energy.attribute import SourceReadings, attribute
from harness.analysis.energy.pool import pool
from harness.maybe import Maybe, Unavailable, coded, explain
from harness.records import primary
from harness.records.figures import of_run
from harness.records.metric import METRICS
from harness.records.primary import settled
from harness.records.result import Energy
from harness.views.text import rows

FIRST, SECOND_ZONE = "intel-rapl:0", "intel-rapl:1"
LOAD_W = {FIRST: 100.0, SECOND_ZONE: 60.0}
BREAKS_AT_S = 16.0  # in the middle of the window from 12 to 20 s
_SECOND = "energy/package-1_j"
Fault = Callable[[Tree, float], None]


def _measure(tree: Tree, fault: Fault | None = None) -> Energy:
    """32 s of readings of ``tree``, to whose second zone ``fault(tree, joules)`` happens."""
    source = opened(tree)
    rows = []
    for index, at_s in enumerate(READS):
        for zone, watts in LOAD_W.items() if index else ():
            joules = (watts if 10.0 < at_s <= 22.0 else 20.0) * 0.1
            if zone == SECOND_ZONE and fault is not None and at_s >= BREAKS_AT_S:
                fault(tree, joules)
            else:
                tree.add(zone, joules)
        rows.append(list(source.read()))
    times = [round(at_s * SECOND) for at_s in READS]
    columns = zip(source.channels, zip(*rows, strict=True), strict=True)
    source.close()
    return energy_of(*(SourceReadings(one, times, values) for one, values in columns))


def _file(tree: Tree) -> Path:
    return tree.folder / SECOND_ZONE / "energy_uj"


def _unreadable(tree: Tree, _joules: float) -> None:
    _file(tree).write_text("not now\n")


def _frozen(_tree: Tree, _joules: float) -> None:
    pass


def _once(change_uj: Callable[[int], int]) -> Fault:
    done: list[float] = []

    def fault(tree: Tree, joules: float) -> None:
        if not done:
            _file(tree).write_text(f"{change_uj(int(_file(tree).read_text()))}\n")
        done.append(joules)
        tree.add(SECOND_ZONE, joules)

    return fault


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.zone(FIRST, "package-0", 5_000_000)
    tree.zone(SECOND_ZONE, "package-1", 900_000_000)
    return tree


def average_power_w(energy: Energy) -> Maybe[float]:
    """Of the launch that it is made of, and of the run that holds it."""
    found = of_run(SimpleNamespace(energy=energy), METRICS["power_average"])
    assert found == primary.average_power_w(energy)
    return found


def test_two_sockets_that_work_add_up(tree: Tree) -> None:
    found = _measure(tree)
    assert found.primary == "powercap-total"
    assert spread(found.joules_per_inference).value == pytest.approx(160.0 * 8 / 800)
    assert average_power_w(found) == pytest.approx(160.0)


@pytest.mark.parametrize(
    ("fault", "why", "told"),
    [
        pytest.param(_unreadable, "insufficient_samples", "the readings begin", id="unreadable"),
        pytest.param(_frozen, "insufficient_samples", "the readings begin", id="frozen"),
        pytest.param(_once(lambda _: 0), "counter_reset", "restarted", id="reset"),
        pytest.param(
            _once(lambda now: now - 20_000_000), "counter_reset", "restarted", id="20 J back"
        ),
    ],
)
def test_a_socket_that_fails_leaves_no_sum(tree: Tree, fault: Fault, why: str, told: str) -> None:
    found = _measure(tree, fault)
    assert found.primary == "powercap-total"
    absent = found.joules_per_inference
    assert code(absent) == why
    assert isinstance(absent, Unavailable)
    assert absent.reason.startswith(f"{why}: package-1: ") and told in absent.reason
    assert average_power_w(found) == absent
    # the parts stay to be seen, as parts
    assert found.sources["powercap-total"].parts == ("package-0", "package-1")
    assert spread(found.sources["package-0"].energy_j).value == pytest.approx(800.0)
    assert code(found.sources["package-1"].energy_j) == why


def test_a_counter_that_stops_for_a_second_and_goes_on_has_no_sum(tree: Tree) -> None:
    """What it missed is nowhere, so that its difference is too small."""
    at = iter(np.arange(BREAKS_AT_S, 40.0, 0.1))

    def pauses(tree: Tree, joules: float) -> None:
        if next(at) > BREAKS_AT_S + 1.0:
            tree.add(SECOND_ZONE, joules)

    found = _measure(tree, pauses)
    assert isinstance(found.joules_per_inference, Unavailable)
    assert "package-1: a gap of 1" in found.joules_per_inference.reason


@pytest.mark.usefixtures("open_folder")
def test_a_socket_that_is_forbidden_from_the_start_leaves_no_sum(tree: Tree) -> None:
    _file(tree).chmod(0o000)
    with as_nobody():
        source = opened(tree)
    channels = {one.name: one.unavailable for one in source.channels}
    source.close()
    found = energy_of(counter(), counter("energy/package-1_j", unavailable=channels[_SECOND]))
    absent = found.joules_per_inference
    assert isinstance(absent, Unavailable)
    assert absent == found.sources["test-total"].gross_j_per_inference
    assert absent.reason.startswith("permission_denied: package-1: energy_uj is readable by root")
    assert "chmod a+r" in absent.remedy


def test_a_source_that_sees_one_of_two_sockets_has_a_part() -> None:
    found = energy_of(counter(), sockets=2)
    assert code(found.joules_per_inference) == "not_present"
    assert "counts 1 of 2 sockets" in explain(found.sources[found.primary].energy_j)  # type: ignore[arg-type]
    assert spread(found.sources["package-0"].energy_j).value == pytest.approx(800.0)


def test_another_scope_stands_in_for_a_broken_sum() -> None:
    broken = counter("energy/package-1_j", unavailable=coded("error", "broken"))
    found = energy_of(counter(), broken, counter("energy/wall_j", scale=2.0, scope="wall"))
    assert found.primary == "wall"
    assert spread(found.joules_per_inference).value == pytest.approx(2.0)


def _powers(second: float | None) -> list[SourceReadings]:
    """Two sockets of a chip that gives power alone."""
    times = [round(at_s * SECOND) for at_s in READS]
    wobble = [50.0 + index % 2 for index in range(len(READS))]
    rows = [wobble, [None if second is None else second + value for value in wobble]]
    return [
        SourceReadings(channel(f"power/socket{index}_w", period_s=0.1), times, row)
        for index, row in enumerate(rows)
    ]


def test_powers_of_sockets_add_up_too() -> None:
    found = energy_of(*_powers(20.0))
    assert found.primary == "test-total"
    assert spread(found.joules_per_inference).value == pytest.approx(121.0 * 8 / 800, rel=2e-3)
    assert isinstance(energy_of(*_powers(None)).joules_per_inference, Unavailable)


def test_an_energy_and_a_power_are_no_sum() -> None:
    found = energy_of(counter(), _powers(0.0)[1])
    assert code(found.joules_per_inference) == "not_supported"


def test_an_idle_stretch_without_a_part_gives_no_net_energy() -> None:
    """The frozen counter catches up before the load begins."""
    whole = counter("energy/package-1_j")
    values = [0.0 if at_s < 9.5 else value for at_s, value in zip(READS, whole.values, strict=True)]
    found = energy_of(counter(), SourceReadings(whole.channel, whole.times_ns, values))
    total = found.sources["test-total"]
    assert spread(total.gross_j_per_inference).value == pytest.approx(2.0)
    assert isinstance(total.idle_before_w, Unavailable)
    assert isinstance(total.net_j_per_inference, Unavailable)


# --- several launches ---------------------------------------------------------------------------


def _launches(*, wall_in_second: bool = True) -> list[Maybe[Energy]]:
    """The second of two launches lacks a socket; both have a wall meter."""
    wall = counter("energy/wall_j", scale=2.5, scope="wall")
    broken = counter("energy/package-1_j", unavailable=coded("error", "broken"))
    second = [counter(), broken, wall] if wall_in_second else [counter(), broken]
    return [
        attribute([counter(), counter("energy/package-1_j"), wall], WINDOW),
        attribute(second, WINDOW),
    ]


def test_all_launches_go_by_the_meter_that_has_a_figure_in_each() -> None:
    apart = _launches()
    assert [one.primary for one in apart if not isinstance(one, Unavailable)] == [
        "test-total",
        "wall",
    ]
    both = settled(apart, "cpu")
    joules = [one.joules_per_inference for one in both if not isinstance(one, Unavailable)]
    assert [spread(one).value for one in joules] == pytest.approx([2.5, 2.5])
    pooled = pool(both)
    assert not isinstance(pooled, Unavailable) and pooled.primary == "wall"
    assert spread(pooled.joules_per_inference).value == pytest.approx(2.5)


def test_a_launch_that_lacks_a_part_takes_the_headline_from_the_run() -> None:
    both = settled(_launches(wall_in_second=False), "cpu")
    joules = [one.joules_per_inference for one in both if not isinstance(one, Unavailable)]
    assert spread(joules[0]).value == pytest.approx(2.0)
    assert code(joules[1]) == "error"
    pooled = pool(both)
    assert not isinstance(pooled, Unavailable) and pooled.primary == "test-total"
    assert code(pooled.joules_per_inference) == "error"


def test_without_a_meter_that_covers_the_device_there_is_no_power_either() -> None:
    found = energy_of(counter("energy/dram_j", scope="dram"))
    assert found.primary == "" and isinstance(average_power_w(found), Unavailable)


def test_what_is_shown_of_a_part_says_that_it_is_one() -> None:
    run = result_of([counter(), counter("energy/package-1_j")])
    shown = {row.name: row for row in rows(run)}
    assert shown["package-0"].note.endswith("a part of test-total")
    assert "a part of" not in shown["per inf."].note
