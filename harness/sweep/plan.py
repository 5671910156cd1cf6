"""From a sweep file to the cells that it asks for.

    name = "nightly"
    launches = 5                    # of every cell, interleaved
    time_limit_s = 900              # of one launch of one cell
    paired = "precision"            # cells that differ in this field alone take turns: a duel

    [defaults]                      # any field of a run, as `spec` in a result names it
    duration_s = 5

    [matrix]                        # a list per field; every combination is a cell
    model = ["digits", "models/detector.onnx"]
    precision = ["fp32", "int8"]

    [[include]]                     # one cell more, with the defaults
    model = "resnet18"
    backend = "pytorch"

    [[exclude]]                     # cells that match every line of it are left out
    model = "models/*"
    precision = "fp32"

    [fleet]                         # and in each table ``needs``, ``cpu``, ``meter``, ``machine``:
    retries = 2                     # for `harness.fleet`, see `harness.sweep.needs`

Paths are relative to the file's folder. Whatever does not make sense is refused before anything is
measured: a key, field or value that is unknown, an exclusion that matches nothing, a cell that
comes twice.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from harness import spec as specs
from harness.compare.match import rest_of
from harness.errors import UsageError
from harness.host.names import nearest, tame
from harness.records.cell import (
    Cell,
    fits,
    long_name,
    model_path,
    shared_names,
    spec_cell,
    told_name,
)
from harness.spec import MODEL_SUFFIXES, RunSpec
from harness.spec.variants import OF_A_LOAD
from harness.sweep import needs
from harness.sweep.needs import FleetRules, Needs

MAX_BYTES = 1 << 20
MAX_CELLS = 10_000
DEFAULT_LAUNCHES = 5
DEFAULT_TIME_LIMIT_S = 1800.0
_KEYS = (
    "name",
    "launches",
    "time_limit_s",
    "paired",
    "defaults",
    "matrix",
    "include",
    "exclude",
    "fleet",
)
FILES = ("model", "reference", "inputs", "dataset", "calibration")
_SUFFIXES = (*MODEL_SUFFIXES, ".npz")  # a value that ends so is a file, there or not
_SEVERAL = ("input_shapes", "options", "tags", "require", "cpus")
_ABLE = [field.name for field in specs.DEFINING if field.name not in OF_A_LOAD]
_OURS = ("launches", "out")  # fields of a run that the sweep itself decides

Fields = dict[str, Any]


class SweepCell(msgspec.Struct, frozen=True):
    """One cell: its identity, and its fields as `harness.spec.parse` takes them."""

    cell: Cell
    fields: Fields
    needs: Needs = Needs()  # of the machine, in a fleet
    duel: str = ""  # the same in all cells that take turns with each other; empty: none does
    variant: str = ""  # its name there

    @property
    def spec(self) -> RunSpec:
        return specs.parse(self.fields)


class Plan(msgspec.Struct, frozen=True):
    """What a sweep file asks for."""

    name: str
    sha256: str  # of the file
    launches: int
    time_limit_s: float
    cells: tuple[SweepCell, ...]
    fleet: FleetRules = FleetRules()
    paired: str = ""  # the field in which cells that take turns differ

    @property
    def units(self) -> tuple[tuple[SweepCell, ...], ...]:
        """What is measured together: cells that take turns, the reference first, or one alone."""
        found: dict[str, list[SweepCell]] = {}
        for one in self.cells:
            found.setdefault(one.duel or one.cell.key + str(one.needs), []).append(one)
        return tuple(map(tuple, found.values()))

    def only(self, globs: Sequence[str]) -> Plan:
        """The cells whose names match one of ``globs``, and those that they take turns with.

        Raises `UsageError` for an idle glob.
        """
        for glob in globs:
            if not any(fits(long_name(one.spec), glob) for one in self.cells):
                names = ", ".join(one.cell.name for one in self.cells[:3])
                raise UsageError(f"--only {glob!r} matches no cell", f"cells are {names}, ...")
        chosen = [
            one
            for unit in self.units
            if any(fits(long_name(one.spec), glob) for one in unit for glob in globs)
            for one in unit
        ]
        return msgspec.structs.replace(self, cells=tuple(chosen)) if globs else self

    def shard(self, index: int, count: int) -> Plan:
        """Every ``count``-th cell from the ``index``-th (from 1) on; cells that take turns count
        as one."""
        mine = self.units[index - 1 :: count]
        return msgspec.structs.replace(self, cells=tuple(one for unit in mine for one in unit))


def read_plan(path: Path) -> Plan:
    """The plan in a sweep file. Raises `UsageError` that names the file, the key and the value."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{str(path)!r} is no sweep file: it is too large", "name a TOML file")
        raw = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(
            f"sweep file {str(path)!r} cannot be read: {error.strerror}", "name a TOML file"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is no TOMLDecodeError
        raise UsageError(f"{str(path)!r} is no TOML: {error}", "mend the file") from error
    try:
        return _plan(raw, path, hashlib.sha256(data).hexdigest())
    except UsageError as error:
        raise UsageError(f"{str(path)!r}: {error.message}", error.remedy) from error


def refuse_needs(plan: Plan) -> None:
    """Raises `UsageError` where ``plan`` says which machines measure what: one alone cannot."""
    for one in plan.cells:
        if one.needs != Needs():
            raise UsageError(
                f"{one.cell.name} is for machines of the class {str(one.needs)!r}",
                "harness fleet run gives cells to machines; harness sweep measures on this one",
            )


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8). Raises `UsageError`."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard is {text!r}", "give i/n with i from 1 to n, such as 1/4")
    return int(found[1]), int(found[2])


def _plan(raw: Mapping[str, Any], path: Path, sha256: str) -> Plan:
    _known(raw, _KEYS, "key")
    matrix = _fields(raw.get("matrix", {}), "matrix")
    defaults = _fields(raw.get("defaults", {}), "defaults")
    include = [_fields(one, "include") for one in _tables(raw, "include")]
    if not matrix and not include:
        raise UsageError("it asks for no cell", "give a [matrix] or an [[include]]")
    excluded = [_fields(one, "exclude") for one in _tables(raw, "exclude")]
    wanted = _without(_product(matrix) if matrix else [], excluded, defaults)
    cells = [_cell({**defaults, **fields}, path.parent) for fields in [*wanted, *include]]
    field = _paired(raw.get("paired"), matrix)
    cells = _in_turns(cells, field) if field else cells
    return Plan(
        name=_name(raw.get("name", path.stem)),
        sha256=sha256,
        launches=specs.parse_int("launches", str(raw.get("launches", DEFAULT_LAUNCHES)), 1, 1000),
        time_limit_s=specs.parse_number(
            "time_limit_s", str(raw.get("time_limit_s", DEFAULT_TIME_LIMIT_S)), 1, 604_800
        ),
        cells=_unique(cells),
        fleet=needs.parse_rules(raw.get("fleet", {})),
        paired=field,
    )


def _paired(value: Any, matrix: Fields) -> str:
    """The field that ``paired`` names. Raises `UsageError` for none that cells could differ in."""
    if value is None:
        return ""
    able = [name for name in matrix if name in _ABLE and len(matrix[name]) > 1]
    if value not in able:
        named = f"one of {', '.join(able)}" if able else "none here: give [matrix] such a field"
        raise UsageError(
            f"paired is {str(value)!r:.80}, and cells take turns that differ in one field of the "
            "matrix, of a run's definition",
            f"name {named}",
        )
    return str(value)


def _in_turns(cells: Sequence[SweepCell], field: str) -> list[SweepCell]:
    """Those that differ in ``field`` alone marked as of one duel; one without a partner is left as
    it is. Raises `UsageError` for one that cannot take turns."""
    alike: dict[str, list[SweepCell]] = {}
    for one in cells:
        alike.setdefault(f"{rest_of(one.spec, field)} {one.needs}", []).append(one)
    found: dict[tuple[str, Needs], SweepCell] = {}
    for group in alike.values():
        names = [_text(one.fields.get(field, getattr(RunSpec(), field))) for one in group]
        for one, name in zip(group, names, strict=True):
            told = name if names.count(name) == 1 else f"{name} ({one.cell.key[:6]})"
            turned = _turned(one, group[0].cell.key, told) if len(group) > 1 else one
            found[one.cell.key, one.needs] = turned
    return [found[one.cell.key, one.needs] for one in cells]


def _turned(one: SweepCell, duel: str, variant: str) -> SweepCell:
    if one.spec.iterations is not None or one.spec.concurrency > 1 or one.spec.scheduled:
        raise UsageError(
            f"{one.cell.name} cannot take turns: a duel counts rounds, of one inference at a time",
            "leave out iterations, concurrency and scenario, or paired",
        )
    fields = {**one.fields, "tags": [*one.fields.get("tags", ()), f"design={specs.TURNS}"]}
    return SweepCell(spec_cell(specs.parse(fields)), fields, one.needs, duel, variant)


def _name(value: Any) -> str:
    name = tame(str(value), 40)
    if not name or not isinstance(value, str):
        raise UsageError(f"name is {value!r}", "give letters and digits")
    return name


def _tables(raw: Mapping[str, Any], key: str) -> list[Any]:
    found = raw.get(key, [])
    if not isinstance(found, list):
        raise UsageError(f"{key} is {found!r:.80}", f"give [[{key}]] tables")
    return found


def _fields(table: Any, where: str) -> Fields:
    """The table itself, if its keys are fields of a run."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {table!r:.80}", f"give it as a table, [{where}]")
    ours = [f for f in RunSpec.__struct_fields__ if f not in _OURS]
    _known(table, [*ours, *needs.KEYS], f"field in [{where}]")
    return table


def _known(table: Mapping[str, Any], known: Sequence[str], kind: str) -> None:
    for key in table:
        if key not in known:
            near = nearest(key, known) or nearest(f"{key}_s", known)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
            raise UsageError(f"unknown {kind} {key!r}", hint)


def _product(matrix: Fields) -> list[Fields]:
    for field, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"matrix.{field} is {values!r:.80}", "give a list of values")
    if (cells := math.prod(map(len, matrix.values()))) > MAX_CELLS:
        raise UsageError(f"the matrix has {cells:,} cells", f"ask for {MAX_CELLS:,} at most")
    combinations = itertools.product(*matrix.values())
    return [dict(zip(matrix, values, strict=True)) for values in combinations]


def _without(cells: list[Fields], excluded: Sequence[Fields], defaults: Fields) -> list[Fields]:
    for rule in excluded:
        left = [cell for cell in cells if not (rule and _matches({**defaults, **cell}, rule))]
        if len(left) == len(cells):
            raise UsageError(f"exclude {rule} matches no cell of the matrix", "mend or remove it")
        cells = left
    return cells


def _matches(cell: Fields, rule: Fields) -> bool:
    """Whether each field of ``rule`` holds in ``cell``: a value, a list of them, or a glob."""
    standard = {**msgspec.structs.asdict(RunSpec()), **dict.fromkeys(needs.KEYS, "")}
    return all(
        any(
            fnmatchcase(_text(cell.get(field, standard[field])), _text(value))
            for value in (values if isinstance(values, list) else [values])
        )
        for field, values in rule.items()
    )


def _cell(fields: Fields, folder: Path) -> SweepCell:
    values = {
        field: _value(field, value, folder)
        for field, value in fields.items()
        if field not in needs.KEYS
    }
    if values.get("precision") != "int8":  # the INT8 cells of a matrix alone calibrate
        values = {
            name: value for name, value in values.items() if not specs.BY_NAME[name].quantizing
        }
    return SweepCell(spec_cell(specs.parse(values)), values, needs.parse_needs(fields))


def _value(field: str, value: Any, folder: Path) -> Any:
    """As `specs.parse` takes it: a text, or a list of texts for a field that repeats."""
    if specs.BY_NAME[field].parse is None:
        if not isinstance(value, bool):
            raise UsageError(f"{field} is {str(value)!r:.80}", "give true or false")
        return value
    several = field in _SEVERAL and isinstance(value, list | dict)
    if not (several or isinstance(value, str | int | float)):
        raise UsageError(f"{field} is {str(value)!r:.80}", "give a text or a number")
    if isinstance(value, dict):
        return [f"{key}={_text(one)}" for key, one in value.items()]  # a shape may be a list
    if isinstance(value, list):
        texts = [_text(one) for one in value]
        return ",".join(texts) if field == "cpus" else texts
    text = _text(value)
    path = folder / text
    if field in FILES and (text.endswith(_SUFFIXES) or os.path.isfile(path)):  # noqa: PTH113
        return text if "\0" in text else str(path.resolve())  # `specs.parse` refuses that one
    return text


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _twice(a: SweepCell, b: SweepCell) -> str:
    """What to do; two files may count as one model, by their names."""
    files = [one.spec.model for one in (a, b)]
    if files[0] == files[1]:
        return "remove one of them"
    return f"{files[0]!r} and {files[1]!r} count as one model: name their folders differently"


def _unique(cells: Sequence[SweepCell]) -> tuple[SweepCell, ...]:
    if not cells:
        raise UsageError("every cell is excluded", "remove an exclusion")
    seen: dict[tuple[str, Needs], SweepCell] = {}
    for one in cells:
        slot = (one.cell.key, one.needs)
        if slot in seen:
            raise UsageError(f"the cell {one.cell.name} comes twice", _twice(seen[slot], one))
        seen[slot] = one
    return tuple(_told_apart(cells))


def _told_apart(cells: Sequence[SweepCell]) -> Iterator[SweepCell]:
    """Under their long names where models of different folders have one file name."""
    paths = [model_path(one.spec.model) for one in cells]
    shared = shared_names(paths)
    for one, path in zip(cells, paths, strict=True):
        cell = Cell(told_name(one.cell.name, path, shared), one.cell.key)
        yield msgspec.structs.replace(one, cell=cell)
