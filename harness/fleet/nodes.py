"""The nodes of a cluster as a driver sees them: who is here, is refused, may measure what."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from harness.errors import BackendUnavailable, one_line
from harness.fleet import cluster
from harness.fleet.facts import MACHINE_RESOURCE, PREFIX, NodeFacts, differs
from harness.fleet.plan import Task
from harness.sweep.needs import lacking

_LOOK_EVERY_S = 2.0
_HEAD_GONE_S = 6.0


class Nodes:
    """Of the cluster at ``address``. ``me``: this machine, which the others must be like.

    ``ray``: Ray itself, connected. ``tell`` gets a line for whoever comes, goes or is refused.
    """

    def __init__(
        self, ray: Any, me: NodeFacts, address: tuple[str, int], tell: Callable[[str], None]
    ) -> None:
        self._ray, self._me, self._address, self._tell = ray, me, address, tell
        self.fit: dict[str, NodeFacts] = {}  # by name, of those alive
        self.refused: dict[str, str] = {}  # why, by name
        self.describing: dict[Any, str] = {}  # Ray's reference to what a node says -> its name
        self._names: dict[str, str] = {}  # of those alive, by Ray's id
        self._looked_s = self._head_heard_s = -1e9
        self._describe = ray.remote(max_retries=2, num_cpus=0)(_describer())

    def look(self) -> None:
        """Find out who has come and who is gone, every other second.

        Raises `BackendUnavailable` when the head is gone.
        """
        now = time.monotonic()
        if now - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now
        if not self._head_answers(now):
            return
        alive = {
            node["NodeID"]: node["Labels"].get(f"{PREFIX}node", "")
            for node in self._ray.nodes()
            if node["Alive"] and f"{PREFIX}node" in node["Labels"]
        }
        for gone in set(self._names) - set(alive):
            name = self._names.pop(gone)
            if self.fit.pop(name, None):
                self._tell(f"node {name} is gone")
        for node_id, name in alive.items():
            if node_id not in self._names:
                self._names[node_id] = name
                selector = {"ray.io/node-id": node_id}
                self.describing[self._describe.options(label_selector=selector).remote()] = name

    def _head_answers(self, now: float) -> bool:
        try:
            cluster.reach(*self._address)
        except BackendUnavailable as error:
            if now - self._head_heard_s > _HEAD_GONE_S:
                raise BackendUnavailable(
                    f"the head at {self._address[0]}:{self._address[1]} is gone",
                    "start it, and run the same command again: it goes on from the plan",
                ) from error
            return False
        self._head_heard_s = now
        return True

    def welcome(self, reference: Any) -> None:
        """Take in what a node says of itself, or refuse it, with why."""
        name = self.describing.pop(reference)
        try:
            facts: NodeFacts = self._ray.get(reference)
        except Exception as error:  # it died again, or its Harness is another
            self._refuse(name, f"{name} does not say what it is: {one_line(error, 200)}")
            return
        others = [self._me, *self.fit.values()]
        why = next(filter(None, (differs(other, facts) for other in others)), "")
        if not why and name in self.fit:
            why = f"there are two nodes called {name}"
        if why:
            self._refuse(name, why)
            return
        self.refused.pop(name, None)
        self.fit[name] = facts
        self._tell(f"node {name} is here: {facts.offers.machine_class}")

    def _refuse(self, name: str, why: str) -> None:
        self.refused[name] = why
        self._tell(f"node {name} is refused: {why}")

    def able(self, task: Task, lost_on: Collection[str]) -> list[str]:
        """The names of those that may measure it: rather others than those it was lost on."""
        able = [name for name, facts in self.fit.items() if not lacks(task, facts)]
        fresh = [name for name in able if name not in lost_on]
        return sorted(fresh or able)

    def why_nobody(self, task: Task) -> str:
        """What each lacks for it, five at the most, and why two others are refused."""
        lacked = [f"{name} lacks {', '.join(lacks(task, facts))}"
                  for name, facts in sorted(self.fit.items())]  # fmt: skip
        why = "; ".join(lacked[:5]) or "no machine has joined"
        refused = [f"{name} is refused: {cause}" for name, cause in sorted(self.refused.items())]
        return "; ".join([why, *refused[:2]])

    def fingerprint(self, name: str) -> str:
        """Empty for one that is gone."""
        return self.fit[name].fingerprint if name in self.fit else ""

    def machine_class(self, name: str) -> str:
        return self.fit[name].offers.machine_class if name in self.fit else "gone"


def _describer() -> Callable[[], NodeFacts]:
    def describe() -> NodeFacts:  # inside a function: Ray sends the code itself, not its name
        from harness.fleet import facts

        return facts.without_secrets(facts.read())

    return describe


def lacks(task: Task, facts: NodeFacts) -> list[str]:
    """What of the task's needs a node lacks, the device of its number included."""
    lacked = lacking(task.needs, facts.offers)
    index = _gpu_index(task)
    if not lacked and index is not None and index >= len(facts.offers.gpus):
        lacked.append(f"a device cuda:{index}")
    return lacked


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
