"""Metrics from outside, by the names that people and files give them, checked one by one.

A figure that is no measurement (NaN, infinite, a negative latency, a text) is refused by name; one
that is not given is left out and listed with its reason. Nothing is guessed and nothing is 0.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from harness.compression.model import METRICS, NEVER_ZERO, Figure
from harness.errors import DataError

# the names in the compression engine's files -> the board's
ENGINE_FIELDS: dict[str, str] = {
    "accuracy": "accuracy",
    "f1_score": "f1_score",
    "precision": "precision",
    "recall": "recall",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "loss": "loss",
    "latency_mean_ms": "latency_ms",
    "latency_std_ms": "latency_std_ms",
    "model_size_mb": "model_size_mb",
    "memory_usage_mb": "memory_mb",
    "gpu_memory_usage_mb": "gpu_memory_mb",
    "energy_consumption_mw": "power_mw",
}
# and every other name that is understood: the board's own
FIELDS: dict[str, str] = ENGINE_FIELDS | {name: name for name in METRICS}
SHARES = ("accuracy", "f1_score", "precision", "recall", "sensitivity", "specificity")
_GREATEST = 1e30  # TensorBoard keeps 32 bits, and no unit here makes sense of more


def figures(
    where: str, values: Mapping[str, Any], fields: Mapping[str, str] = FIELDS
) -> tuple[dict[str, Figure], dict[str, str], dict[str, Any]]:
    """metric -> `Figure`; metric -> why it is missing; and the values that are no metric's.

    ``fields`` maps the names that are understood. A value of None is missing, and so is a 0 that no
    measurement gives (`NEVER_ZERO`). Raises `DataError` naming ``where``, the field and the value.
    """
    found: dict[str, Figure] = {}
    others: dict[str, Any] = {}
    for name, value in values.items():
        metric = fields.get(name)
        if metric is None or value is None:
            others[name] = value
        elif metric in found:
            raise DataError(f"{where}: {metric} is given twice", "give it under one name")
        elif (number := checked(f"{where}: {name}", metric, value)) == 0 and metric in NEVER_ZERO:
            others[name] = value
        else:
            found[metric] = Figure(number)
    return found, _missing(found, others, fields), others


def finite(where: str, value: Any) -> float:
    """``value`` as a float. Raises `DataError` naming ``where`` and the value."""
    number = _number(value)
    if number is None:
        raise DataError(f"{where} is {value!r:.60}", "give a number")
    if not abs(number) <= _GREATEST:
        raise DataError(f"{where} is {number}", "give a finite number, or leave it out")
    return number


def checked(where: str, metric: str, value: Any) -> float:
    """``value`` as a float that ``metric`` can have. Raises `DataError`."""
    number = finite(where, value)
    if number < 0 and metric != "loss":
        raise DataError(f"{where} is {number:g}", "give a number that is not negative")
    if number > 100 and metric in SHARES:
        raise DataError(f"{where} is {number:g}", "give a share of 1, or a percentage")
    return number


def _number(value: Any) -> float | None:
    """Python's numbers, NumPy's, and one-element tensors; no bool and no text."""
    if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError):  # of several elements
            return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _missing(
    found: Mapping[str, Figure], others: Mapping[str, Any], fields: Mapping[str, str]
) -> dict[str, str]:
    given = {fields[n]: _why(fields[n], value) for n, value in others.items() if n in fields}
    known = found.keys() | ({"power_mw"} if "energy_j" in found else set())
    missing = {
        metric: given.get(metric, "not given")
        for metric in ENGINE_FIELDS.values()
        if metric not in known
    }
    if "power_mw" in missing:  # energy is what a reader misses, whichever form it comes in
        why = missing.pop("power_mw")
        missing["energy_j"] = given.get("energy_j", why)
    return missing


def _why(metric: str, value: Any) -> str:
    return "given as null" if value is None else f"given as 0 {METRICS[metric].unit}: not measured"
