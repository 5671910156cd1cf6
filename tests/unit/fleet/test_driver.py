"""The driver and nodes that measure, die, fall silent and come back late, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.errors import BackendUnavailable, ResultError
from harness.fleet import cluster, driver, nodes, tasks
from harness.fleet.driver import Driver
from harness.fleet.facts import NodeFacts, labels
from harness.fleet.freight import Piece
from harness.fleet.ledger import Ledger
from harness.fleet.node import Beat, Begun, Finished, Message, Order, Part
from harness.fleet.plan import FleetPlan, Task
from harness.fleet.progress import Snapshot
from harness.records.cell import cell_of
from harness.records.store import RESULT_NAME
from harness.sweep.needs import FleetRules, Needs, Offers
from harness.testing.results import fake_result

LEASE_S = 10.0
RESULT = fake_result()
FACTS = NodeFacts(
    offers=Offers(machine="me", machine_class="here"), fingerprint="0", harness="0.1.0", code="c",
    versions={"python": "3.11.7"},
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Stream:
    """What one task of a node yields; a number is silence of so many seconds."""

    def __init__(self, clock: Clock, script: Iterable[Any]) -> None:
        self._clock, self._script = clock, list(script)
        self._until_s = 0.0
        self.cancelled = False

    def ready(self) -> bool:
        while self._script and isinstance(self._script[0], float):
            self._until_s = self._clock.now_s + self._script.pop(0)
        return not self.cancelled and self._clock.now_s >= self._until_s

    def __next__(self) -> Any:
        if not self._script:
            raise StopIteration
        return self._script.pop(0)


class FakeRay:
    """As much of Ray as the driver uses. ``play`` says what a node yields for an order."""

    def __init__(self, clock: Clock, nodes: list[NodeFacts]) -> None:
        self.clock, self.there = clock, nodes
        self.play: Callable[[Order, str], Iterable[Any]] = lambda order, node: measured(node)
        self.options_seen: list[dict[str, Any]] = []
        self.streams: list[Stream] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": f"id-{one.name}", "Alive": True, "Labels": labels(one)}
                for one in self.there]  # fmt: skip

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda function: _Remote(self, function.__name__)

    def put(self, data: bytes) -> bytes:
        return data

    def get(self, reference: Any) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference.facts if isinstance(reference, _Described) else reference

    def wait(
        self, asked: list[Any], num_returns: int = 1, timeout: float = 0, fetch_local: bool = True
    ) -> tuple[list[Any], list[Any]]:
        ready = [one for one in asked if not isinstance(one, Stream) or one.ready()]
        if not ready:
            self.clock.sleep(timeout)
        return ready, [one for one in asked if one not in ready]

    def cancel(self, stream: Stream, force: bool) -> None:
        stream.cancelled = True


class _Remote:
    def __init__(self, ray: FakeRay, name: str, **options: Any) -> None:
        self._ray, self._name, self._options = ray, name, options

    def options(self, **options: Any) -> _Remote:
        return _Remote(self._ray, self._name, **options)

    def remote(self, *orders: Order) -> Any:
        if self._name == "describe":
            wanted = self._options["label_selector"]["ray.io/node-id"]
            return _Described(next(o for o in self._ray.there if f"id-{o.name}" == wanted))
        self._ray.options_seen.append(self._options)
        able = self._options["label_selector"]["harness.io/node"][3:-1].split(", ")
        stream = Stream(self._ray.clock, self._ray.play(orders[0], able[0]))
        self._ray.streams.append(stream)
        return stream


class _Described:
    """Ray's reference to what a node says of itself."""

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts


class NodeDiedError(Exception):
    pass


class RayTaskErrorPlanted(Exception):
    """Ray's own is made when it is raised, and its name begins so."""


def measured(node: str, run: str = "20261127T000000Z-digits") -> list[Message]:
    data = msgspec.json.encode(msgspec.structs.replace(RESULT, id=run))
    return [Begun(node), Beat("measuring", (Piece(f"{run}/events.out.1", 0, b"e"),)),
            Part(Piece(f"{run}/{RESULT_NAME}", 0, data)), Finished(0, "", 1.0)]  # fmt: skip


def node(name: str, machine_class: str = "vnni", **changes: Any) -> NodeFacts:
    offers = Offers(machine=name, machine_class=machine_class)
    return msgspec.structs.replace(FACTS, offers=offers, **changes)


def task(number: int = 1, machine: str = "") -> Task:
    cell = cell_of(RESULT)
    needs = Needs(machine=machine)
    return Task(f"task-{number}", cell.name, cell.key, str(needs), needs, {})


class Night:
    """One driver, and what it told."""

    def __init__(self, folder: Path, clock: Clock, ray: FakeRay, *tasks: Task) -> None:
        self.plan = FleetPlan(
            id="s-n", name="s", label="n", sha256="", launches=1, time_limit_s=60.0,
            rules=FleetRules(retries=2, lease_s=LEASE_S, wait_s=5.0), created_at="", classes={},
            tasks=tasks or (task(),),
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        self.ledger = Ledger(folder, LEASE_S, clock.monotonic)
        self.told: list[str] = []
        self.driver = Driver(self.plan, self.ledger, FACTS, ("127.0.0.1", 1), self.told.append)

    def run(self, limit_s: float | None = None) -> list[str]:
        """The outcomes, in the order of the plan."""
        self.seen: list[Snapshot] = []
        self.driver.run(self.seen.append, limit_s)
        rows = [self.ledger.row(one.id) for one in self.plan.tasks]
        return [row.outcome if row else "open" for row in rows]

    def cause(self, number: int = 1) -> str:
        row = self.ledger.row(f"task-{number}")
        assert row is not None
        return row.cause


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (driver, nodes, tasks):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def ray(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay(clock, [node("a"), node("b")])
    monkeypatch.setattr(cluster, "connect", lambda *_: fake)
    monkeypatch.setattr(cluster, "reach", lambda *_: None)
    yield fake


def lost_on(*names: str) -> Callable[[Order, str], Iterable[Any]]:
    def play(order: Order, name: str) -> Iterable[Any]:
        return [Begun(name), NodeDiedError("died")] if name in names else measured(name)

    return play


def test_a_run_comes_back_whole(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    night = Night(tmp_path / "n", clock, ray)
    assert night.run() == ["result"]
    row = night.ledger.row("task-1")
    assert row is not None and (row.node, row.status, row.attempt) == ("a", RESULT.status, 1)
    assert (tmp_path / "n/task-1" / row.run / RESULT_NAME).exists()
    assert not (tmp_path / "n/live").exists()
    assert ray.options_seen[0]["resources"] == {"harness_machine": 1.0}
    assert ray.options_seen[0]["label_selector"] == {"harness.io/node": "in(a, b)"}


def test_a_lost_node_is_made_up_for_elsewhere(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    ray.play = lost_on("a")
    night = Night(tmp_path / "n", clock, ray)
    assert night.run() == ["result"]
    row = night.ledger.row("task-1")
    assert row is not None and (row.node, row.attempt) == ("b", 2)
    assert [(one.how, one.node, one.cause) for one in night.ledger.ended()] == [
        ("lost", "a", "a was lost: NodeDied")
    ]


def test_what_is_lost_again_and_again_is_lost(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    ray.play = lost_on("a", "b")
    night = Night(tmp_path / "n", clock, ray)
    assert night.run() == ["lost"]
    assert night.cause() == "a was lost: NodeDied; tried 3 times, on a, b, a"


def test_a_silent_node_is_given_up_and_its_late_copy_set_aside(
    tmp_path: Path, clock: Clock, ray: FakeRay
) -> None:
    begun, *rest = measured("a", "20261127T000000Z-late")
    scripts = {"a": [begun, LEASE_S + 8.0, *rest], "b": [4.0, *measured("b")]}
    ray.play = lambda order, name: scripts[name] if order.task == "task-1" else [
        Begun(name), *([2.0, Beat("measuring")] * 12), *measured(name)[1:]]  # fmt: skip
    night = Night(tmp_path / "n", clock, ray, task(1), task(2, "b"))
    assert night.run() == ["result", "result"]
    row = night.ledger.row("task-1")
    assert row is not None and row.node == "b"
    (late,) = night.ledger.aside()
    assert (late.node, late.run) == ("a", "20261127T000000Z-late")
    assert any("no sign of life from a" in text for text in night.told)
    assert any("this copy is set aside" in text for text in night.told)


def test_a_machine_that_never_came_is_a_row(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    began_s = clock.now_s
    night = Night(tmp_path / "n", clock, ray, task(1), task(2, "jetson"))
    assert night.run() == ["result", "no-runner"]
    assert night.cause(2) == "a lacks the name jetson; b lacks the name jetson"
    assert clock.now_s - began_s >= 5.0


def test_a_turn_costs_as_much_for_a_long_night_as_for_a_short_one(
    tmp_path: Path, clock: Clock, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at each kind of task once, not at each task; and ends some of many at a time, so
    that a node is heard meanwhile."""
    asked: list[str] = []
    real = nodes.lacks
    monkeypatch.setattr(nodes, "lacks", lambda one, facts: asked.append(one.id) or real(one, facts))
    absent = [task(number, "jetson") for number in range(2, 252)]
    ray.play = lambda order, name: [Begun(name), 9.0, *measured(name)[1:]]
    night = Night(tmp_path / "n", clock, ray, task(1), *absent)
    ended: list[int] = []
    looks: list[int] = []

    def changed(snapshot: Snapshot) -> None:
        ended.append(snapshot.outcomes.get("no-runner", 0))
        looks.append(len(asked))

    night.driver.run(changed)
    assert night.ledger.row("task-1") and ended[-1] == 250
    steps = [after - before for before, after in pairwise(ended)]
    assert max(steps) == 100  # never all at once
    before = next(at for at, count in enumerate(ended) if count)
    calls = [later - earlier for earlier, later in pairwise(looks[:before])]
    assert max(calls) <= 12  # two kinds, two nodes, asked when handing over and when waiting


def test_a_machine_may_come_late(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    slow = [Begun("a"), *[Beat("measuring"), 1.0] * 3, *measured("a")[1:]]
    ray.play = lambda order, name: slow if name == "a" else measured(name)
    night = Night(tmp_path / "n", clock, ray, task(1), task(2, "jetson"))
    began_s = clock.now_s

    def changed(snapshot: Snapshot) -> None:
        if clock.now_s - began_s > 3.0 and len(ray.there) == 2:
            ray.there.append(node("c", "jetson"))

    night.driver.run(changed)
    row = night.ledger.row("task-2")
    assert row is not None and (row.outcome, row.node) == ("result", "c")


def test_an_unlike_node_is_refused_by_name(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    ray.there = [node("a", code="other")]
    night = Night(tmp_path / "n", clock, ray)
    assert night.run() == ["no-runner"]
    told = "me has Harness's source c, a has other"
    assert f"node a is refused: {told}" in night.told
    assert night.cause() == f"no machine has joined; a is refused: {told}"


def test_an_error_of_ours_on_a_node_is_a_failure(
    tmp_path: Path, clock: Clock, ray: FakeRay
) -> None:
    ray.play = lambda order, name: [Begun(name), RayTaskErrorPlanted("Traceback\nKeyError: 'x'")]
    night = Night(tmp_path / "n", clock, ray)
    assert night.run() == ["failed"]
    assert night.cause() == "on a: KeyError: 'x'"


def test_what_was_not_asked_for_is_no_result(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    other = msgspec.structs.replace(task(), key="f" * 16)
    night = Night(tmp_path / "n", clock, ray, other)
    assert night.run() == ["failed"]
    assert "which nobody asked it for" in night.cause()


def test_two_drivers_share_a_night(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    first = Night(tmp_path / "n", clock, ray, task(1), task(2))
    held = first.ledger.acquire("task-1")  # the other one measures it
    assert held is not None
    second = Night(tmp_path / "n", clock, ray, task(1), task(2))

    def changed(snapshot: Snapshot) -> None:
        first.ledger.renew(held)
        if snapshot.outcomes.get("result") == 1:
            from harness.fleet.ledger import Row

            first.ledger.publish(Row(task="task-1", cell="c", machine_class="any",
                                     outcome="result", node="theirs"))  # fmt: skip

    second.driver.run(changed)
    rows = [second.ledger.row(f"task-{n}") for n in (1, 2)]
    assert [row.node if row else "" for row in rows] == ["theirs", "a"]
    assert second.ledger.aside() == []


def test_a_head_that_dies_leaves_a_plan_that_goes_on(
    tmp_path: Path, clock: Clock, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.play = lambda order, name: [Begun(name), 1e9]
    night = Night(tmp_path / "n", clock, ray)
    gone = False

    def reach(*_: Any) -> None:
        if gone:
            raise BackendUnavailable("no head answers")

    monkeypatch.setattr(cluster, "reach", reach)

    def changed(snapshot: Snapshot) -> None:
        nonlocal gone
        gone = any(one.cell for one in snapshot.nodes)

    with pytest.raises(BackendUnavailable, match="is gone; start it, and run the same command"):
        night.driver.run(changed)
    assert all(stream.cancelled for stream in ray.streams)
    ray.play = lambda order, name: measured(name)
    gone = False
    monkeypatch.setattr(cluster, "reach", lambda *_: None)
    again = Night(tmp_path / "n", clock, ray)
    assert again.run() == ["result"]
    row = again.ledger.row("task-1")
    assert row is not None and row.attempt == 2  # and no attempt was lost
    assert [one.how for one in again.ledger.ended()] == ["released"]


def test_a_disk_that_refuses_publishes_nothing(
    tmp_path: Path, clock: Clock, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path / "n", clock, ray)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(driver, "write_piece", full)
    with pytest.raises(ResultError, match="No space left on device; free some space"):
        night.run()
    monkeypatch.undo()
    assert night.ledger.row("task-1") is None
    assert not night.ledger.held("task-1")


def test_what_is_late_is_cancelled(tmp_path: Path, clock: Clock, ray: FakeRay) -> None:
    ray.play = lambda order, name: [Begun(name), *[Beat("measuring"), 1.0] * 500]
    night = Night(tmp_path / "n", clock, ray)
    assert night.run(limit_s=60.0) == ["cancelled"]
    assert night.cause() == "the night's time was over: 60 s"


def test_artifacts_of_one_machine_go_to_others_of_its_kind(
    tmp_path: Path, clock: Clock, ray: FakeRay
) -> None:
    orders: list[Order] = []

    def play(order: Order, name: str) -> Iterable[Any]:
        orders.append(order)
        begun, *rest, done = measured(name)
        built = Part(Piece("product.json", 0, b"{}"), "int8/1")
        return [*([3.0] if order.task == "task-2" else []), begun, *rest, built, done]

    ray.play = play
    ray.there = [node("a")]
    tasks = [task(number) for number in range(1, 7)]  # more than are handed over at once
    assert Night(tmp_path / "n", clock, ray, *tasks).run() == ["result"] * 6
    assert orders[0].products == ()
    (product,) = orders[-1].products
    assert (product.digest, [piece.path for piece in product.pieces]) == (
        "int8/1",
        ["product.json"],
    )
