"""Give the tasks of a night to Ray, follow them, and publish how each ended.

Ray places and runs them (one label says which nodes may, one resource that a machine measures one
at a time) and moves the bytes. What must survive Ray, its head and this process is on disk: see
`harness.fleet.ledger`. A task is handed over a few at a time for each kind of machine, its lease is
taken when a node begins it, and renewed by what the node is heard to say.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, ResultError, one_line
from harness.fleet import cluster
from harness.fleet.conclude import conclude
from harness.fleet.facts import PREFIX, NodeFacts
from harness.fleet.freight import Built, Packer, Piece, write_piece
from harness.fleet.ledger import Ledger, writing
from harness.fleet.node import Beat, Begun, Finished, Message, Order, Part
from harness.fleet.nodes import Nodes, occupied
from harness.fleet.plan import FleetPlan, Task
from harness.fleet.progress import Doing, Snapshot
from harness.fleet.tasks import Attempt, Kind, Tasks, kind_of

_WINDOW = 4  # tasks that wait in Ray, for each kind of machine
_TURN_S = 0.2
_MOST_AT_ONCE = 256  # messages of one attempt in one turn
_MOST_LOOKED_AT = 1000  # tasks of a kind in one turn: another driver may have ended them
_MOST_ENDED = 100  # tasks that are given a row in one turn


class Driver:
    """One night, over the cluster at ``address``. ``tell`` gets a line for whatever happens."""

    def __init__(
        self,
        plan: FleetPlan,
        ledger: Ledger,
        me: NodeFacts,
        address: tuple[str, int],
        tell: Callable[[str], None],
        *,
        alone: bool = False,
    ) -> None:
        """``alone``: no other machine can join this cluster, so none is waited for."""
        self._plan, self._ledger, self._tell, self._alone = plan, ledger, tell, alone
        self._ray = cluster.connect(*address)
        self._measure = self._ray.remote(max_retries=0, num_cpus=0)(_measurer(self._ray))
        self._nodes = Nodes(self._ray, me, address, tell)
        self._tasks = Tasks(plan, ledger, tell)
        self._packer, self._built = Packer(self._ray.put), Built(self._ray.put)
        self._attempts: list[Attempt] = []
        self._unfit_since: dict[Kind, float] = {}

    # --- the night ---

    def run(self, changed: Callable[[Snapshot], None], limit_s: float | None = None) -> None:
        """Until every task has its row. ``changed`` is shown how things stand, often.

        After ``limit_s`` what has not ended is cancelled.

        Raises `BackendUnavailable` when the head is gone, `ResultError` where the disk refuses.
        """
        self._tasks.resume()
        until = None if limit_s is None else time.monotonic() + limit_s
        try:
            while self._tasks.pending:
                self._turn()
                changed(self.snapshot())
                if until is not None and time.monotonic() > until:
                    self._cancel(f"the night's time was over: {limit_s:g} s")
        finally:
            self._let_go()
        changed(self.snapshot())

    def _turn(self) -> None:
        self._nodes.look()
        self._hand_over()
        self._listen()
        self._expire()
        self._without_machine()

    def _cancel(self, cause: str) -> None:
        self._let_go()
        for task in list(self._tasks.pending.values()):
            self._tasks.end(task, "cancelled", cause)

    def _let_go(self) -> None:
        """Give every lease back, and stop what measures: the plan goes on another time."""
        for attempt in self._attempts:
            with contextlib.suppress(HarnessError):
                if attempt.lease and not attempt.given_up:
                    self._ledger.release(attempt.lease, "released", attempt.node)
                    self._ledger.forget_live(attempt.lease)
            with contextlib.suppress(Exception):  # Ray's own: it may be gone by now
                self._ray.cancel(attempt.stream, force=True)
        self._attempts = []

    # --- tasks ---

    def _hand_over(self) -> None:
        waiting = Counter(kind_of(one.task) for one in self._attempts if not one.node)
        given = {attempt.task.id for attempt in self._attempts if not attempt.given_up}
        for kind, alike in list(self._tasks.kinds.items()):
            first = next(iter(alike.values()))
            if waiting[kind] >= _WINDOW or not self._able(first):
                continue
            for task in list(islice(alike.values(), len(given) + _MOST_LOOKED_AT)):
                if waiting[kind] >= _WINDOW:
                    break
                if task.id not in given and not self._tasks.seen_to(task):
                    waiting[kind] += 1
                    self._submit(task, self._able(task))

    def _able(self, task: Task) -> list[str]:
        return self._nodes.able(task, self._tasks.lost_on(task))

    def _submit(self, task: Task, able: Sequence[str]) -> None:
        try:
            fields, parcels = self._packer.pack(task.fields)
        except HarnessError as error:
            self._tasks.end(task, "failed", str(error))
            return
        order = Order(
            task=task.id,
            needs=task.needs,
            fields=fields,
            parcels=parcels,
            # where all that may measure it are of one kind
            products=self._built.of(self._nodes.fingerprint(name) for name in able),
            launches=self._plan.launches,
            time_limit_s=self._plan.time_limit_s,
            tags=(f"sweep={self._plan.id}", f"night={self._plan.label}",
                  f"machine_class={task.machine_class}"),
        )  # fmt: skip
        stream = self._measure.options(
            num_returns="streaming",
            resources=occupied(task),
            label_selector={f"{PREFIX}node": f"in({', '.join(able)})"},
        ).remote(order)
        self._attempts.append(Attempt(task, stream))

    def _expire(self) -> None:
        now = time.monotonic()
        for attempt in list(self._attempts):
            silent_s = now - attempt.heard_s
            if attempt.node and not attempt.given_up and silent_s > self._plan.rules.lease_s:
                attempt.given_up = True
                cause = f"no sign of life from {attempt.node} for {silent_s:.0f} s"
                self._tasks.lose(attempt, cause)

    def _without_machine(self) -> None:
        """End what no machine can measure, after `FleetRules.wait_s` without one; of very many
        some in each turn, so that nodes are heard meanwhile."""
        now = time.monotonic()
        wait_s = 0.0 if self._alone and self._nodes.fit else self._plan.rules.wait_s
        given = {attempt.task.id for attempt in self._attempts}
        over: list[Task] = []
        for kind, alike in self._tasks.kinds.items():
            if self._nodes.describing or self._able(next(iter(alike.values()))):
                self._unfit_since.pop(kind, None)
            elif now - self._unfit_since.setdefault(kind, now) >= wait_s:
                over += (task for task in alike.values() if task.id not in given)
        for task in over[:_MOST_ENDED]:
            if not self._tasks.seen_to(task):
                lost = self._tasks.lost_on(task)
                before = f"lost on {', '.join(lost)}; " if lost else ""
                cause = before + self._nodes.why_nobody(task)
                self._tasks.end(task, "lost" if lost else "no-runner", cause)

    # --- what nodes say ---

    def _listen(self) -> None:
        by_stream = {attempt.stream: attempt for attempt in self._attempts}
        asked = [*by_stream, *self._nodes.describing]
        if not asked:
            time.sleep(_TURN_S)
            return
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_TURN_S, fetch_local=False)
        for stream in ready:
            if stream in self._nodes.describing:
                self._nodes.welcome(stream)
            else:
                self._hear(by_stream[stream])

    def _hear(self, attempt: Attempt) -> None:
        for _ in range(_MOST_AT_ONCE):
            if not self._ray.wait([attempt.stream], timeout=0, fetch_local=False)[0]:
                return
            try:
                message: Message = self._ray.get(next(attempt.stream))
            except StopIteration:
                self._lose(attempt, f"node {attempt.node} ended without a word")
                return
            except Exception as error:
                self._broken(attempt, error)
                return
            attempt.heard_s = time.monotonic()
            if not self._take(attempt, message):
                return

    def _broken(self, attempt: Attempt, error: Exception) -> None:
        """A node or worker that died; an error of our own code there ends the task."""
        node = attempt.node or "a node"
        if type(error).__name__.startswith("RayTaskError"):
            text = one_line(str(error).strip().rpartition("\n")[2] or type(error).__name__, 300)
            self._attempts.remove(attempt)
            self._tasks.end(attempt.task, "failed", f"on {node}: {text}", attempt)
        else:
            self._lose(attempt, f"{node} was lost: {type(error).__name__.removesuffix('Error')}")

    def _lose(self, attempt: Attempt, cause: str) -> None:
        self._attempts.remove(attempt)
        if not attempt.given_up:
            self._tasks.lose(attempt, cause)

    def _take(self, attempt: Attempt, message: Message) -> bool:
        """Whether more is to come."""
        match message:
            case Begun(node):
                return self._begin(attempt, node)
            case Beat(text, events):
                attempt.text = text
                self._renew(attempt)
                if attempt.lease and not attempt.given_up:
                    for piece in events:
                        _write(self._ledger.live(attempt.lease), piece)
            case Part(piece, ""):
                attempt.staged = attempt.staged or self._ledger.stage(attempt.task.id)
                attempt.text = "coming back"
                self._renew(attempt)
                _write(attempt.staged, piece)
            case Part(piece, product):
                self._built.add(self._nodes.fingerprint(attempt.node), product, piece)
            case Finished():
                self._finish(attempt, message)
                return False
        return True

    def _begin(self, attempt: Attempt, node: str) -> bool:
        attempt.node, attempt.text = node, "starting"
        attempt.began_s = time.monotonic()
        attempt.lease = self._ledger.acquire(attempt.task.id)
        if attempt.lease is None:  # another driver was first: leave it to that
            self._ray.cancel(attempt.stream, force=True)
            self._attempts.remove(attempt)
            return False
        self._tell(f"{attempt.task.cell} ({attempt.task.machine_class}) begins on {node}")
        return True

    def _renew(self, attempt: Attempt) -> None:
        if not attempt.lease or attempt.given_up:
            return
        if attempt.heard_s - attempt.renewed_s > self._ledger.lease_s / 4:
            self._ledger.renew(attempt.lease)
            attempt.renewed_s = attempt.heard_s

    def _finish(self, attempt: Attempt, said: Finished) -> None:
        self._attempts.remove(attempt)
        number = attempt.lease.attempt if attempt.lease else 0
        row = conclude(attempt.task, attempt.staged, said, attempt.node, number)
        self._tasks.publish(row, attempt)

    def snapshot(self) -> Snapshot:
        """How things stand."""
        now = time.monotonic()
        doing = {
            one.node: Doing(one.node, self._nodes.machine_class(one.node), one.task.cell, one.text,
                            now - one.began_s)
            for one in self._attempts if one.node and not one.given_up
        }  # fmt: skip
        for name in self._nodes.fit:
            idle = Doing(name, self._nodes.machine_class(name), "", "idle", 0.0)
            doing.setdefault(name, idle)
        return Snapshot(
            nodes=tuple(doing[name] for name in sorted(doing)),
            outcomes=self._tasks.outcomes(),
            pending=len(self._tasks.pending),
            total=len(self._plan.tasks),
        )


def _measurer(ray: Any) -> Callable[[Order], Iterator[Message]]:
    def measure(order: Order) -> Iterator[Message]:  # inside a function, as `nodes._describer`
        from harness.fleet.node import measure

        yield from measure(order, ray.get)

    return measure


def _write(root: Path, piece: Piece) -> None:
    with writing(root):
        try:
            write_piece(root, piece, piece.data)
        except HarnessError as error:
            raise ResultError(error.message, error.remedy) from error
