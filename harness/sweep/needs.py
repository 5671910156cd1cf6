"""Which machines may measure a cell: what a fleet reads beside the fields of a run.

needs = "gpu"                   a CUDA device; "gpu:*H100*" one of that name
cpu = "avx512_vnni"             an instruction set, or a list of them
meter = true                    a meter of energy that can be read
machine = "jetson"              a machine by its name, or a class of like machines
machine = "every"               once on every class of machines that there is
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from harness.errors import UsageError

KEYS = ("needs", "cpu", "meter", "machine")
EVERY = "every"
_GPU = "gpu"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,60}[A-Za-z0-9])?")
_ISA = re.compile(r"[a-z0-9_]{1,30}")


class Needs(msgspec.Struct, frozen=True, order=True):
    """Nothing at all: any machine will do. ``gpu``: a glob of device names."""

    gpu: str = ""
    cpu: tuple[str, ...] = ()
    meter: bool = False
    machine: str = ""

    def __str__(self) -> str:
        """``gpu+avx512_vnni``: how a class of machines without a name is called."""
        if self.machine:
            return self.machine
        gpu = [] if not self.gpu else [_GPU if self.gpu == "*" else f"{_GPU}:{self.gpu}"]
        return "+".join([*gpu, *self.cpu, *["meter"] * self.meter]) or "any"


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has, of what cells may need. ``gpus``: the names of its CUDA devices."""

    machine: str
    machine_class: str
    isa: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    meters: tuple[str, ...] = ()


def lacking(needs: Needs, offers: Offers) -> list[str]:
    """What of ``needs`` the machine lacks, in words; empty where it may measure the cell."""
    lacks = [] if not needs.gpu or _has_gpu(needs.gpu, offers) else [_gpu_text(needs.gpu)]
    lacks += [name for name in needs.cpu if name not in offers.isa]
    if needs.meter and not offers.meters:
        lacks.append("a meter of energy")
    if needs.machine and needs.machine not in (offers.machine, offers.machine_class):
        lacks.append(f"the name {needs.machine}")
    return lacks


def _has_gpu(glob: str, offers: Offers) -> bool:
    return any(fnmatchcase(name.lower(), glob.lower()) for name in offers.gpus)


def _gpu_text(glob: str) -> str:
    return "a GPU" if glob == "*" else f"a GPU called {glob}"


def parse_needs(fields: Mapping[str, Any]) -> Needs:
    """Of a cell's fields. Raises `UsageError` that names the key and the value."""
    return Needs(
        gpu=_gpu(fields.get("needs", "")),
        cpu=_isa(fields.get("cpu", ())),
        meter=_meter(fields.get("meter", False)),
        machine=_machine(fields.get("machine", "")),
    )


def _gpu(value: Any) -> str:
    kind, _, glob = value.partition(":") if isinstance(value, str) else ("?", "", "")
    if value == "" or kind == _GPU:
        return (glob or "*") if value else ""
    raise UsageError(f"needs is {value!r:.80}", 'give "gpu", or "gpu:" and a name such as *H100*')


def _isa(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list | tuple) and all(
        isinstance(name, str) and _ISA.fullmatch(name) for name in names
    ):
        return tuple(sorted(set(names)))
    raise UsageError(f"cpu is {value!r:.80}", 'give an instruction set, such as "avx512_vnni"')


def _meter(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise UsageError(f"meter is {value!r:.80}", "give true or false")


def _machine(value: Any) -> str:
    if value == "" or (isinstance(value, str) and _NAME.fullmatch(value)):
        return str(value)
    raise UsageError(f"machine is {value!r:.80}", 'give the name of a machine, or "every"')


def is_name(text: str) -> bool:
    """Whether a machine may be called so: letters and digits, and between them also ``_ . -``."""
    return bool(_NAME.fullmatch(text)) and text != EVERY


class FleetRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[fleet]`` of a sweep file. Times in seconds.

    ``retries``: of a cell whose node was lost. ``lease_s``: without a sign of life from a node
    until its cell is given to another. ``wait_s``: for a machine that could measure it to join.
    """

    retries: int = 2
    lease_s: float = 60.0
    wait_s: float = 120.0


def parse_rules(table: Any) -> FleetRules:
    """Raises `UsageError` that names the key and the value."""
    try:
        rules = msgspec.convert(table, FleetRules)
    except msgspec.ValidationError as error:
        raise UsageError(f"[fleet]: {error}", "known are retries, lease_s and wait_s") from error
    bounds = {"retries": (0, 100), "lease_s": (2, 86_400), "wait_s": (0, 86_400)}
    for name, (low, high) in bounds.items():
        if not low <= getattr(rules, name) <= high:
            told = f"[fleet] {name} is {getattr(rules, name):g}"
            raise UsageError(told, f"give {low} to {high}")
    return rules
