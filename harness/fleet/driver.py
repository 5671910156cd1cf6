"""Give the tasks of a night to Ray, follow them, and publish how each ended.

Ray places and runs them (one label says which nodes may, one resource that a machine measures one
at a time) and moves the bytes. What must survive Ray, its head and this process is on disk: see
`harness.fleet.ledger`. A task is handed over a few at a time for each kind of machine, its lease is
taken when a node begins it, and renewed by what the node is heard to say.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BackendUnavailable, HarnessError, ResultError, one_line
from harness.fleet import cluster
from harness.fleet.conclude import conclude
from harness.fleet.facts import MACHINE_RESOURCE, PREFIX, NodeFacts, differs
from harness.fleet.freight import Packer, Parcel, Piece, write_piece
from harness.fleet.ledger import Lease, Ledger, Row, now_text, writing
from harness.fleet.node import Beat, Begun, Finished, Message, Order, Part
from harness.fleet.plan import FleetPlan, Task
from harness.fleet.progress import Doing, Snapshot
from harness.sweep.needs import Needs, lacking

_WINDOW = 4  # tasks that wait in Ray, for each kind of machine
_NODES_EVERY_S = 2.0
_HEAD_GONE_S = 6.0
_TURN_S = 0.2
_MOST_AT_ONCE = 256  # messages of one attempt in one turn


class Attempt:
    """A task that Ray has been given. ``lease``: from when a node has begun it."""

    def __init__(self, task: Task, stream: Any) -> None:
        self.task, self.stream = task, stream
        self.node = ""
        self.lease: Lease | None = None
        self.staged: Path | None = None
        self.text = ""
        self.began_s = self.heard_s = self.renewed_s = time.monotonic()
        self.given_up = False  # its lease has run out; a late result still comes


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
        self._alone = alone
        self.plan, self.ledger, self.me, self.address, self.tell = plan, ledger, me, address, tell
        self.rows: dict[str, Row] = {}
        self.nodes: dict[str, NodeFacts] = {}  # by name, of those alive and fit
        self.refused: dict[str, str] = {}
        self._ray = cluster.connect(*address)
        self._packer = Packer(self._ray.put)
        self._describing: dict[Any, str] = {}
        self._known: dict[str, str] = {}  # Ray's id of a node -> its name
        self._attempts: list[Attempt] = []
        self._pending: dict[str, Task] = {}
        self._lost: dict[str, list[str]] = {}  # task -> the nodes that it was lost on
        self._unfit_since: dict[str, float] = {}
        self._products: dict[str, dict[str, list[Piece]]] = {}  # fingerprint -> artifact -> pieces
        self._looked_s = self._head_heard_s = -1e9
        self._remote()

    def _remote(self) -> None:
        ray = self._ray

        def measure(order: Order) -> Iterator[Message]:
            from harness.fleet.node import measure

            yield from measure(order, ray.get)

        def describe() -> NodeFacts:
            from harness.fleet import facts

            return facts.without_secrets(facts.read())

        self._measure = ray.remote(max_retries=0, num_cpus=0)(measure)
        self._describe = ray.remote(max_retries=2, num_cpus=0)(describe)

    # --- the night ---

    def run(self, changed: Callable[[Snapshot], None], limit_s: float | None = None) -> None:
        """Until every task has its row. ``changed`` is shown how things stand, often.

        After ``limit_s`` what has not ended is cancelled.

        Raises `BackendUnavailable` when the head is gone, `ResultError` where the disk refuses.
        """
        for task in self.plan.tasks:
            if row := self.ledger.row(task.id):
                self.rows[task.id] = row
            else:
                self._pending[task.id] = task
        for ended in self.ledger.ended():
            if ended.how == "lost":
                self._lost.setdefault(ended.task, []).append(ended.node)
            elif ended.how == "reopened":
                self._lost.pop(ended.task, None)
        until = None if limit_s is None else time.monotonic() + limit_s
        try:
            while self._pending:
                self._turn()
                changed(self.snapshot())
                if until is not None and time.monotonic() > until:
                    self._cancel(f"the night's time was over: {limit_s:g} s")
        finally:
            self._let_go()
        changed(self.snapshot())

    def _turn(self) -> None:
        self._look_for_nodes()
        self._hand_over()
        self._listen()
        self._expire()
        self._without_machine()

    def _cancel(self, cause: str) -> None:
        self._let_go()
        for task in list(self._pending.values()):
            self._end(task, "cancelled", cause)

    def _let_go(self) -> None:
        """Give every lease back, and stop what measures: the plan goes on another time."""
        for one in self._attempts:
            with contextlib.suppress(HarnessError):
                if one.lease and not one.given_up:
                    self.ledger.release(one.lease, "released", one.node)
                    self.ledger.forget_live(one.lease)
            with contextlib.suppress(Exception):
                self._ray.cancel(one.stream, force=True)
        self._attempts = []

    # --- nodes ---

    def _look_for_nodes(self) -> None:
        now = time.monotonic()
        if now - self._looked_s < _NODES_EVERY_S:
            return
        self._looked_s = now
        try:
            cluster.reach(*self.address)
            self._head_heard_s = now
        except BackendUnavailable as error:
            if now - self._head_heard_s > _HEAD_GONE_S:
                raise BackendUnavailable(
                    f"the head at {self.address[0]}:{self.address[1]} is gone",
                    "start it, and run the same command again: it goes on from the plan",
                ) from error
            return
        alive = {
            node["NodeID"]: node["Labels"].get(f"{PREFIX}node", "")
            for node in self._ray.nodes()
            if node["Alive"] and f"{PREFIX}node" in node["Labels"]
        }
        for gone in set(self._known) - set(alive):
            name = self._known.pop(gone)
            if self.nodes.pop(name, None):
                self.tell(f"node {name} is gone")
        for node_id, name in alive.items():
            if node_id not in self._known:
                self._known[node_id] = name
                selector = {"ray.io/node-id": node_id}
                self._describing[self._describe.options(label_selector=selector).remote()] = name

    def _welcome(self, reference: Any) -> None:
        name = self._describing.pop(reference)
        try:
            facts: NodeFacts = self._ray.get(reference)
        except Exception as error:  # it died again, or its Harness is another
            self._refuse(name, f"{name} does not say what it is: {one_line(error, 200)}")
            return
        others = [self.me, *self.nodes.values()]
        why = next(filter(None, (differs(other, facts) for other in others)), "")
        if not why and name in self.nodes:
            why = f"there are two nodes called {name}"
        if why:
            self._refuse(name, why)
            return
        self.refused.pop(name, None)
        self.nodes[name] = facts
        self.tell(f"node {name} is here: {facts.offers.machine_class}")

    def _refuse(self, name: str, why: str) -> None:
        self.refused[name] = why
        self.tell(f"node {name} is refused: {why}")

    def able(self, task: Task) -> list[str]:
        """The nodes that may measure it: rather others than those that it was lost on."""
        able = [name for name, facts in self.nodes.items() if not lacks(task, facts)]
        fresh = [name for name in able if name not in self._lost.get(task.id, ())]
        return sorted(fresh or able)

    # --- tasks ---

    def _hand_over(self) -> None:
        waiting: dict[Needs, int] = {}
        for one in self._attempts:
            waiting[one.task.needs] = waiting.get(one.task.needs, 0) + (not one.node)
        given = {one.task.id for one in self._attempts if not one.given_up}
        for task in list(self._pending.values()):
            if task.id in given or waiting.get(task.needs, 0) >= _WINDOW:
                continue
            if self._seen_to(task):
                continue
            if able := self.able(task):
                waiting[task.needs] = waiting.get(task.needs, 0) + 1
                self._submit(task, able)

    def _seen_to(self, task: Task) -> bool:
        """Whether another driver has ended it, or measures it just now."""
        if row := self.ledger.row(task.id):
            self._has_ended(row)
            return True
        return self.ledger.held(task.id)

    def _submit(self, task: Task, able: Sequence[str]) -> None:
        try:
            fields, parcels = self._packer.pack(task.fields)
        except HarnessError as error:
            self._end(task, "failed", str(error))
            return
        order = Order(
            task=task.id,
            needs=task.needs,
            fields=fields,
            parcels=parcels,
            products=self._products_for(able),
            launches=self.plan.launches,
            time_limit_s=self.plan.time_limit_s,
            tags=(f"sweep={self.plan.id}", f"night={self.plan.label}",
                  f"machine_class={task.machine_class}"),
        )  # fmt: skip
        stream = self._measure.options(
            num_returns="streaming",
            resources=occupied(task),
            label_selector={f"{PREFIX}node": f"in({', '.join(able)})"},
        ).remote(order)
        self._attempts.append(Attempt(task, stream))

    def _products_for(self, able: Sequence[str]) -> tuple[Parcel, ...]:
        """What machines of their kind have built, where all that may measure it are of one."""
        kinds = {self.nodes[name].fingerprint for name in able}
        held = self._products.get(kinds.pop(), {}) if len(kinds) == 1 else {}
        return tuple(Parcel(name, tuple(pieces)) for name, pieces in held.items())

    # --- what nodes say ---

    def _listen(self) -> None:
        by_stream = {one.stream: one for one in self._attempts}
        asked = [*by_stream, *self._describing]
        if not asked:
            time.sleep(_TURN_S)
            return
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_TURN_S, fetch_local=False)
        for stream in ready:
            if stream in self._describing:
                self._welcome(stream)
            else:
                self._hear(by_stream[stream])

    def _hear(self, one: Attempt) -> None:
        for _ in range(_MOST_AT_ONCE):
            if not self._ray.wait([one.stream], timeout=0, fetch_local=False)[0]:
                return
            try:
                message: Message = self._ray.get(next(one.stream))
            except StopIteration:
                self._lose(one, f"node {one.node} ended without a word")
                return
            except Exception as error:
                self._broken(one, error)
                return
            one.heard_s = time.monotonic()
            if not self._take(one, message):
                return

    def _broken(self, one: Attempt, error: Exception) -> None:
        """A node or worker that died; an error of our own code there ends the task."""
        text = one_line(str(error).strip().rpartition("\n")[2] or type(error).__name__, 300)
        if type(error).__name__.startswith("RayTaskError"):
            self._attempts.remove(one)
            self._end(one.task, "failed", f"on {one.node or 'a node'}: {text}", one)
        else:
            kind = type(error).__name__.removesuffix("Error")
            self._lose(one, f"{one.node or 'a node'} was lost: {kind}")

    def _take(self, one: Attempt, message: Message) -> bool:
        """Whether more is to come."""
        match message:
            case Begun(node):
                return self._begin(one, node)
            case Beat(text, events):
                one.text = text
                self._renew(one)
                if one.lease and not one.given_up:
                    for piece in events:
                        _write(self.ledger.live(one.lease), piece)
            case Part(piece, ""):
                one.staged = one.staged or self.ledger.stage(one.task.id)
                one.text = "coming back"
                self._renew(one)
                _write(one.staged, piece)
            case Part(piece, product):
                kind = self.nodes[one.node].fingerprint if one.node in self.nodes else ""
                held = self._products.setdefault(kind, {}).setdefault(product, [])
                kept = Piece(piece.path, piece.offset, self._ray.put(piece.data))
                if all(kept[:2] != other[:2] for other in held):
                    held.append(kept)
            case Finished():
                self._finish(one, message)
                return False
        return True

    def _begin(self, one: Attempt, node: str) -> bool:
        one.node, one.text = node, "starting"
        one.began_s = time.monotonic()
        one.lease = self.ledger.acquire(one.task.id)
        if one.lease is None:  # another driver was first: leave it to that
            self._ray.cancel(one.stream, force=True)
            self._attempts.remove(one)
            return False
        self.tell(f"{one.task.cell} ({one.task.machine_class}) begins on {node}")
        return True

    def _renew(self, one: Attempt) -> None:
        if one.lease and not one.given_up and one.heard_s - one.renewed_s > self.ledger.lease_s / 4:
            self.ledger.renew(one.lease)
            one.renewed_s = one.heard_s

    def _finish(self, one: Attempt, said: Finished) -> None:
        self._attempts.remove(one)
        row = conclude(one.task, one.staged, said, one.node, one.lease.attempt if one.lease else 0)
        self._publish(row, one)

    # --- endings ---

    def _lose(self, one: Attempt, cause: str) -> None:
        self._attempts.remove(one)
        if one.given_up:
            return
        self._count_loss(one, cause)

    def _count_loss(self, one: Attempt, cause: str) -> None:
        if one.lease is None:  # nobody had begun it
            return
        self.ledger.release(one.lease, "lost", one.node, cause)
        self.ledger.forget_live(one.lease)
        lost = self._lost.setdefault(one.task.id, [])
        lost.append(one.node)
        self.tell(f"{one.task.cell} ({one.task.machine_class}): {cause}")
        if len(lost) > self.plan.rules.retries:
            self._end(one.task, "lost", f"{cause}; tried {len(lost)} times, on {', '.join(lost)}")

    def _expire(self) -> None:
        now = time.monotonic()
        for one in list(self._attempts):
            silent_s = now - one.heard_s
            if one.node and not one.given_up and silent_s > self.plan.rules.lease_s:
                one.given_up = True
                self._count_loss(one, f"no sign of life from {one.node} for {silent_s:.0f} s")

    def _without_machine(self) -> None:
        """End what no machine can measure, after `FleetRules.wait_s` without one."""
        now = time.monotonic()
        wait_s = 0.0 if self._alone and self.nodes else self.plan.rules.wait_s
        given = {one.task.id for one in self._attempts}
        for task in list(self._pending.values()):
            if task.id in given or self._describing or self.able(task):
                self._unfit_since.pop(task.id, None)
                continue
            since = self._unfit_since.setdefault(task.id, now)
            if now - since >= wait_s and not self._seen_to(task):
                outcome = "lost" if self._lost.get(task.id) else "no-runner"
                self._end(task, outcome, self._why_nobody(task))

    def _why_nobody(self, task: Task) -> str:
        if not self.nodes:
            why = "no machine has joined"
        else:
            lacked = (f"{name} lacks {', '.join(lacks(task, facts))}"
                      for name, facts in sorted(self.nodes.items()))  # fmt: skip
            why = "; ".join(list(lacked)[:5])
        refused = [f"{name} is refused: {cause}" for name, cause in sorted(self.refused.items())]
        lost = self._lost.get(task.id)
        before = [f"lost on {', '.join(lost)}"] if lost else []
        return "; ".join([*before, why, *refused[:2]])

    def _end(self, task: Task, outcome: Any, cause: str, one: Attempt | None = None) -> None:
        row = Row(
            task=task.id, cell=task.cell, machine_class=task.machine_class, outcome=outcome,
            cause=cause, node=one.node if one else "", ended_at=now_text(),
        )  # fmt: skip
        self._publish(row, one)

    def _publish(self, row: Row, one: Attempt | None) -> None:
        if self.ledger.publish(row, one.staged if one else None):
            self._has_ended(row)
        else:
            self.tell(f"{row.cell} ({row.machine_class}) had ended before: this copy is set aside")
            if first := self.ledger.row(row.task):
                self._has_ended(first)
        if one and one.lease:
            self.ledger.forget_live(one.lease)

    def _has_ended(self, row: Row) -> None:
        if self._pending.pop(row.task, None) is None:
            return
        self.rows[row.task] = row
        why = f": {row.cause}" if row.cause else ""
        where = f" on {row.node}" if row.node else ""
        done = f"[{len(self.rows)}/{len(self.plan.tasks)}]"
        self.tell(
            f"{done} {row.cell} ({row.machine_class}) {row.status or row.outcome}{where}{why}"
        )

    def snapshot(self) -> Snapshot:
        """How things stand."""
        now = time.monotonic()
        doing = {
            one.node: Doing(one.node, self._class_of(one.node), one.task.cell, one.text,
                            now - one.began_s)
            for one in self._attempts if one.node and not one.given_up
        }  # fmt: skip
        for name in self.nodes:
            doing.setdefault(name, Doing(name, self._class_of(name), "", "idle", 0.0))
        outcomes: dict[str, int] = {}
        for row in self.rows.values():
            outcomes[row.outcome] = outcomes.get(row.outcome, 0) + 1
        return Snapshot(
            nodes=tuple(doing[name] for name in sorted(doing)),
            outcomes=outcomes,
            pending=len(self._pending),
            total=len(self.plan.tasks),
        )

    def _class_of(self, name: str) -> str:
        return self.nodes[name].offers.machine_class if name in self.nodes else "gone"


def lacks(task: Task, facts: NodeFacts) -> list[str]:
    """What of the task's needs a node lacks, the device of its number included."""
    found = lacking(task.needs, facts.offers)
    index = _gpu_index(task)
    if not found and index is not None and index >= len(facts.offers.gpus):
        found.append(f"a device cuda:{index}")
    return found


def occupied(task: Task) -> dict[str, float]:
    """Ray's resources: the machine for a cell on the processors, a share and the GPU for others."""
    index = _gpu_index(task)
    if index is None:
        return {MACHINE_RESOURCE: 1.0}
    return {MACHINE_RESOURCE: 0.01, f"harness_gpu_{index}": 1.0}


def _gpu_index(task: Task) -> int | None:
    device = str(task.fields.get("device") or ("cuda" if task.needs.gpu else "cpu"))
    if device == "cpu":
        return None
    number = device.partition(":")[2]
    return int(number) if number.isdecimal() else 0


def _write(root: Path, piece: Piece) -> None:
    with writing(root):
        try:
            write_piece(root, piece, piece.data)
        except HarnessError as error:
            raise ResultError(error.message, error.remedy) from error
