"""The compression engine's result file: read into a `Board`, and written from one.

    {"resnet18": {"fp32": {"accuracy": 0.91, "latency_mean_ms": 9.5, "energy_consumption_mw": 5200,
                           "evaluated_on": "cpu", ...},
                  "int8": {...},
                  "model_info": {"library", "category", "input_shape", "description"},
                  "benchmark_time_seconds": 12.5}}

Any precision may stand there. ``energy_consumption_mw`` is a power, in milliwatts: it stays one,
and joules per inference are derived from it. What is no figure is kept word for word, so that
`dump` writes what `load` has read; figures of our own go beside (``energy_per_inference_j``,
``latency_median_ms``, ``harness``).

The file is untrusted. Whatever it holds, `load` returns a `Board` or raises `DataError` saying what
is wrong and where.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.compression.fields import ENGINE_FIELDS, figures
from harness.compression.model import Board, Entry, Figure
from harness.compression.ratios import mixed_scales, with_ratios
from harness.errors import DataError
from harness.host.names import fact

_GREATEST_BYTES = 512 * 1024 * 1024
_FORMAT = re.compile(r"(?i)(?:fp|bf|tf|nf|float|bfloat|u?int|w|q|mxfp|nvfp)\d[A-Za-z0-9_.+-]{0,27}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}")
_REMEDY = "give the result file of the compression engine"
# ours, beside the format's own fields
_OWN_FIELDS = {"energy_per_inference_j": "energy_j", "throughput_per_s": "throughput_per_s"}
_TELLING = {"latency_mean_ms", "model_size_mb"}  # no other object of a model has these
_CONDITIONS = ("backend", "device", "batch_size", "scenario", "concurrency", "threads")
_STATUSES = ("complete", "degraded", "failed", "interrupted")
_MOST_FACTS, _MOST_NOTES = 40, 50
# ends the name of a figure
_UNIT = re.compile(r".+_(?:ns|us|ms|s|kb|mb|gb|bytes|mw|w|mj|j|pct|percent)")
_ASIDE = ("latency_median_ms",)  # of our own export


class Own(msgspec.Struct, kw_only=True):
    """What our own export says beside the format's fields, under ``harness``."""

    run: str
    status: str
    random_weights: bool = False
    units: dict[str, str] = {}
    intervals: dict[str, tuple[float, float]] = {}  # metric -> 95 % interval
    missing: dict[str, str] = {}
    info: dict[str, str] = {}


def load(path: str | Path) -> Board:
    """Every model of the file, with ratios and scores. Raises `DataError`."""
    path = Path(path)
    raw = _parse(_read(path), path)
    if not isinstance(raw, dict):
        raise DataError(f"{str(path)!r} holds no JSON object but a {_kind(raw)}", _REMEDY)
    if str(raw.get("schema", "")).startswith("harness.result/"):
        raise DataError(f"{str(path)!r} is a result of harness run", "harness show reads it")
    entries: list[Entry] = []
    extra: dict[str, dict[str, Any]] = {}
    beside: dict[str, Any] = {}
    for model, content in raw.items():
        found = _entries(path, model, content) if isinstance(content, dict) else []
        entries += found
        left = content
        if isinstance(content, dict):
            left = {key: value for key, value in content.items() if not _is_precision(key, value)}
            if left or not found:
                extra[model] = left
        else:
            beside[model] = content
        _refuse_non_finite(f"{str(path)!r}: {fact(model):.60}", left)
    dropped = _limited([*_left_out(raw, entries), *_not_shown(entries)])
    if not entries:
        named = "; ".join(_limited(dropped, 3))
        why = f" ({named})" if extra and named else ""
        raise DataError(f"{str(path)!r} holds no model with a precision such as fp32{why}", _REMEDY)
    board = Board(
        entries=with_ratios(entries),
        notes=(*_notes(entries), *dropped),
        extra=extra,
        file_extra=beside,
    )
    return _checked(board, path)


def dump(board: Board) -> bytes:
    """The file of ``board``, as indented JSON."""
    names = unique_names(board.entries)
    whole: dict[str, Any] = {**board.file_extra}
    for entry, name in zip(board.entries, names, strict=True):
        whole.setdefault(name, {})[entry.precision] = _fields(entry)
    for model, left in board.extra.items():
        whole.setdefault(model, {}).update(left)
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _fields(entry: Entry) -> dict[str, Any]:
    """One precision of one model: the format's fields, what was read beside them, ours."""
    fields = {
        name: entry.figures[metric].value
        for name, metric in (ENGINE_FIELDS | _OWN_FIELDS).items()
        if metric in entry.figures and metric not in entry.derived
    }
    return fields | entry.extra


def unique_names(entries: Sequence[Entry]) -> list[str]:
    """A model's name for each entry, no name twice at one precision.

    Where the model's own name is not enough, its conditions follow, and then a number.
    """
    for keys in ((), _CONDITIONS):
        names = _named(entries, keys)
        if len(set(zip(names, (e.precision for e in entries), strict=True))) == len(entries):
            return names
    seen: Counter[tuple[str, str]] = Counter()
    numbered: list[str] = []
    for entry, name in zip(entries, names, strict=True):
        seen[name, entry.precision] += 1
        count = seen[name, entry.precision]
        numbered.append(name if count == 1 else f"{name} #{count}")
    return numbered


def _named(entries: Sequence[Entry], keys: Sequence[str]) -> list[str]:
    """Each model's name, with those of ``keys`` in which the entries of the model differ."""
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        for key in keys:
            seen[entry.model, key].add(entry.info.get(key, ""))
    return [
        " ".join([e.model, *(_condition(key, e.info[key]) for key in keys
                             if key in e.info and len(seen[e.model, key]) > 1)])
        for e in entries
    ]  # fmt: skip


def _condition(key: str, value: str) -> str:
    return f"{key.replace('_', ' ')} {value}" if value.isdecimal() else value


def _read(path: Path) -> bytes:
    """The whole file, if it is one. Raises `DataError`."""
    try:
        # without waiting, since opening a pipe would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"{str(path)!r} is no regular file", _REMEDY)
            if facts.st_size > _GREATEST_BYTES:
                size = f"{facts.st_size / 1e6:.0f} MB"
                raise DataError(f"{str(path)!r} has {size}, too much to read", "split it by model")
            return file.read(_GREATEST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{str(path)!r} cannot be read: {why}", _REMEDY) from error


def _parse(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except RecursionError as error:
        raise DataError(f"{str(path)!r} is nested too deeply", _REMEDY) from error
    except ValueError as error:  # of which JSONDecodeError and UnicodeDecodeError are two
        why = str(error).partition(";")[0]  # what follows is advice to programmers
        raise DataError(f"{str(path)!r} is no JSON, or cut short: {why:.200}", _REMEDY) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {fact(twice)!r:.60} stands there twice")
    return found


def _is_precision(name: str, value: Any) -> bool:
    """By its name, or by holding what a precision holds. A null is a precision not measured."""
    if name == "model_info" or value is None:
        return False
    named = _FORMAT.fullmatch(name) is not None
    return named or (isinstance(value, dict) and not _TELLING.isdisjoint(value))


def _entries(path: Path, model: str, content: Mapping[str, Any]) -> list[Entry]:
    shared = _facts({**_object(content.get("model_info")), "source": path.name})
    shared |= _facts({k: v for k, v in content.items() if not isinstance(v, dict)})
    found = [
        _entry(model, precision, fields, path, shared)
        for precision, fields in content.items()
        if _is_precision(precision, fields)
    ]
    reference = _reference([entry.precision for entry in found])
    return [
        entry if entry.precision == reference
        else msgspec.structs.replace(entry, reference=reference)
        for entry in found
    ]  # fmt: skip


def _reference(precisions: Sequence[str]) -> str | None:
    """What the others are compared with: fp32 unless told; where there is none, the widest."""
    if not precisions or any(precision.lower() == "fp32" for precision in precisions):
        return None
    return max(precisions, key=_bits)  # the first of several


def _bits(precision: str) -> int:
    """The first number in the name: 16 of bf16, 8 of w8a8. A name without one has the fewest."""
    digits = re.search(r"\d{1,3}", precision)
    return int(digits[0]) if digits else 0


def _entry(model: str, precision: str, fields: Any, path: Path, shared: dict[str, str]) -> Entry:
    where = f"{str(path)!r}: {fact(model):.60}, {fact(precision):.40}"
    if not _NAME.fullmatch(precision):
        raise DataError(f"{where} is no name of a precision", "use a short one such as int8")
    if not isinstance(fields, dict):
        raise DataError(f"{where} is a {_kind(fields)}", "give an object of figures")
    found, missing, extra = figures(where, fields, ENGINE_FIELDS | _OWN_FIELDS)
    failed = error_of(fields)
    if failed:  # which is why, and not that nobody gave them
        missing = {metric: failed if why == "not given" else why for metric, why in missing.items()}
    _refuse_non_finite(where, extra)
    info = {"latency_statistic": "mean", **shared, **_facts(extra)}
    entry = Entry(
        model=model, precision=precision, run=path.name, status="failed" if failed else "imported",
        figures=found, missing=missing, info=info, extra=extra,
    )  # fmt: skip
    return _ours(entry)


def _ours(entry: Entry) -> Entry:
    """What `from_results.export` said of a run of ours comes back, where it is sound."""
    try:
        own = msgspec.convert(entry.extra.get("harness"), Own)
    except msgspec.ValidationError:
        return entry
    bounds = {k: v for k, v in own.intervals.items() if k in entry.figures and _sound(v)}
    figures = {
        name: Figure(figure.value, *bounds.get(name, (None, None)))
        for name, figure in entry.figures.items()
    }
    missing = {k: why for k, why in own.missing.items() if k not in figures}
    return msgspec.structs.replace(
        entry,
        run=own.run,
        status=own.status if own.status in _STATUSES else entry.status,
        random_weights=own.random_weights,
        figures=figures,
        missing=entry.missing | missing,
        info=entry.info | own.info,
    )


def _sound(interval: tuple[float, float]) -> bool:
    return -math.inf < interval[0] <= interval[1] < math.inf


def _facts(values: Mapping[str, Any]) -> dict[str, str]:
    """The scalars and shapes among ``values``, as short texts."""
    short = {
        name: value
        for name, value in values.items()
        if isinstance(value, str | int | float) or (isinstance(value, list) and len(value) <= 8)
    }
    return {fact(name)[:60]: fact(value) for name, value in list(short.items())[:_MOST_FACTS]}


def _refuse_non_finite(where: str, value: Any) -> None:
    """Raises `DataError`: JSON has no NaN, so it could not be written again."""
    todo: list[tuple[str, Any]] = [(where, value)]
    while todo:
        at, item = todo.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise DataError(f"{at} is {item}", "give a finite number, or leave it out")
        if isinstance(item, dict):
            todo += [(f"{at}: {fact(key):.40}", inner) for key, inner in item.items()]
        elif isinstance(item, list):
            todo += [(at, inner) for inner in item if isinstance(inner, float | dict | list)]


def _checked(board: Board, path: Path) -> Board:
    """The board, if it can be written again. Raises `DataError`."""
    try:
        msgspec.json.encode(board)
    except (UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise DataError(
            f"{str(path)!r} holds what is no text or number: {error}", _REMEDY
        ) from error
    return board


def _notes(entries: Sequence[Entry]) -> tuple[str, ...]:
    """What not to believe at sight."""
    models: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        models[entry.model].append(entry)
    return _limited([note for found in models.values() for note in _doubts(found)])


def _limited(notes: Sequence[str], most: int = _MOST_NOTES) -> tuple[str, ...]:
    more = len(notes) - most
    return tuple(notes if more <= 0 else [*notes[:most], f"and {more} more"])


def _left_out(raw: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    """Every model and precision that there is no entry of, and why."""
    models = {entry.model for entry in entries}
    for model, content in raw.items():
        name = fact(model)[:60]
        if not isinstance(content, dict):
            yield f"{name} is left out: it is a {_kind(content)}, and no model"
        elif model not in models:
            why = error_of(content) or "it has no precision such as fp32"
            yield f"{name} is left out: {why}"
        else:
            if told := error_of(content):
                yield f"{name}: {told}"
            yield from (
                f"{name}, {fact(key)[:40]} is left out: {why}"
                for key, value in content.items()
                if (why := _no_entry(key, value))
            )


def _no_entry(key: str, value: Any) -> str:
    """Why a part of a model is no precision; empty for one that is, and for what tells of it."""
    if value is None:
        return "it is null" if _FORMAT.fullmatch(key) else ""
    if key == "model_info" or not isinstance(value, dict) or _is_precision(key, value):
        return ""
    return error_of(value) or "it has neither the name nor the figures of a precision"


def error_of(content: Mapping[str, Any]) -> str:
    """What went wrong with a model or a precision, where the file says so."""
    told = content.get("error")
    if told and not isinstance(told, str):
        told = msgspec.json.encode(told).decode()
    return f"error: {fact(told)[:300]}" if told and told.strip() else ""


def _not_shown(entries: Sequence[Entry]) -> Iterator[str]:
    """Figures under names that the board does not know."""
    names = dict.fromkeys(
        fact(name)[:60]
        for entry in entries
        for name, value in entry.extra.items()
        if type(value) in (int, float) and _UNIT.fullmatch(name) and name not in _ASIDE
    )
    names = dict.fromkeys(name for name in names if name not in ENGINE_FIELDS | _OWN_FIELDS)
    if names:
        shown = ", ".join([*names][:_MOST_FACTS])
        yield f"kept, and not shown, for the board has no such figure: {shown}"


def _doubts(entries: Sequence[Entry]) -> Iterator[str]:
    name = fact(entries[0].model)[:60]
    places = {e.precision: e.info["evaluated_on"] for e in entries if "evaluated_on" in e.info}
    if len(set(places.values())) > 1:
        listed = ", ".join(f"{precision} on {place}" for precision, place in places.items())
        yield f"{name}: evaluated in different places ({listed}), so its costs hardly compare"
    shares = [e.figures["accuracy"].value for e in entries if "accuracy" in e.figures]
    if mixed_scales(shares):
        low, high = min(shares), max(shares)
        yield f"{name}: accuracies of {low:g} and {high:g}; is one a share and one a percentage?"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return kinds.get(type(value), "number")
