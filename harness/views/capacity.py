"""A capacity for a person: the answer, and the curve that it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.views.terminal import render_table
from harness.views.text import number, plain, quantity

_HEADER = ("rate", "p50", "p99", "busy", "energy", "late", "")


def probe_line(found: Mapping[str, Any]) -> str:
    """``probe 3: 412.0 /s, pass; capacity about 420.1 /s``."""
    last = found["probes"][-1]
    verdicts = ", ".join(dict.fromkeys(one["verdict"] for one in last["held"]))
    about = number(found["capacity"]["per_s"])
    rate = number(last["rate_per_s"])
    return f"probe {len(found['probes'])}: {rate} /s, {verdicts}; capacity about {about} /s"


def render_capacity(found: Mapping[str, Any]) -> RenderableType:
    """The curve as a table, measured beside predicted; last, the answer in one sentence."""
    rows = [(one["rate_per_s"], _measured(one)) for one in found["probes"]]
    rows += [(one["rate_per_s"], _predicted(one)) for one in found["predicted"]]
    rows.sort(key=lambda row: row[0])
    return Group(render_table(_HEADER, [row for _, row in rows]), Text(""), Text(_answer(found)))


def _measured(one: Mapping[str, Any]) -> list[str]:
    held = one["held"]
    verdicts = ", ".join(f"{h['bound']} {h['verdict']}" for h in held)
    late = ", ".join(f"{h['late']:.2%}" for h in held)
    energy = _or_na(one["joules_per_request"], "J")
    return [f"{number(one['rate_per_s'])} /s", _or_na(one["p50_ms"], "ms"),
            _or_na(one["p99_ms"], "ms"), f"{one['utilization']:.1%}", energy, late,
            verdicts]  # fmt: skip


def _predicted(one: Mapping[str, Any]) -> list[str]:
    return [f"{number(one['rate_per_s'])} /s", quantity(one["p50_ms"], "ms"),
            quantity(one["p99_ms"], "ms"), f"{one['utilization']:.1%}", "", "",
            "predicted"]  # fmt: skip


def _or_na(value: Any, unit: str) -> str:
    return "n/a" if isinstance(value, Mapping) else quantity(value, unit)


def _answer(found: Mapping[str, Any]) -> str:
    answer = found["capacity"]
    interval = answer["ci95"]
    known = (
        f"no interval: {plain(interval['unavailable']['reason'])}"
        if isinstance(interval, Mapping)
        else f"{number(interval[0])} to {number(interval[1])}"
    )
    bounds = " and ".join(answer["bounds"])
    return (
        f"{number(answer['per_s'])} requests a second hold {bounds} ({known}); predicted "
        f"{number(answer['predicted_per_s'])}; limited by {plain(found['limit'])}; {found['ended']}"
    )
