"""The gate's policy, ``harness-policy.toml``: what counts as worse, and what is known and accepted.

    alpha = 0.01                  minimum_launches = 5            strict = false
    [[limit]]       cell, metric  minimum_effect, maximum, minimum, floor_of_fp32
    [[waiver]]      cell, metric  ceiling, expires, issue, reason
    [quarantine]    cells         propose_above_cv
    [expect]        cells
    [confirm]       baseline_command and candidate_command, or environments

A policy that has no effect is worse than none, since people rely on it: keys that nobody reads,
values of a wrong type and globs that match no cell are refused, with the nearest thing there is.
In a glob ``*`` stands for anything, slashes included: ``*/int8/*``.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from harness.errors import UsageError
from harness.host.names import nearest
from harness.records.cell import fits
from harness.records.metric import COMPARED, METRICS
from harness.stats.two_samples import MIN_LAUNCHES

DEFAULT_FLOOR = 0.99  # of FP32's accuracy, as the MLPerf rules ask of a quantized model
_ACCURACY = "top1"
_BOTH = {"baseline", "candidate"}
_SEE = "see docs/policy.md"
T = TypeVar("T")


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one metric in the cells that ``cell`` matches. Later ones override earlier ones."""

    metric: str
    cell: str = "*"
    minimum_effect: float | None = None  # ratio - 1 below which a change does not count
    maximum: float | None = None  # in the metric's unit, whatever the baseline says
    minimum: float | None = None
    floor_of_fp32: float | None = None  # accuracy alone: share of FP32's that must be kept


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A regression that is known and accepted for a while. ``ceiling``: the worst accepted value,
    in the metric's unit (a floor, for metrics where higher is better)."""

    cell: str
    metric: str
    ceiling: float
    expires: date  # the last day on which it holds
    issue: str
    reason: str


class Quarantine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that are measured and shown, and never fail."""

    cells: tuple[str, ...] = ()
    propose_above_cv: float = 0.10  # coefficient of variation of the launches' latency


class Expect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that must have been measured."""

    cells: tuple[str, ...] = ()


class Confirm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to measure the last good build and the candidate again, side by side (one of these).

    The tables have the keys ``baseline`` and ``candidate``: folders of Python environments, commits
    of this repository (``recorded``: those that the runs were measured at), folders of model files.
    ``trust``: code that results may name (``module:name``, operator libraries) and that may run.
    """

    baseline_command: str | tuple[str, ...] | None = None
    candidate_command: str | tuple[str, ...] | None = None
    environments: dict[str, str] | None = None
    commits: dict[str, str] | Literal["recorded"] | None = None
    artifacts: dict[str, str] | None = None
    trust: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``strict`` fails what could not be compared or decided. ``metrics`` are those judged."""

    alpha: float = 0.01
    minimum_launches: int = MIN_LAUNCHES
    strict: bool = False
    metrics: tuple[str, ...] = COMPARED
    limit: tuple[Limit, ...] = ()
    waiver: tuple[Waiver, ...] = ()
    quarantine: Quarantine = Quarantine()
    expect: Expect = Expect()
    confirm: Confirm | None = None

    def minimum_effect(self, cell: str, metric: str) -> float | None:
        """The smallest change that counts, where the policy says so."""
        return self._limit(cell, metric, lambda limit: limit.minimum_effect)

    def maximum(self, cell: str, metric: str) -> float | None:
        return self._limit(cell, metric, lambda limit: limit.maximum)

    def minimum(self, cell: str, metric: str) -> float | None:
        return self._limit(cell, metric, lambda limit: limit.minimum)

    def floor_of_fp32(self, cell: str) -> float | None:
        """The share of FP32's accuracy that ``cell`` must keep, where the policy says so."""
        return self._limit(cell, _ACCURACY, lambda limit: limit.floor_of_fp32)

    def quarantined(self, cell: str) -> bool:
        return any(fits(cell, glob) for glob in self.quarantine.cells)

    def judged(self) -> tuple[str, ...]:
        """The metrics to compare: those listed, and those that a limit or waiver names."""
        limited = [limit.metric for limit in self.limit]
        return tuple(dict.fromkeys([*self.metrics, *limited, *(w.metric for w in self.waiver)]))

    def _limit(self, cell: str, metric: str, read: Callable[[Limit], float | None]) -> float | None:
        found: float | None = None
        for limit in self.limit:
            if limit.metric == metric and fits(cell, limit.cell):
                value = read(limit)
                found = found if value is None else value
        return found


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file. Raises `UsageError` that names the key and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"policy {str(path)!r} cannot be read: {why}", "give --policy") from error
    except ValueError as error:  # bytes that are no UTF-8, or a null character in the path
        raise UsageError(f"policy {str(path)!r} is no UTF-8 text", _SEE) from error
    try:
        return parse_policy(tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is no TOMLDecodeError
        raise UsageError(f"policy {str(path)!r} is no TOML: {error}", _SEE) from error
    except UsageError as error:
        raise UsageError(f"policy {str(path)!r}: {error.message}", error.remedy) from error


def parse_policy(raw: Mapping[str, Any]) -> Policy:
    """A validated policy from decoded TOML. Raises `UsageError`."""
    _refuse_unknown_keys(raw)
    try:
        policy = msgspec.convert(raw, Policy)
    except (msgspec.ValidationError, OverflowError) as error:
        told = f"{error}".replace("`", "")
        raise UsageError(f"{told}{_value_told(raw, told)}", _SEE) from error
    _check_numbers(policy)
    _check_metrics(policy)
    _check_confirm(policy.confirm)
    return policy


def _value_told(raw: object, told: str) -> str:
    """``, which is 'soon'``: what stands at the place that an error names, if it is no table."""
    _, found, place = told.rpartition(" - at $")
    value = raw if found else {}
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        if isinstance(value, dict):
            value = value.get(key, {})
        elif isinstance(value, list) and index:
            value = value[int(index)]
    return "" if isinstance(value, dict | list) else f", which is {value!r:.80}"


def check_globs(policy: Policy, cells: Iterable[str]) -> None:
    """Raises `UsageError` for the first glob of limits, waivers or quarantine that matches no cell.

    ``expect`` is left out: what it names and is not there is an alert of its own.
    """
    names = sorted(set(cells))
    for where, glob in _globs(policy):
        if not any(fits(name, glob) for name in names):
            raise UsageError(f"{where} = {glob!r} matches no cell", near(glob, names))


def near(text: str, names: Iterable[str]) -> str:
    """What ``text`` was perhaps meant to be."""
    names = list(names)
    found = nearest(text, names, 0.4) or next(iter(names), None)
    return f"the nearest is {found!r}" if found else ""


def _globs(policy: Policy) -> list[tuple[str, str]]:
    limits = [(f"limit[{i}].cell", one.cell) for i, one in enumerate(policy.limit)]
    waivers = [(f"waiver[{i}].cell", one.cell) for i, one in enumerate(policy.waiver)]
    cells = [("quarantine.cells", glob) for glob in policy.quarantine.cells]
    return [*limits, *waivers, *cells]


_TABLES: dict[str, type[msgspec.Struct]] = {
    "limit": Limit,
    "waiver": Waiver,
    "quarantine": Quarantine,
    "expect": Expect,
    "confirm": Confirm,
}


def _refuse_unknown_keys(raw: Mapping[str, Any]) -> None:
    _known(raw, Policy, "")
    for name, kind in _TABLES.items():
        tables = raw.get(name, ())
        for index, table in enumerate(tables if isinstance(tables, list) else [tables]):
            if isinstance(table, dict):
                place = f"{name}[{index}]." if isinstance(tables, list) else f"{name}."
                _known(table, kind, place)


def _known(table: Mapping[str, Any], kind: type[msgspec.Struct], place: str) -> None:
    for key in table:
        if key not in kind.__struct_fields__:
            known = kind.__struct_fields__
            likely = nearest(key, known)
            remedy = f"did you mean {likely}?" if likely else f"known are {', '.join(known)}"
            raise UsageError(f"unknown key {place}{key}", remedy)


def _check_numbers(policy: Policy) -> None:
    _within("alpha", policy.alpha, 1e-6, 0.2)
    _within("minimum_launches", policy.minimum_launches, 2, 1000)
    _within("quarantine.propose_above_cv", policy.quarantine.propose_above_cv, 0.0, 10.0)
    for index, one in enumerate(policy.limit):
        place = f"limit[{index}]."
        _within(f"{place}minimum_effect", one.minimum_effect, 0.0, 10.0)
        _within(f"{place}maximum", one.maximum, -math.inf, math.inf)
        _within(f"{place}minimum", one.minimum, -math.inf, math.inf)
        _within(f"{place}floor_of_fp32", one.floor_of_fp32, 0.0, 1.0)
        _check_limit(place, one)
    for index, waiver in enumerate(policy.waiver):
        _within(f"waiver[{index}].ceiling", waiver.ceiling, -math.inf, math.inf)
        for name in ("issue", "reason"):
            if not getattr(waiver, name).strip():
                raise UsageError(f"waiver[{index}].{name} is empty", "say who knows of it, and why")


def _check_limit(place: str, one: Limit) -> None:
    limits = (one.minimum_effect, one.maximum, one.minimum, one.floor_of_fp32)
    if all(value is None for value in limits):
        raise UsageError(f"{place.rstrip('.')} limits nothing", _SEE)
    if one.minimum is not None and one.maximum is not None and one.minimum > one.maximum:
        told = f"{one.minimum:g} is more than its maximum of {one.maximum:g}"
        raise UsageError(f"{place}minimum of {told}", "no value lies between them")
    if one.floor_of_fp32 is not None and one.metric != _ACCURACY:
        raise UsageError(f"{place}floor_of_fp32 is for {_ACCURACY} alone, not {one.metric}", _SEE)


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        bounds = f"from {low:g} to {high:g}" if math.isfinite(low) else "that is finite"
        raise UsageError(f"{name} is {value:g}", f"give a number {bounds}")


def _check_metrics(policy: Policy) -> None:
    named = [("metrics", name) for name in policy.metrics]
    named += [(f"limit[{i}].metric", one.metric) for i, one in enumerate(policy.limit)]
    named += [(f"waiver[{i}].metric", one.metric) for i, one in enumerate(policy.waiver)]
    for place, name in named:
        if name not in METRICS:
            likely = nearest(name, METRICS)
            remedy = f"did you mean {likely}?" if likely else f"one of {', '.join(METRICS)}"
            raise UsageError(f"{place} is {name!r}, which is no metric", remedy)
    if not policy.metrics:
        raise UsageError("metrics is empty, so nothing would be judged", _SEE)


def _check_confirm(confirm: Confirm | None) -> None:
    if confirm is None:
        return
    commands = (confirm.baseline_command, confirm.candidate_command)
    tables = [
        table
        for table in (confirm.environments, confirm.commits, confirm.artifacts)
        if table is not None
    ]
    whole = all(table == "recorded" or set(table) == _BOTH for table in tables)
    if not (whole and len(tables) + all(commands) == 1 and any(commands) == all(commands)):
        raise UsageError(
            "[confirm] needs either baseline_command and candidate_command, or one of "
            "environments, commits and artifacts, with baseline and candidate",
            _SEE,
        )
