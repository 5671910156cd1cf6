"""Cells that differ in one field alone, put side by side: a sweep's FP32 against its INT8.

    digits/onnxruntime/cpu/fp32/b1/latency ─┐ both are ``digits/onnxruntime/cpu/*/b1/latency``
    digits/onnxruntime/cpu/int8/b1/latency ─┘ of one machine: a match across ``precision``

What belongs to the field goes with it: calibration with the precision, options with the backend,
the accelerator (which is part of the machine elsewhere) with the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

import msgspec

from harness.compare.match import Group, Match, Side, apart, group, obstacle, told_apart
from harness.errors import UsageError
from harness.protocols import Precision
from harness.records.cell import cell_of, content_of, spec_cell
from harness.records.result import Result
from harness.spec import FIELDS, RunSpec

# field -> the fields that are compared across together with it
ACROSS = {field.name: field.across for field in FIELDS if field.across is not None}
ACROSS_ONE_MODEL = ("precision", "quantization", "calibration_method")
# factors of the host; whatever else a machine has belongs to an accelerator
_HOST = (
    "architecture", "os", "cpu", "cpu_stepping", "isa", "sockets", "physical_cores",
    "logical_cpus", "smt", "usable_cpus", "cpu_quota", "memory_class", "virtual",
)  # fmt: skip


class Across(msgspec.Struct, frozen=True):
    """``values``: those of A and B, or None for every pair of different ones."""

    field: str
    values: tuple[str, str] | None = None


def parse_across(text: str) -> Across:
    """``precision`` or ``precision=fp32,int8``. Raises `UsageError`."""
    field, equals, rest = text.partition("=")
    field = field.strip().replace("-", "_")
    if field not in ACROSS:
        raise UsageError(f"--across is {text!r}", f"choose one of {', '.join(ACROSS)}")
    if not equals:
        return Across(field)
    values = [value.strip() for value in rest.split(",")]
    if len(values) != 2 or not all(values) or values[0] == values[1]:
        raise UsageError(f"--across is {text!r}", f"give two values: --across {field}=A,B")
    return Across(field, (values[0], values[1]))


def match_across(a: Iterable[Result], b: Iterable[Result], across: Across) -> list[Match]:
    """Every pair of cells that ``across`` allows, and the cells that have no such partner."""
    left, right = _by_rest(group(a), across), _by_rest(group(b), across)
    found: list[Match] = []
    for rest in dict.fromkeys([*left, *right]):
        found += _pairs(left.get(rest, []), right.get(rest, []), across)
    return told_apart(found)


_Keyed = tuple[tuple[str, str], Side]


def _by_rest(sides: Group, across: Across) -> dict[str, list[_Keyed]]:
    """Sides by all that must be alike, in the order of their values."""
    found: dict[str, list[_Keyed]] = {}
    for key, side in sides.items():
        found.setdefault(_rest(side.first, across.field), []).append((key, side))
    for alike in found.values():
        alike.sort(key=lambda keyed: _rank(keyed[1], across.field))
    return found


def _rest(run: Result, field: str) -> str:
    machine = run.machine.fingerprint
    if field == "device":
        machine = str([run.machine.factors.get(name) for name in _HOST])
    return f"{rest_of(run.spec, field)} {machine}"


def rest_of(spec: RunSpec, field: str) -> str:
    """A key that specs share which differ in ``field``, and what belongs to it, alone."""
    if spec.reference is not None and field in ACROSS_ONE_MODEL:  # it is the FP32's partner
        spec = msgspec.structs.replace(spec, model=spec.reference)
    for name in (field, *ACROSS.get(field, ())):
        spec = msgspec.structs.replace(spec, **{name: getattr(RunSpec(), name)})
    return spec_cell(spec).key


def _rank(side: Side, field: str) -> tuple[float, str]:
    """Reference first: precisions in their order, numbers by size, texts by letter."""
    value = getattr(side.first.spec, field)
    if field == "precision":
        return get_args(Precision).index(value), ""
    return (value, "") if isinstance(value, int) else (0, str(value))


def _pairs(left: list[_Keyed], right: list[_Keyed], across: Across) -> Iterator[Match]:
    paired: set[str] = set()
    seen: set[frozenset[str]] = set()
    for key_a, a in left:
        for key_b, b in right:
            values = _value(a, across), _value(b, across)
            runs = frozenset((a.first.id, b.first.id))  # a sweep beside itself has each pair twice
            if values[0] == values[1] or runs in seen or _other_model(a, b, across):
                continue
            if across.values is None or values == across.values:
                seen.add(runs)
                paired |= {key_a[0], key_b[0]}
                yield _match(key_b, a, b)
    yield from _alone(left, right, across, paired)


def _alone(
    left: list[_Keyed], right: list[_Keyed], across: Across, paired: set[str]
) -> Iterator[Match]:
    """Cells that were asked for and have no partner."""
    why = f"no other cell differs from it in {across.field} alone"
    wanted = across.values or (None, None)
    seen: set[str] = set()
    for position, side_list in enumerate((left, right)):
        for key, side in side_list:
            asked = wanted[position] in (None, _value(side, across))
            if asked and key[0] not in paired | seen:
                seen.add(key[0])
                yield apart(key, side, None, why) if position == 0 else apart(key, None, side, why)


def _other_model(a: Side, b: Side, across: Across) -> bool:
    """Whether an INT8 was made from another FP32 than the one beside it."""
    contents = [content_of(side.first) for side in (a, b)]
    return across.field in ACROSS_ONE_MODEL and None not in contents and contents[0] != contents[1]


def _value(side: Side, across: Across) -> str:
    return str(getattr(side.first.spec, across.field))


def _match(key: tuple[str, str], a: Side, b: Side) -> Match:
    kind, reason = obstacle(a, b)
    return Match(
        cell=cell_of(b.first).name,
        key=key[0],
        fingerprint=key[1],
        a=a,
        b=b,
        reference=cell_of(a.first).name,
        apart=kind,
        reason=reason,
    )
