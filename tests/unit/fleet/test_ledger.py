"""Exactly one row a task, whoever measures, stops, dies or comes back late, in whatever order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ResultError
from harness.fleet.ledger import Lease, Ledger, Row

LEASE_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def row(task: str, node: str = "a", outcome: str = "result") -> Row:
    return Row(task=task, cell="digits", machine_class="any", outcome=outcome, node=node)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger(tmp_path, LEASE_S, clock)


def test_one_attempt_at_a_time(ledger: Ledger) -> None:
    first = ledger.acquire("t")
    assert first is not None and first.attempt == 1
    assert ledger.acquire("t") is None
    assert ledger.held("t") and not ledger.held("u")


def test_a_lease_without_a_heartbeat_is_anybodys(ledger: Ledger, clock: Clock) -> None:
    first = ledger.acquire("t")
    assert first is not None
    clock.now_s += LEASE_S - 1
    assert ledger.renew(first)
    clock.now_s += LEASE_S - 1
    assert ledger.acquire("t") is None
    clock.now_s += 1
    second = ledger.acquire("t")
    assert second is not None and second.attempt == 2
    assert not ledger.renew(first)
    assert ledger.renew(second)


def test_a_late_heartbeat_gives_no_lease_back(ledger: Ledger, clock: Clock) -> None:
    first = ledger.acquire("t")
    assert first is not None
    clock.now_s += LEASE_S
    assert ledger.acquire("t") is not None
    ledger.renew(first)
    clock.now_s += LEASE_S - 1
    assert ledger.acquire("t") is None  # it is the second's, which still has a second left


def test_a_lease_that_is_given_back_can_be_taken_at_once(ledger: Ledger) -> None:
    first = ledger.acquire("t")
    assert first is not None
    ledger.release(first, "lost", "a", "node a was lost")
    assert [(one.how, one.node, one.cause) for one in ledger.ended()] == [
        ("lost", "a", "node a was lost")
    ]
    second = ledger.acquire("t")
    assert second is not None and second.attempt == 2


def test_the_second_row_is_set_aside_and_counted(ledger: Ledger) -> None:
    staged = ledger.stage("t")
    (staged / "run").mkdir()
    (staged / "run" / "samples").write_bytes(b"1")
    assert ledger.publish(row("t", "a"), staged)
    late = ledger.stage("t")
    (late / "samples").write_bytes(b"2")
    assert not ledger.publish(row("t", "b"), late)
    assert (ledger.folder / "t" / "run" / "samples").read_bytes() == b"1"
    assert ledger.row("t") == row("t", "a")
    assert ledger.aside() == [row("t", "b")]
    assert (ledger.folder / ".fleet/aside/t.1/samples").read_bytes() == b"2"
    assert ledger.acquire("t") is None


def test_a_row_that_is_taken_back_is_kept(ledger: Ledger) -> None:
    assert ledger.publish(row("t", outcome="no-runner"))
    ledger.reopen("t")
    assert ledger.row("t") is None
    assert (ledger.folder / ".fleet/reopened/t.1/row.json").exists()
    assert ledger.acquire("t") is not None
    assert ledger.publish(row("t"))
    assert [one.how for one in ledger.ended()] == ["reopened"]


def test_a_line_that_a_full_disk_cut_short_spoils_no_other(ledger: Ledger) -> None:
    first = ledger.acquire("t")
    assert first is not None
    ledger.release(first, "lost", "a")
    path = ledger.folder / ".fleet/attempts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"task":"t","att')
    second = ledger.acquire("t")
    assert second is not None
    ledger.release(second, "lost", "b")
    assert [one.node for one in ledger.ended()] == ["a", "b"]


def test_a_disk_that_refuses_is_one_line_and_publishes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ResultError, match="cannot be written"):
        Ledger(file / "night", LEASE_S)


def test_what_a_killed_driver_left_is_swept_up(ledger: Ledger) -> None:
    lease = ledger.acquire("t")
    assert lease is not None
    (ledger.stage("t") / "half").write_bytes(b"")
    ledger.live(lease).mkdir(parents=True)
    ledger.sweep_up()
    assert list((ledger.folder / ".fleet/incoming").iterdir()) == []
    assert not ledger.live(lease).exists()
    again = ledger.acquire("t")
    assert again is not None and again.attempt == 2


# --- interleavings ---

TASKS = ("t", "u")
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which driver
        st.sampled_from(TASKS),
        st.sampled_from(["acquire", "renew", "publish", "lose", "crash", "wait", "fail"]),
    ),
    max_size=60,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_no_interleaving_doubles_or_loses_a_row(
    steps: list[tuple[int, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock = Clock()
    folder = tmp_path_factory.mktemp("night")
    drivers = [Ledger(folder, LEASE_S, clock) for _ in range(3)]
    held: list[dict[str, Lease]] = [{}, {}, {}]
    sent: Counter[str] = Counter()
    first: dict[str, str] = {}
    for number, (who, task, what) in enumerate(steps):
        mine = held[who].get(task)
        if what == "acquire" and mine is None:
            if lease := drivers[who].acquire(task):
                assert task not in first
                _only_one(held, task, lease, clock)
                held[who][task] = lease
        elif what == "wait":
            clock.now_s += LEASE_S / 2
        elif what == "crash":
            held[who] = {}
        elif mine is None:
            continue
        elif what == "renew":
            drivers[who].renew(mine)
        elif what == "lose":
            drivers[who].release(held[who].pop(task), "lost", str(who))
        else:  # publish or fail, on time or late
            del held[who][task]
            name = f"{who}-{number}"
            outcome = "result" if what == "publish" else "failed"
            won = drivers[who].publish(row(task, name, outcome))
            assert won == (task not in first)
            first.setdefault(task, name)
            sent[task] += 1
    for task in TASKS:
        found = drivers[0].row(task)
        assert (found.node if found else None) == first.get(task)
        late = [one for one in drivers[0].aside() if one.task == task]
        assert len(late) == max(sent[task] - 1, 0)  # none lost, none doubled
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == set(first)


def _only_one(held: list[dict[str, Lease]], task: str, new: Lease, clock: Clock) -> None:
    """Nobody else's lease of it is of this number, and none of a lower one has a heartbeat."""
    for other in held:
        if (lease := other.get(task)) is not None:
            assert lease.attempt < new.attempt
            assert lease.path.stat().st_mtime + LEASE_S <= clock.now_s
