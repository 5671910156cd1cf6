"""What the tests of one pytest session were measured on, and what they are compared with.

A file that Harness wrote holds the factors of its machines (``machine_info.harness``):

    pytest starts     no machine of the file has this host's factors        the session is refused
    hwbench measured  the file has this cell from another GPU, say          the test fails

Only factors that both sides state are held against each other at the start: which GPU a test uses
is known when it has run.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from harness import machine
from harness.errors import NothingComparable
from harness.records.result import Machine
from harness.views.text import plain

Factors: TypeAlias = "dict[str, str]"
MACHINES = pytest.StashKey[dict[str, Factors]]()  # measured on, by fingerprint
SAVED = pytest.StashKey[dict[str, list[Factors]]]()  # compared with, by full name
SUMMARY = pytest.StashKey[list[str]]()


def refuse_other_hardware(config: pytest.Config, saved: dict[str, Any]) -> None:
    """Raises `pytest.UsageError` naming the factors, where no machine of the file is this one."""
    machines = _machines(saved["machine_info"])
    here = machine.fingerprint().factors
    told = [differences(factors, here) for factors in machines.values()]
    if told and all(told):
        raise pytest.UsageError(
            f"the file to compare with was measured on other hardware: {told[0]}; measure the "
            "baseline on this machine, or leave --benchmark-compare away"
        )
    known = config.stash.setdefault(SAVED, {})
    for name, fingerprint in _fingerprints(saved):
        if fingerprint in machines:
            known.setdefault(name, []).append(machines[fingerprint])


def refuse_other_device(config: pytest.Config, name: str, used: Machine) -> None:
    """Raises `NothingComparable` where the measurement ``name`` was saved from another device."""
    for factors in config.stash.get(SAVED, {}).get(name, []):
        if told := differences(factors, used.factors, everything=True):
            raise NothingComparable(f"{name} is saved from other hardware: {told}")


def differences(saved: Factors, here: Factors, *, everything: bool = False) -> str:
    """``cpu (X there, Y here)``: factors that differ; with ``everything`` those of one side too."""
    names = [name for name in saved if everything or name in here]
    names += [name for name in here if everything and name not in saved]
    return ", ".join(
        plain(f"{name} ({saved.get(name, 'absent')} there, {here.get(name, 'absent')} here)")
        for name in names
        if saved.get(name) != here.get(name)
    )


def note(config: pytest.Config, used: Machine, line: str) -> None:
    """Keep what a test measured on, and its line for the end of the session."""
    config.stash.setdefault(MACHINES, {})[used.fingerprint] = dict(used.factors)
    config.stash.setdefault(SUMMARY, []).append(line)


def measured_machines(config: pytest.Config) -> dict[str, Any]:
    """The block for ``machine_info``; empty where no test of this session measured."""
    machines = config.stash.get(MACHINES, {})
    return {"machines": machines} if machines else {}


def _machines(info: dict[str, Any]) -> dict[str, Factors]:
    """By fingerprint, as far as the file is well formed."""
    block = info["harness"]
    machines = block.get("machines") if isinstance(block, dict) else None
    if not isinstance(machines, dict) or not all(isinstance(m, dict) for m in machines.values()):
        raise pytest.UsageError("the file to compare with does not name its machines; export again")
    return machines


def _fingerprints(saved: dict[str, Any]) -> list[tuple[str, str]]:
    """(full name, machine) of each benchmark that says it."""
    found = []
    for one in saved.get("benchmarks", []):
        extra = one.get("extra_info")
        told = extra.get("fingerprint") if isinstance(extra, dict) else None
        if isinstance(told, str):
            found.append((str(one.get("fullname")), told))
    return found
