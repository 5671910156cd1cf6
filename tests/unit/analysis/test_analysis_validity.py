"""Every validity check in every state it can have, with its evidence exactly at the limit."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import msgspec
import pytest

from harness.analysis import validity
from harness.analysis.validity import Facts, checks, worst
from harness.maybe import Unavailable
from harness.records.result import Check, Fidelity, OutputFidelity

GONE = Unavailable("nobody looked", "look")
GOOD = Facts(
    warmup_ends=["steady", "steady"],
    max_warmup_s=10.0,
    goal=0.01,
    half_width=0.005,
    drift=0.0,
    drift_p=0.5,
    foreign_share=0.0,
    steal_share=0.0,
    disturbed_blocks=(0, 10),
    throttle_events=0.0,
    clock_drift=0.0,
    speed_change=0.0,
    threads=2,
    concurrency=1,
    usable_cpus=2,
    busy_cpus=1.5,
    sampler_cpu_share=0.005,
    sampler_gap_s=0.1,
    sampler_period_s=0.1,
    timer_share=0.0001,
    threads_ran=2,
    changed_outputs=(),
    nan=[],
    integer_nodes=3,
    precision="int8",
    fidelity=Fidelity(
        reference="fp32",
        samples=16,
        cosine=1.0,
        sqnr_db=40.0,
        max_abs_error=0.01,
        top1_agreement=1.0,
        output="y",
        outputs={
            "y": OutputFidelity(
                dtype="float32",
                elements=16,
                cosine=1.0,
                sqnr_db=40.0,
                max_abs_error=0.01,
                equal=0.0,
                equal_non_zero=GONE,
            )
        },
    ),
)
NAMES = (
    "steady", "interval", "drift", "foreign load", "steal", "disturbed blocks", "throttled",
    "clocks", "machine speed", "affinity", "sampler", "timer", "threads", "inputs unchanged",
    "finite outputs", "precision ran",
    "fidelity",
)  # fmt: skip


def check(name: str, **changes: Any) -> Check:
    (found,) = [c for c in checks(msgspec.structs.replace(GOOD, **changes)) if c.name == name]
    return found


def test_all_checks_are_there_in_order_and_pass_on_a_good_run() -> None:
    found = checks(GOOD)
    assert tuple(one.name for one in found) == NAMES
    assert {one.verdict for one in found} == {"pass"}
    assert all(one.reason for one in found)
    assert worst(found) == "pass"


def test_a_run_that_is_its_own_reference_has_no_fidelity_to_check() -> None:
    found = checks(msgspec.structs.replace(GOOD, fidelity=None))
    assert tuple(one.name for one in found) == NAMES[:-1]


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("steady", {"warmup_ends": ["steady", "cap"]}, "warn"),
        ("interval", {"half_width": 0.01}, "pass"),
        ("interval", {"half_width": 0.010001}, "warn"),
        ("interval", {"goal": None, "half_width": 0.05}, "pass"),  # a fixed window has no goal
        ("interval", {"goal": None, "half_width": 0.0501}, "warn"),
        ("interval", {"half_width": GONE}, "unknown"),
        ("drift", {"drift": 0.03, "drift_p": 0.0}, "pass"),
        ("drift", {"drift": 0.031, "drift_p": 0.049}, "warn"),
        ("drift", {"drift": -0.031, "drift_p": 0.049}, "warn"),  # faster and faster is drift, too
        ("drift", {"drift": 0.5, "drift_p": 0.05}, "pass"),  # large, but by chance
        ("drift", {"drift": GONE}, "unknown"),
        ("drift", {"drift_p": GONE}, "unknown"),
        ("foreign load", {"foreign_share": 0.05}, "pass"),
        ("foreign load", {"foreign_share": 0.0501}, "warn"),
        ("foreign load", {"foreign_share": GONE}, "unknown"),
        ("steal", {"steal_share": 0.01}, "pass"),
        ("steal", {"steal_share": 0.0101}, "warn"),
        ("steal", {"steal_share": GONE}, "unknown"),
        ("throttled", {"throttle_events": 1.0}, "warn"),
        ("throttled", {"throttle_events": GONE}, "unknown"),
        ("clocks", {"clock_drift": 0.03}, "pass"),
        ("clocks", {"clock_drift": 0.0301}, "warn"),
        ("clocks", {"clock_drift": GONE}, "unknown"),
        ("machine speed", {"speed_change": 0.05}, "pass"),
        ("machine speed", {"speed_change": 0.0501}, "warn"),
        ("machine speed", {"speed_change": GONE}, "unknown"),
        ("affinity", {"threads": 1, "concurrency": 2}, "pass"),
        ("affinity", {"threads": 3}, "warn"),
        ("affinity", {"threads": 2, "concurrency": 2}, "warn"),
        ("sampler", {"sampler_cpu_share": 0.02}, "pass"),
        ("sampler", {"sampler_cpu_share": 0.0201}, "warn"),
        ("sampler", {"sampler_cpu_share": 0.1, "busy_cpus": 1.0}, "pass"),  # one is free for it
        ("sampler", {"sampler_cpu_share": 0.1001, "busy_cpus": 1.0}, "warn"),
        ("sampler", {"sampler_cpu_share": 0.0201, "busy_cpus": GONE}, "warn"),
        ("sampler", {"sampler_gap_s": 0.5}, "pass"),
        ("sampler", {"sampler_gap_s": 0.501}, "warn"),
        ("sampler", {"sampler_cpu_share": GONE}, "unknown"),
        ("sampler", {"sampler_gap_s": GONE}, "unknown"),
        ("timer", {"timer_share": 0.01}, "pass"),
        ("timer", {"timer_share": 0.0101}, "warn"),
        ("timer", {"timer_share": GONE}, "unknown"),
        ("finite outputs", {"nan": ["logits"]}, "fail"),
        ("finite outputs", {"nan": GONE}, "unknown"),
        ("finite outputs", {"infinite": ["logits"]}, "fail"),
        ("finite outputs", {"infinite": ["logits"], "allow_infinite": True}, "pass"),
        ("finite outputs", {"nan": ["logits"], "allow_infinite": True}, "fail"),
        ("precision ran", {"integer_nodes": 1}, "pass"),
        ("precision ran", {"integer_nodes": 0}, "warn"),
        ("precision ran", {"integer_nodes": GONE}, "unknown"),
    ],
)
def test_verdicts_at_and_beyond_each_limit(
    name: str, changes: dict[str, Any], verdict: str
) -> None:
    found = check(name, **changes)
    assert found.verdict == verdict
    if verdict == "unknown":
        assert found.reason == "nobody looked; look"


def test_one_fact_moves_one_check() -> None:
    """Each evidence that is missing makes its own check unknown and leaves the others alone."""
    fields = (
        "half_width", "drift", "foreign_share", "steal_share", "disturbed_blocks",
        "throttle_events", "clock_drift", "speed_change", "sampler_gap_s", "timer_share",
        "threads_ran", "changed_outputs", "nan",
        "integer_nodes", "fidelity",
    )  # fmt: skip
    moved = []
    for field in fields:
        found = checks(msgspec.structs.replace(GOOD, **{field: GONE}))
        moved += [one.name for one in found if one.verdict == "unknown"]
        assert worst(found) == "pass"  # not knowing does not degrade
    assert moved == [name for name in NAMES if name not in ("steady", "affinity")]


def test_a_warning_says_what_was_seen_the_limit_and_what_to_do() -> None:
    assert check("foreign load", foreign_share=0.25) == Check(
        name="foreign load",
        verdict="warn",
        reason="other processes took 25.0% of a core; stop them, or set --cpus",
        threshold="at most 5%",
    )
    assert check("throttled", throttle_events=3.0).reason.startswith("3 throttle events")
    assert check("throttled").threshold == "none"
    steady = check("steady", warmup_ends=["cap", "steady", "cap"], max_warmup_s=4.0)
    assert steady.reason.startswith("2 of 3 warm-ups hit the cap of 4 s; raise --max-warmup")
    affinity = check("affinity", threads=4)
    assert affinity.reason.startswith("4 threads on 2 usable processors; lower --threads")
    drift = check("drift", drift=-0.1, drift_p=0.001)
    assert drift.reason.startswith("last third's median -10.00% against the first (p = 0.001)")


def test_outputs_that_are_not_finite_are_told_apart() -> None:
    drawn = " (on drawn inputs: --inputs FILE.npz binds real ones)"
    for facts, reason in (
        ({"nan": ["a", "b"], "infinite": ["c"]}, "NaN in a, b"),
        ({"nan": ["a"], "drawn": True}, f"NaN in a{drawn}"),
        ({"infinite": ["a"]}, "infinity in a; if it is an answer, --allow-infinite"),
        ({"infinite": ["a"], "allow_infinite": True}, "infinity in a, as allowed; no NaN"),
        ({"unseen": {"s": "a sequence"}}, "not every output could be looked at: s is a sequence"),
        ({"unseen": {"s": "text"}, "nan": ["a"]}, "NaN in a"),
    ):
        assert check("finite outputs", **facts).reason == reason
    assert check("finite outputs", unseen={"s": "a sequence"}).verdict == "unknown"


def test_the_numbers_of_the_documentation() -> None:
    assert (validity.FOREIGN_LIMIT, validity.STEAL_LIMIT, validity.TIMER_LIMIT) == (
        0.05, 0.01, 0.01,
    )  # fmt: skip
    assert (validity.DRIFT_LIMIT, validity.CLOCK_DRIFT_LIMIT) == (0.03, 0.03)
    assert (validity.SAMPLER_CPU_LIMIT, validity.SAMPLER_GAP_PERIODS) == (0.02, 5.0)
    assert validity.FIXED_WINDOW_LIMIT == 0.05


def some(verdicts: Iterable[Any]) -> list[Check]:
    return [Check(name="x", verdict=verdict, reason="") for verdict in verdicts]


@pytest.mark.parametrize("order", list(product(("pass", "unknown", "warn", "fail"), repeat=3)))
def test_the_worst_verdict_decides_in_any_order(order: tuple[str, ...]) -> None:
    expected = "fail" if "fail" in order else "warn" if "warn" in order else "pass"
    assert worst(some(order)) == expected


def test_no_check_at_all_is_no_doubt() -> None:
    assert worst([]) == "pass"


@pytest.mark.parametrize(
    ("ran", "verdict", "reason"),
    [
        (2, "pass", "it ran on 2 threads, of 2 asked for"),
        (1, "warn", "it ran on 1 thread, of 2 asked for; the model sets the number as it runs: "
         "take that out, or ask for --threads 1"),
        (GONE, "unknown", "nobody looked; look"),
    ],
)  # fmt: skip
def test_threads_that_do_not_hold(ran: Any, verdict: str, reason: str) -> None:
    (check,) = (c for c in checks(msgspec.structs.replace(GOOD, threads_ran=ran))
                if c.name == "threads")  # fmt: skip
    assert (check.verdict, check.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("changed", "kept", "verdict", "reason"),
    [
        ((), "", "pass", "the same outputs after the window as on inputs bound anew"),
        (("y", "z"), "", "warn", "y, z differs after the window from what inputs bound anew give; "
         "the model changes its inputs, or keeps a state: have forward work on a copy"),
        ((), "copied anew", "warn", "copied anew; have forward work on a copy"),
        (GONE, "", "unknown", "nobody looked; look"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_stay(changed: Any, kept: str, verdict: str, reason: str) -> None:
    facts = msgspec.structs.replace(GOOD, changed_outputs=changed, inputs_kept=kept)
    (check,) = (c for c in checks(facts) if c.name == "inputs unchanged")
    assert (check.verdict, check.reason) == (verdict, reason)
