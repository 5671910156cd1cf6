"""Sets of results put side by side, cell by cell.

    results of A ──> group: (cell, machine) -> runs ─┐
                                                     ├── match ──> Match, ...
    results of B ──> group ──────────────────────────┘

A cell that only one side has is a match too, one that says what keeps it from being compared: no
such cell there, other hardware, another boundary or dataset.

Across one field, cells match that differ in it alone: a sweep's FP32 against its INT8.

    digits/onnxruntime/cpu/fp32/b1/latency ─┐ both are ``digits/onnxruntime/cpu/*/b1/latency``
    digits/onnxruntime/cpu/int8/b1/latency ─┘ of one machine: a match across ``precision``

What belongs to the field goes with it: calibration with the precision, options with the backend,
the accelerator (which is part of the machine elsewhere) with the device. Two runs that somebody
names match whatever they measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import msgspec

from harness.compare.sides import Group, Side, attempt, failure, group
from harness.errors import UsageError
from harness.protocols import Precision
from harness.records.cell import (
    cell_of,
    content_of,
    key_by_stem,
    model_path,
    shared_names,
    spec_cell,
    told_name,
)
from harness.records.result import Result
from harness.spec import DEFINING, FIELDS, RunSpec

Apart = Literal["", "other hardware", "another benchmark", "missing", "failed", "the same runs"]
# field -> the fields that are compared across together with it
ACROSS = {field.name: field.across for field in FIELDS if field.across is not None}
ACROSS_ONE_MODEL = ("precision", "quantization", "calibration_method")
# factors of the host; whatever else a machine has belongs to an accelerator
_HOST = (
    "architecture", "os", "cpu", "cpu_stepping", "isa", "sockets", "physical_cores",
    "logical_cpus", "smt", "usable_cpus", "cpu_quota", "memory_class", "virtual",
)  # fmt: skip
# what a latency means depends on these; nothing of two runs compares where they differ
_MUST_MATCH = ("scenario", "boundary", "device")


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """One cell on one machine, of both sides. ``apart`` and ``reason``: why it is not compared."""

    cell: str
    key: str
    fingerprint: str
    a: Side | None
    b: Side | None
    reference: str = ""  # the cell of ``a``, where it is another one
    apart: Apart = ""
    reason: str = ""

    @property
    def sides(self) -> tuple[Side, Side]:
        """Of one that has both."""
        assert self.a is not None and self.b is not None
        return self.a, self.b


def match(a: Group, b: Group) -> list[Match]:
    """Every cell of either side once: those that compare, then those that do not and why.

    A model file of another folder is the same cell where neither side has a second one of its name:
    another checkout's, say.
    """
    both = [_joined(a[key], b[key]) for key in a if key in b]
    left = {key: side for key, side in a.items() if key not in b}
    right = {key: side for key, side in b.items() if key not in a}
    theirs = _by_stem(b)
    for stem, keys in _by_stem(a).items():
        others = theirs.get(stem, [])
        if len(keys) == 1 == len(others) and keys[0] in left and others[0] in right:
            both.append(_joined(left.pop(keys[0]), right.pop(others[0])))
    return _told_apart(both + _unmatched(left, right))


def _by_stem(sides: Group) -> dict[tuple[str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key, side in sides.items():
        found.setdefault((key_by_stem(side.first.spec), key[1]), []).append(key)
    return found


def _joined(a: Side, b: Side) -> Match:
    """Two sides of one cell."""
    return _match(a, b, *_obstacle(a, b))


def matched(a: Side, b: Side) -> Match:
    """Two sides of one machine, whatever cells they are of."""
    return _match(a, b, *_obstacle(a, b), reference=_reference(a, b))


def matched_runs(a: Result, b: Result) -> Match:
    """Two runs as they are, whatever became of them: what was measured stands."""
    sides = Side((a,)), Side((b,))
    return _match(*sides, *_unlike(a, b), reference=_reference(*sides))


def _match(a: Side | None, b: Side | None, apart: Apart, reason: str, reference: str = "") -> Match:
    either = b or a
    assert either is not None
    cell = cell_of(either.first)
    return Match(
        cell=cell.name,
        key=cell.key,
        fingerprint=either.first.machine.fingerprint,
        a=a,
        b=b,
        reference=reference,
        apart=apart,
        reason=reason,
    )


def _reference(a: Side, b: Side) -> str:
    cells = cell_of(a.first), cell_of(b.first)
    return "" if cells[0] == cells[1] else cells[0].name


# --- what keeps them apart ---


def _obstacle(a: Side, b: Side) -> tuple[Apart, str]:
    """What keeps two sides of one cell from being compared; twice nothing if all is well."""
    for name, side in (("A", a), ("B", b)):
        if not side.finished:
            return "failed", f"{name} {failure(side.failed)}"
    ours = {attempt(run) for run in a.finished}
    if shared := [run.id for run in b.finished if attempt(run) in ours]:
        return "the same runs", f"{shared[0]} is on both sides"
    return "", ""


def _unlike(a: Result, b: Result) -> tuple[Apart, str]:
    if a.machine.fingerprint != b.machine.fingerprint:
        told = f"the machines differ: {hardware_differences(a, b)}; measure both on one machine"
        return "other hardware", told
    for name in _MUST_MATCH:
        ours, theirs = getattr(a.spec, name), getattr(b.spec, name)
        if ours != theirs:
            told = f"the runs differ in {name}: {ours} and {theirs}; measure both alike"
            return "another benchmark", told
    return "", ""


def _unmatched(left: Group, right: Group) -> list[Match]:
    found: list[Match] = []
    for key, side in left.items():
        other = _counterpart(key, side, right)
        found.append(_apart(side, None if other is None else right.pop(other)))
    return found + [_apart(None, side) for side in right.values()]


def _counterpart(key: tuple[str, str], side: Side, right: Group) -> tuple[str, str] | None:
    """What the other side has in the cell's place: it on other hardware, or one of its name."""
    if elsewhere := [other for other in right if other[0] == key[0]]:
        return min(elsewhere, key=lambda other: _distance(side.first, right[other].first))
    name = cell_of(side.first).name
    alike = [o for o in right if o[1] == key[1] and cell_of(right[o].first).name == name]
    return alike[0] if alike else None


def _distance(a: Result, b: Result) -> int:
    return len(set(a.machine.factors.items()) ^ set(b.machine.factors.items()))


def _apart(a: Side | None, b: Side | None, alone: str = "") -> Match:
    """A match that cannot be compared; ``alone``: why a side has no counterpart."""
    return _match(a, b, *_why_apart(a, b, alone))


def _why_apart(a: Side | None, b: Side | None, alone: str) -> tuple[Apart, str]:
    for name, side in (("A", a), ("B", b)):
        if side is not None and not side.finished:
            return "failed", f"{name} {failure(side.failed)}"
    if a is None or b is None:
        return "missing", alone or f"only {'B' if a is None else 'A'} has this cell"
    if cell_of(a.first).key == cell_of(b.first).key:
        return "other hardware", f"the machines differ: {hardware_differences(a.first, b.first)}"
    told = [f"{n} ({x} and {y})" for n, (x, y) in spec_differences(a.first, b.first).items()]
    return "another benchmark", f"the benchmarks differ: {', '.join(told)}"


def hardware_differences(a: Result, b: Result) -> str:
    """``cpu (X and Y), isa (absent and avx2)``: the factors that the machines differ in."""
    ours, theirs = a.machine.factors, b.machine.factors
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    told = [f"{n} ({ours.get(n, 'absent')} and {theirs.get(n, 'absent')})" for n in names]
    return ", ".join(told) or "their fingerprints"


def spec_differences(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """What the two runs were asked that defines a benchmark, where it differs."""
    names = [field.name for field in DEFINING]
    values = {name: (str(getattr(a.spec, name)), str(getattr(b.spec, name))) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


# --- names ---


def _told_apart(matches: Sequence[Match]) -> list[Match]:
    """Under their long names where models of different folders have one file name."""
    sides = [(_model(one.a), _model(one.b)) for one in matches]
    shared = shared_names(path for pair in sides for path in pair if path)
    return [
        msgspec.structs.replace(
            one,
            cell=told_name(one.cell, b or a, shared),
            reference=one.reference and told_name(one.reference, a, shared),
        )
        for one, (a, b) in zip(matches, sides, strict=True)
    ]


def _model(side: Side | None) -> str:
    return model_path(side.first.spec.model) if side else ""


# --- across one field ---


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
    return _told_apart(found)


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
                yield matched(a, b)
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
                yield _apart(side, None, why) if position == 0 else _apart(None, side, why)


def _other_model(a: Side, b: Side, across: Across) -> bool:
    """Whether an INT8 was made from another FP32 than the one beside it."""
    contents = [content_of(side.first) for side in (a, b)]
    return across.field in ACROSS_ONE_MODEL and None not in contents and contents[0] != contents[1]


def _value(side: Side, across: Across) -> str:
    return str(getattr(side.first.spec, across.field))
