"""The processes of a fleet on this machine, for as long as their command runs."""

from __future__ import annotations

import atexit
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import psutil

from harness.errors import BackendUnavailable, UsageError
from harness.fleet import cluster, facts
from harness.fleet.cluster import LOOPBACK
from harness.fleet.facts import NODE_VARIABLE, PREFIX, NodeFacts
from harness.host import scratch
from harness.sweep.needs import Offers

_LOOK_S = 1.0
_AGAIN_S = 5.0
_SETTLED_S = 10.0  # then Ray has started all that it starts
_HEAD = "head"


def start_head(host: str, port: int, folder: str | None = None) -> Any:
    """Ray's processes of a head, with logs in ``folder``. Raises `BackendUnavailable`."""
    from harness import __version__

    labels = {
        f"{PREFIX}role": _HEAD,
        f"{PREFIX}version": __version__,
        f"{PREFIX}code": facts.code_sha256()[:16],
    }
    return cluster.start(host, port, head=True, labels=labels, resources={}, folder=folder)


def start_node(host: str, port: int, me: NodeFacts, own: str | None = None) -> Any:
    """Ray's processes of a node that measures. Raises `BackendUnavailable`."""
    scratch.sweep()
    folder = scratch.Scratch()  # held for as long as this process lives
    atexit.register(folder.remove)
    return cluster.start(
        host,
        port,
        head=False,
        own=own or _own_address(host, port),
        labels=facts.labels(me),
        resources=facts.resources(me),
        variables={NODE_VARIABLE: str(facts.write(me, Path(folder.path)))},
    )


def _own_address(host: str, port: int) -> str:
    """Where the head sees us."""
    if cluster.is_loopback(host):
        return LOOPBACK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """``kill`` and a closed terminal end us as Ctrl-C does, whatever handlers Ray has put there;
    what is ignored (``nohup``) stays so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    yield


def until_ended(node: Any, why: str) -> int:
    """Wait for an interruption. Raises `BackendUnavailable` where Ray's processes end first."""
    below: list[psutil.Process] = []
    settled_s = time.monotonic() + _SETTLED_S
    with stoppable():
        try:
            while not node.dead_processes():
                time.sleep(_LOOK_S)
                if not below and time.monotonic() > settled_s:
                    below = _below()  # once: it reads all of /proc
        finally:
            _end([node], below)
    raise BackendUnavailable(why, "see Ray's logs in TMPDIR/harness-ray-UID/session_latest/logs")


def join(host: str, port: int, me: NodeFacts, own: str | None, say: Callable[[str], None]) -> int:
    """Be a node until interrupted, also of a head that comes back."""
    refuse_unlike(labels_there((host, port)), me)
    node = start_node(host, port, me, own)
    while True:
        say(f"joined {host}:{port} as {me.name}, class {me.offers.machine_class}")
        with contextlib.suppress(BackendUnavailable):
            until_ended(node, "")
        say(f"the head at {host}:{port} is gone; waiting for it")
        node = _joined_again(host, port, me, own)


def _joined_again(host: str, port: int, me: NodeFacts, own: str | None) -> Any:
    """A node of the head that has come back. One that has only begun to start refuses at first."""
    while True:
        with contextlib.suppress(BackendUnavailable):
            there = labels_there((host, port))
            # our own node of before, which the head has not missed yet, is nobody else
            refuse_unlike([one for one in there if one.get(f"{PREFIX}node") != me.name], me)
            return start_node(host, port, me, own)
        time.sleep(_AGAIN_S)


def refuse_unlike(others: list[dict[str, str]], me: NodeFacts) -> None:
    """Raises `UsageError` where Harness differs from that of a node or head that is there."""
    mine = facts.labels(me)
    for other in others:
        name = other.get(f"{PREFIX}node", "the head")
        if name == me.name:
            raise UsageError(f"a node called {name} has joined already", "give another --name")
        for key, what in (("version", "Harness"), ("code", "Harness's source")):
            theirs, ours = other.get(PREFIX + key, "unknown"), mine[PREFIX + key]
            if theirs != ours:
                raise UsageError(
                    f"{name} has {what} {theirs}, {me.name} has {ours}",
                    "install the same on both",
                )


def labels_there(where: tuple[str, int]) -> list[dict[str, str]]:
    """Ray's labels of the head and of every node that is alive. Raises `BackendUnavailable`."""
    cluster.reach(*where)
    cluster.ray_for(where[0])
    ray_state = import_module("ray._private.state")
    raylet = import_module("ray._raylet")
    with cluster.mapped(*where):
        state = ray_state.GlobalState()
        options = raylet.GcsClientOptions.create(
            f"{where[0]}:{where[1]}", None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
        )
        state._initialize_global_state(options)
        try:
            return [dict(node["Labels"]) for node in state.node_table() if node["Alive"]]
        finally:
            state.disconnect()


def nodes_there(where: tuple[str, int]) -> list[Offers]:
    """What the nodes that have joined say that they have, by name."""
    found = [offers_of(one) for one in labels_there(where) if f"{PREFIX}node" in one]
    return sorted(found, key=lambda one: one.machine)


def classes_there(where: tuple[str, int]) -> dict[str, Offers]:
    """Class -> what a machine of it has."""
    return {one.machine_class: one for one in nodes_there(where)}


def offers_of(labels: dict[str, str]) -> Offers:
    """From the labels that `facts.labels` made."""

    def named(kind: str) -> tuple[str, ...]:
        start = f"{PREFIX}{kind}."
        return tuple(sorted(key.removeprefix(start) for key in labels if key.startswith(start)))

    return Offers(
        machine=labels[f"{PREFIX}node"],
        machine_class=labels[f"{PREFIX}class"],
        isa=named("isa"),
        gpus=tuple(labels[f"{PREFIX}gpu.{index}"] for index in named("gpu")),
        meters=named("meter"),
    )


@contextlib.contextmanager
def cluster_for(
    address: str, local: int | None, say: Callable[[str], None]
) -> Iterator[tuple[str, int]]:
    """The head at ``address``; or one of our own with ``local`` nodes, while this lasts."""
    if local is None:
        cluster.ensure_token(make=False)
        yield cluster.parse_address(address)
        return
    cluster.private_token()
    where = LOOPBACK, cluster.free_port(LOOPBACK)
    me = facts.gather()
    say(f"starting Ray with {local} node{'s' * (local > 1)} on this machine")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch.Scratch())
        nodes: list[Any] = []
        stack.callback(_end, nodes)
        nodes.append(start_head(*where, cluster.session_folder(folder.path)))
        for number in range(1, local + 1):
            offers = msgspec.structs.replace(me.offers, machine=f"local-{number}")
            nodes.append(start_node(*where, msgspec.structs.replace(me, offers=offers)))
        yield where


def _end(nodes: list[Any], known: Sequence[psutil.Process] = ()) -> None:
    """End Ray's processes: also its agents, which would take their time to notice."""
    ray = import_module("ray")
    with contextlib.suppress(Exception):  # Ray's own; what it leaves is ended below
        ray.shutdown()
    below = {*known, *_below()}
    for node in reversed(nodes):
        with contextlib.suppress(Exception):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
    for process in below:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _below() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if _is_rays(one)]


def _is_rays(process: psutil.Process) -> bool:
    """Not a run that a worker has started, which ends by itself, with its result."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith("ray::")
    return False
