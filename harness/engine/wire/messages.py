"""What driver and worker say to each other: JSON lines over a socket pair.

    driver                                    worker (fresh process)
      Boot(backend, device, ...)   ────────>    sets its environment, imports the runtime
                                   <────────  imported
      Job(artifact, inputs, ...)   ────────>    loads the model
                                   <────────  loaded
      Go                           ────────>    first inference
                                   <────────  ready
      Go                           ────────>    warms up           } the timeline carries
                                   <────────  steady               } commands meanwhile
      Go                           ────────>    the timed window   }
                                   <────────  timed
      Go                           ────────>    profiles its operators   } where they are
                                   <────────  profiled                 } asked for
      Go                           ────────>    verifies outputs, describes itself
                                   <────────  verified

In a duel the window consists of turns, between which the worker is stopped:

                                   <────────  resting
      Turn                         ────────>    runs for so long
                                   <────────  rested            } again and again
      Turn(0)                      ────────>    the window is over
                                   <────────  timed

Every wait of the worker lets the driver take a phase snapshot while nothing moves.
"""

from __future__ import annotations

import socket
from typing import TypeVar

import msgspec

from harness.maybe import Maybe, Unavailable, decode
from harness.protocols import Artifact, Description, SessionOptions
from harness.records.operators import LaunchOperators
from harness.records.result import NOT_OWN, NOT_REACHED, Accuracy, Fidelity, Overflows

T = TypeVar("T")
PROTOCOL = 1  # raised with every change that a worker of another release would misread


class Boot(msgspec.Struct, frozen=True):
    """Comes with the timeline's descriptor. ``environment`` is set before the runtime loads."""

    backend: str
    device: str
    environment: dict[str, str]
    cpus: tuple[int, ...] | None
    streams: int
    capacity: int
    columns: tuple[str, ...] = ("start", "end")  # of the timeline


class Drawn(msgspec.Struct, frozen=True):
    """How further inputs are drawn where there are no labelled ones: see `harness.models.data`."""

    ranges: dict[str, tuple[int, int]]
    seed: int


class Turns(msgspec.Struct, frozen=True):
    """The window is one of turns. The ``threads`` busiest threads are pinned, each to one of
    ``cpus``; none where there are fewer of those."""

    threads: int
    cpus: tuple[int, ...]


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """When requests come, see `harness.stats.arrivals`; ``trace`` is a file that says it.

    Up to ``most`` are served at once, for which the first waits for ``wait_ns`` at most.
    """

    arrivals: str
    trace: str | None
    rate_per_s: float
    seed: int
    launch: int
    lead_s: float
    duration_s: float | None  # None: as long as the trace
    count: int | None
    most: int = 1
    wait_ns: int = 0


class Job(msgspec.Struct, frozen=True):
    artifact: Artifact
    inputs_path: str
    options: SessionOptions
    batch_size: int
    load: str = "latency"  # see `harness.registry.LOADS`
    device_iterations: int = 0  # to be timed by the device's own events, of each session at most
    reference: Artifact | None = None
    evaluation_path: str | None = None
    evaluation_name: str = ""
    evaluation_sha256: str = ""
    drawn: Drawn | None = None
    scores: str | None = None  # the output that accuracy is of
    turns: Turns | None = None
    operators: bool = False  # profile them after the window
    requests: Requests | None = None
    # of batches of 2, 3, ...: artifact and inputs
    larger: tuple[tuple[Artifact, str], ...] = ()


class Turn(msgspec.Struct, frozen=True):
    """Run for ``ns``, and ``at_least`` so many iterations; 0 ns: no turn comes any more."""

    ns: int
    at_least: int = 1
    timed: bool = True  # of the window; turns before it belong to the warm-up


class Rested(msgspec.Struct, frozen=True):
    """One turn. Indices since the start, times on the common clock, and the process's processor
    time, in ns."""

    first: int
    last: int  # index after the last iteration
    start_ns: int
    end_ns: int
    cpu_start_ns: int
    cpu_end_ns: int


class Go(msgspec.Struct, frozen=True):
    """Carry on; with ``finish``, skip what is left and leave."""

    finish: bool = False


class Looked(msgspec.Struct, frozen=True):
    """Names of outputs with NaN and with infinities; what the outputs are that none could read."""

    nan: tuple[str, ...] = ()
    infinite: tuple[str, ...] = ()
    unseen: dict[str, str] = {}


class Verified(msgspec.Struct, frozen=True):
    """What the worker found after the window."""

    description: Description
    looked: Maybe[Looked]
    fidelity: Maybe[Fidelity] | None = None
    accuracy: Maybe[Accuracy] | None = None
    # outputs after the window that are others on the same inputs bound anew
    changed: Maybe[tuple[str, ...]] = NOT_REACHED
    overflows: Maybe[Overflows] = NOT_OWN


def unverified(why: Unavailable) -> Verified:
    """What is known where nothing could be found out."""
    return Verified(Description({}, why, threads=why), why, why, why, why)


class Failure(msgspec.Struct, frozen=True):
    """An exception that ended the worker's work. ``kind``: its class in harness.errors, if any."""

    kind: str
    message: str
    remedy: str
    traceback: str


class Spent(msgspec.Struct, frozen=True):
    """Processor time of all the worker's threads under load, window and guard band, in ns."""

    cpu_ns: int
    iterations: int


class Event(msgspec.Struct, frozen=True):
    """Worker to driver. ``phase`` is what has just been finished."""

    # imported | loaded | ready | steady | resting | rested | timed | profiled | verified | failed
    phase: str
    seconds: float = 0.0
    facts: dict[str, str] = {}
    compile_s: float | None = None  # of `loaded`: the part that sessions say they compiled
    pipelined: bool = False  # of `loaded`: one thread keeps an inference in flight on each stream
    device_memory: dict[str, Maybe[int]] = {}  # the framework's own view, in bytes
    device_times_path: str = (
        ""  # of `steady`: an .npz that `harness.engine.worker.device_times` reads
    )
    device_untimed: Unavailable | None = None  # why there is none, where it should have been
    spent: Spent | None = None  # of `timed`
    load_facts: dict[str, int] = {}  # of `timed`: what the load's own figures need
    yardstick_ns: int = 0  # of `steady` and `timed`: see `harness.engine.worker.yardstick`
    rested: Rested | None = None
    operators: Maybe[LaunchOperators] | None = None  # of `profiled`
    verified: Verified | None = None
    failure: Failure | None = None


class Peer:
    """One end of the socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, message: msgspec.Struct) -> None:
        """Raises `OSError` when the other end is gone."""
        self.sock.sendall(msgspec.json.encode(message) + b"\n")

    def send_with_fd(self, message: msgspec.Struct, fd: int) -> None:
        """`send`, with a file descriptor that the other end gets a copy of."""
        socket.send_fds(self.sock, [msgspec.json.encode(message) + b"\n"], [fd])

    def receive_with_fd(self, kind: type[T]) -> tuple[T, int]:
        """The first message and its file descriptor. Raises `EOFError`."""
        data, fds, _, _ = socket.recv_fds(self.sock, 1 << 16, 1)
        if not fds:
            raise EOFError("the other end is gone")
        return decode(data, kind), fds[0]

    def receive(self) -> list[bytes] | None:
        """Whole lines that have arrived, waiting for some. None: the other end has closed."""
        data = self.sock.recv(1 << 20)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return lines

    def wait_for(self, kind: type[T]) -> T:
        """Block until one message of ``kind``. Raises `EOFError` when the other end is gone."""
        while True:
            lines = self.receive()
            if lines is None:
                raise EOFError("the other end is gone")
            if lines:
                return decode(lines[0], kind)
