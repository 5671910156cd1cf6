"""Processor time per inference, and the machine's own speed, from numbers made by hand."""

from __future__ import annotations

from itertools import accumulate, count

from harness.analysis.processor import busy_cpus, cpu_ms, speed_change, yardstick_ms
from harness.engine.worker.yardstick import yardstick_ns
from harness.maybe import Unavailable


def test_processor_time_is_shared_by_all_iterations_of_all_launches() -> None:
    """8 ms and 4 ms over three and one iterations; a launch that could not say is left out."""
    assert cpu_ms([(8_000_000, 3), None, (4_000_000, 1)]) == 3.0


def test_what_no_worker_could_say_is_absent() -> None:
    for spent in ([], [None], [(5, 0)]):
        assert isinstance(cpu_ms(spent), Unavailable)
    assert isinstance(yardstick_ms((0, 0)), Unavailable)
    assert isinstance(yardstick_ms((2_000_000, 0)), Unavailable)
    assert isinstance(speed_change([]), Unavailable)


def test_the_launch_whose_machine_changed_most_counts() -> None:
    lost = yardstick_ms((0, 0))
    assert yardstick_ms((2_000_000, 2_200_000)) == (2.0, 2.2)
    assert speed_change([(2.0, 2.0), lost, (2.0, 1.5), (2.0, 2.25)]) == 0.25
    assert speed_change([lost]) == lost


def test_a_yardstick_is_the_median_of_its_pieces() -> None:
    """A clock whose n-th piece takes n us: after 5 cold ones, of 65 the 33rd is in the middle."""
    readings = accumulate(count(0), lambda now, n: now + 1000 * n)
    assert yardstick_ns(lambda: next(readings)) == 38_000


def test_a_yardstick_gives_up_on_a_machine_that_is_too_busy() -> None:
    """Pieces of 15 ms: the third ends beyond 40 ms, and is the last."""
    readings = list(range(0, 60_000_000, 15_000_000))
    left = iter(readings)
    assert yardstick_ns(lambda: next(left)) == 15_000_000
    assert list(left) == []


def test_how_many_processors_a_worker_kept_busy() -> None:
    windows = [((3_000, 5), (0, 2_000)), (None, (0, 9)), ((1_000, 1), None), ((0, 0), (7, 2_007))]
    assert busy_cpus(windows) == 3_000 / 4_000
    assert isinstance(busy_cpus([(None, None), ((5, 1), (3, 3))]), Unavailable)
