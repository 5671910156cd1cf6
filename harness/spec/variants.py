"""``--across FIELD=A,B[,C...]``: one run's flags as those of several variants of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from harness.errors import UsageError
from harness.spec.fields import BY_NAME, DEFINING, FIELDS, Field
from harness.spec.spec import RunSpec, parse

# Both sides of a round are as warm as each other, and there are many launches.
WARMUP = "0.1"
PYTHON = "python"  # no field of a run: the interpreters of other environments
OF_A_LOAD = ("scenario", "rate", "arrivals", "latency_bound", "batching", "concurrency")
_SINGULAR = {"option": "options", "input_shape": "input_shapes"}


class Variants(NamedTuple):
    """``field``: what they differ in, empty where in nothing; the first is the reference."""

    field: str
    names: tuple[str, ...]
    specs: tuple[RunSpec, ...]


def variants(values: Mapping[str, Any], across: str) -> Variants:
    """``values`` as `parse` takes them, once for each value that ``across`` names.

    Raises `UsageError`.
    """
    if across.partition("=")[0].strip() == PYTHON:
        texts = _values(across, "python=/old/bin/python,/new/bin/python")
        return Variants(PYTHON, tuple(texts), (parse(_brief(values)),) * len(texts))
    field, texts = _parsed(across)
    if values.get(field.name) and not field.many:
        raise UsageError(
            f"{field.flag} {values[field.name]} beside --across {across}", f"leave out {field.flag}"
        )
    specs = [parse(_with(_brief(values), field, text)) for text in texts]
    named = [getattr(spec, field.name) for spec in specs]
    for index, value in enumerate(named):
        if value in named[:index]:
            raise UsageError(
                f"--across is {across!r}: {texts[index]!r} comes twice",
                "give different values, or --against-itself",
            )
    return Variants(field.name, tuple(texts), tuple(specs))


def twins(values: Mapping[str, Any]) -> Variants:
    """One variant and its twin: what can be resolved here, and whether anything is wrong."""
    spec = parse(_brief(values))
    return Variants("", ("itself", "its twin"), (spec, spec))


def named(told: str, common: Mapping[str, Any]) -> Variants:
    """Variants as a sweep names them: JSON, ``[[name, {field: text}], ...]``, over ``common``.

    Raises `UsageError`.
    """
    try:
        given = msgspec.json.decode(told, type=list[tuple[str, dict[str, Any]]])
    except msgspec.MsgspecError as error:
        raise UsageError(f"--variants is {told!r:.80}: {error}", "use --across") from error
    specs = tuple(parse({**_brief(fields), **common}) for _, fields in given)
    return Variants("", tuple(name for name, _ in given), specs)


def _brief(values: Mapping[str, Any]) -> dict[str, Any]:
    """With the warm-up of a duel, where none was asked for."""
    warmup = values.get("warmup_s")
    return {**values, "warmup_s": WARMUP if warmup is None else warmup}


def _parsed(across: str) -> tuple[Field, list[str]]:
    name = across.partition("=")[0]
    name = name.strip().lstrip("-").replace("-", "_")
    field = BY_NAME.get(_SINGULAR.get(name, name))
    if field is not None and field.name in OF_A_LOAD:
        raise UsageError(
            f"--across is {across!r}, and in a duel one inference at a time runs",
            "harness compare two runs",
        )
    if field is None or field not in DEFINING:
        choices = ", ".join([*(n.name for n in DEFINING if n.name not in OF_A_LOAD), PYTHON])
        raise UsageError(f"--across is {across!r}", f"name one of {choices}")
    return field, _values(across, "precision=fp32,int8")


def _values(across: str, example: str) -> list[str]:
    texts = [text.strip() for text in across.partition("=")[2].split(",")]
    if len(texts) < 2 or not all(texts):
        raise UsageError(f"--across is {across!r}", f"give two values or more, such as {example}")
    if len(set(texts)) < len(texts) and example.startswith(PYTHON):
        raise UsageError(f"--across is {across!r}", "name each once, or give --against-itself")
    return texts


def _with(values: Mapping[str, Any], field: Field, text: str) -> dict[str, Any]:
    if field.many:
        return {**values, field.name: [*(values.get(field.name) or ()), text]}
    found = {**values, field.name: text}
    if field.name == "precision" and text != "int8":  # calibration is of use to the others alone
        found = {name: value for name, value in found.items() if name not in _QUANTIZING}
    return found


_QUANTIZING = frozenset(field.name for field in FIELDS if field.quantizing)
