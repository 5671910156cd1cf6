"""Each validity check, provoked by what it is there to find.

What needs hardware that may not be here (clocks, throttling) replays it in
``tests/unit/engine/test_assemble.py``; NaN outputs and a dead sampler are in ``test_faults.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from running import Harness, Ran

from harness.machine import usable_cpus

AT_ONCE = ("run", "--backend", "fakes:Fake", "--warmup", "0.3", "--max-warmup", "1",
           "--duration", "2", "--power-source", "none", "--json")  # fmt: skip
FAKE = (*AT_ONCE, "--option", "latency_us=2000")


def check(ran: Ran, name: str) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    (found,) = [c for c in ran.result["validity"] if c["name"] == name]
    return found


@contextmanager
def neighbour(cpu: int) -> Iterator[None]:
    """A stranger that burns one processor."""
    code = f"import os; os.sched_setaffinity(0, [{cpu}])\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.measures
def test_a_neighbour_that_burns_a_core_degrades_the_run(harness: Harness) -> None:
    cpu = usable_cpus()[0]
    with neighbour(cpu):
        ran = harness(*FAKE, "--cpus", str(cpu))

    found = check(ran, "foreign load")
    assert found["verdict"] == "warn", found
    assert "stop them, or set --cpus" in found["reason"]
    share = float(found["reason"].split("took ")[1].split("%")[0]) / 100
    assert share > 0.3  # of a core: the worker sleeps, Harness itself takes little
    assert ran.result["status"] == "degraded"


@pytest.mark.measures
def test_latency_that_grows_is_drift(harness: Harness) -> None:
    # About 800 iterations of 2 ms, each 0.5 us slower than the one before: + 10 % over two thirds.
    found = check(harness(*FAKE, "--option", "grow_us=0.5"), "drift")

    assert found["verdict"] == "warn", found
    assert found["reason"].startswith("last third's median +")
    assert "warm up longer, or look for heat" in found["reason"]


@pytest.mark.measures
def test_a_warm_up_that_never_settles_hits_its_cap(harness: Harness) -> None:
    ran = harness(*FAKE, "--option", "grow_us=10", "--duration", "0.5")

    assert ran.result["timing"]["warmup_end"] == "cap"
    found = check(ran, "steady")
    assert found["verdict"] == "warn"
    assert found["reason"].startswith("1 of 1 warm-ups hit the cap of 1 s; ")
    assert ran.result["status"] == "degraded"


def test_more_threads_than_processors(harness: Harness) -> None:
    threads = len(usable_cpus()) + 1
    ran = harness(*FAKE, "--threads", str(threads), "--duration", "0.5")

    found = check(ran, "affinity")
    assert found["verdict"] == "warn"
    assert found["reason"].startswith(f"{threads} threads on {threads - 1} usable processors; ")
    assert ran.result["status"] == "degraded"


def test_a_window_too_short_for_its_goal(harness: Harness) -> None:
    # One goal that nothing reaches: half a nanosecond in two milliseconds.
    goal = ("--precision-goal", "0.01%", "--duration", "1", "--max-duration", "1")
    ran = harness(*FAKE, *goal, "--require", "interval")

    assert ran.code == 3
    (found,) = [c for c in ran.result["validity"] if c["name"] == "interval"]
    assert found["verdict"] == "warn"
    assert found["threshold"] == "median's 95% interval within ±0.01%"
    assert ran.err.startswith("harness: --require interval: the median is known to ±")


@pytest.mark.measures
def test_reading_the_clock_matters_where_an_inference_takes_no_time(harness: Harness) -> None:
    found = check(harness(*AT_ONCE, "--duration", "0.5"), "timer")

    assert found["verdict"] == "warn"
    assert "raise --batch-size" in found["reason"]


def test_without_sampling_its_checks_are_unknown_and_do_not_degrade(harness: Harness) -> None:
    ran = harness(*FAKE, "--sample-rate", "0", "--duration", "0.5")

    for name in ("sampler", "foreign load", "steal", "throttled", "clocks"):
        found = check(ran, name)
        assert found["verdict"] == "unknown", name
        assert "give --sample-rate above 0" in found["reason"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_processor_that_is_not_ours_is_refused(harness: Harness) -> None:
    ran = harness(*FAKE, "--cpus", "4095")

    assert ran.code == 2
    assert ran.err.startswith("harness: --cpus names 4095; this process may use ")
