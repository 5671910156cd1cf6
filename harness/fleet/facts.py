"""What a node is and has: found out when it joins, advertised to Ray, held against it later.

harness.io/node, .../class      labels: the machine's name, its class of like machines
harness.io/version, .../code    the Harness that it runs, and the SHA-256 of its source
harness.io/isa.avx512_vnni      one label for each instruction set, meter and runtime
harness_machine                 resource: 1, taken whole by a cell on the processors
harness_gpu_0                   resource: 1 for each CUDA device
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from importlib.resources import files
from pathlib import Path

import msgspec

from harness import __version__, machine, registry
from harness.errors import UsageError
from harness.host.gpus import cuda_devices
from harness.host.names import tame
from harness.inspect.meters import meters
from harness.maybe import Unavailable
from harness.protocols import Available
from harness.sweep.needs import Offers, is_name

PREFIX = "harness.io/"
MACHINE_RESOURCE = "harness_machine"
NODE_VARIABLE = "HARNESS_FLEET_NODE"  # of Ray's workers: the file that `write` made
_LONGEST_LABEL = 60


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``versions``: of Python, Harness, Ray and the runtimes. ``environment``: of who joined."""

    offers: Offers
    fingerprint: str
    harness: str
    code: str
    versions: dict[str, str]
    environment: dict[str, str] = {}
    folder: str = ""  # that it joined from: factories and commits are looked for there

    @property
    def name(self) -> str:
        return self.offers.machine


def gather(name: str | None = None, machine_class: str | None = None) -> NodeFacts:
    """Of this machine; its name is the host's unless given, and its class says what it is.

    Raises `UsageError` for a name that is none.
    """
    here = machine.fingerprint()
    gpus = _gpus()
    fingerprint = hashlib.sha256("\0".join((here.fingerprint, *gpus)).encode()).hexdigest()[:16]
    default = f"{tame(here.factors['cpu'], 30)}-{fingerprint[:6]}".lower().lstrip("-_.")
    return NodeFacts(
        offers=Offers(
            machine=_named("--name", name or tame(socket.gethostname(), 40) or "node"),
            machine_class=_named("--class", machine_class or default),
            isa=tuple(here.factors["isa"].split()),
            gpus=gpus,
            meters=_meters(),
        ),
        fingerprint=fingerprint,
        harness=__version__,
        code=code_sha256()[:16],
        versions=dict(machine.software(backends=registry.backend_names()).versions),
        environment=dict(os.environ),
        folder=str(Path.cwd()),
    )


def offers_now(claimed: Offers) -> Offers:
    """What the machine has just now, whatever it said when it joined."""
    isa = tuple(machine.fingerprint().factors["isa"].split())
    meters_now = _meters() if claimed.meters else ()
    return msgspec.structs.replace(claimed, isa=isa, gpus=_gpus(), meters=meters_now)


def _gpus() -> tuple[str, ...]:
    found = cuda_devices()
    return () if isinstance(found, Unavailable) else tuple(device.name for device in found)


def _meters() -> tuple[str, ...]:
    return tuple(one.name for one in meters() if isinstance(one.status, Available))


def _named(flag: str, text: str) -> str:
    if not is_name(text):
        raise UsageError(f"{flag} is {text!r:.80}", "give up to 62 letters, digits, or _ . -")
    return text


def code_sha256() -> str:
    """Of the source of Harness: two checkouts of one version may measure differently."""
    total = hashlib.sha256()
    for package in ("harness", "harness.backends", "harness.profiles"):
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*.py")):
            total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def labels(facts: NodeFacts) -> dict[str, str]:
    """As Ray's labels, whose keys and values have 63 tame characters at most."""
    said = {
        "node": facts.name,
        "class": facts.offers.machine_class,
        "fingerprint": facts.fingerprint,
        "version": facts.harness,
        "code": facts.code,
        **{f"isa.{name}": "yes" for name in facts.offers.isa},
        **{f"meter.{name}": "yes" for name in facts.offers.meters},
        **{f"gpu.{index}": name for index, name in enumerate(facts.offers.gpus)},
        **{f"has.{name}": version for name, version in facts.versions.items()},
    }
    return {PREFIX + _label(key): _label(value) for key, value in said.items()}


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:_LONGEST_LABEL].strip("-_.") or "unknown"


def resources(facts: NodeFacts) -> dict[str, float]:
    """As Ray's resources: what is measured on one at a time."""
    gpus = {f"harness_gpu_{index}": 1.0 for index in range(len(facts.offers.gpus))}
    return {MACHINE_RESOURCE: 1.0, **gpus}


def write(facts: NodeFacts, folder: Path) -> Path:
    """Into a file in a folder of this user's alone, for the node's workers (`NODE_VARIABLE`)."""
    path = folder / "node.json"
    path.write_bytes(msgspec.json.encode(facts))
    return path


def read() -> NodeFacts:
    """Of the node that this process is a worker of."""
    return msgspec.json.decode(Path(os.environ[NODE_VARIABLE]).read_bytes(), type=NodeFacts)


def without_secrets(facts: NodeFacts) -> NodeFacts:
    """As others may see it."""
    return msgspec.structs.replace(facts, environment={})


def differs(mine: NodeFacts, other: NodeFacts) -> str:
    """Why two nodes cannot measure in one night, both named; empty where they can.

    Like machines must have like runtimes, too; unlike ones have their own, and their own history.
    """
    for what, a, b in (
        ("Harness", mine.harness, other.harness),
        ("Harness's source", mine.code, other.code),
        ("Python", *(".".join(f.versions["python"].split(".")[:2]) for f in (mine, other))),
    ):
        if a != b:
            return f"{mine.name} has {what} {a}, {other.name} has {b}"
    if mine.offers.machine_class != other.offers.machine_class:
        return ""
    if mine.fingerprint != other.fingerprint:
        return (
            f"{mine.name} ({mine.fingerprint}) and {other.name} ({other.fingerprint}) are unlike "
            f"machines, and both of the class {mine.offers.machine_class}"
        )
    for name in sorted({*mine.versions, *other.versions}):
        a, b = (facts.versions.get(name, "no such package") for facts in (mine, other))
        if a != b:
            return f"{mine.name} has {name} {a}, {other.name} has {b}, and both are of one class"
    return ""
