"""A capacity for a person: the answer, and the curve around it.

``predicted`` is the p99 by the closed loop's service times alone: beside a measured one for the
very schedule that was met, in a row of its own for a lasting load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.views.terminal import render_table
from harness.views.text import number, plain, quantity

_HEADER = ("rate", "busy", "p50", "p99", "predicted", "energy", "net", "late", "")
_ENERGY = slice(5, 7)


def run_line(found: Mapping[str, Any]) -> str:
    """Of the newest server run: ``probe 3: 412.0 /s, pass; capacity about 420.1 /s``."""
    if found["curve"]:
        last = found["curve"][-1]
        p99, predicted = (_or_na(last[name], "ms") for name in ("p99_ms", "predicted_p99_ms"))
        rate = number(last["rate_per_s"])
        return f"curve {len(found['curve'])}: {rate} /s, p99 {p99} (predicted {predicted})"
    last = found["probes"][-1]
    verdicts = ", ".join(dict.fromkeys(one["verdict"] for one in last["held"]))
    about = number(found["capacity"]["per_s"])
    rate = number(last["rate_per_s"])
    return f"probe {len(found['probes'])}: {rate} /s, {verdicts}; capacity about {about} /s"


def render_capacity(found: Mapping[str, Any]) -> RenderableType:
    """The curve as a table, measured beside predicted; last, the answer in one sentence."""
    measured = [*found["probes"], *found["curve"]]
    rows = [(one["rate_per_s"], _measured(one)) for one in measured]
    rows += [(one["rate_per_s"], _predicted(one)) for one in found["predicted"]]
    rows.sort(key=lambda row: row[0])
    header, body = list(_HEADER), [row for _, row in rows]
    absent = [one["joules_per_request"] for one in measured]
    without = all(isinstance(one, Mapping) for one in absent)
    if without:  # not one has any
        for row in (header, *body):
            del row[_ENERGY]
    why = [Text(f"energy: {plain(absent[0]['unavailable'])}")] if absent and without else []
    return Group(render_table(header, body), Text(""), *why, Text(_answer(found)))


def _measured(one: Mapping[str, Any]) -> list[str]:
    held = one["held"]
    verdicts = ", ".join(f"{h['bound']} {h['verdict']}" for h in held)
    late = ", ".join(f"{h['late']:.2%}" for h in held)
    times = [_or_na(one[name], "ms") for name in ("p50_ms", "p99_ms", "predicted_p99_ms")]
    energy = [_or_na(one[name], "J") for name in ("joules_per_request", "net_joules_per_request")]
    return [f"{number(one['rate_per_s'])} /s", f"{one['utilization']:.1%}", *times, *energy, late,
            verdicts]  # fmt: skip


def _predicted(one: Mapping[str, Any]) -> list[str]:
    return [f"{number(one['rate_per_s'])} /s", f"{one['utilization']:.1%}",
            quantity(one["p50_ms"], "ms"), "", quantity(one["p99_ms"], "ms"), "", "", "",
            "predicted"]  # fmt: skip


def _or_na(value: Any, unit: str) -> str:
    return "n/a" if isinstance(value, Mapping) else quantity(value, unit)


def _answer(found: Mapping[str, Any]) -> str:
    answer = found["capacity"]
    interval = answer["ci95"]
    known = (
        f"no interval: {plain(interval['unavailable'])}"
        if isinstance(interval, Mapping)
        else f"{number(interval[0])} to {number(interval[1])}"
    )
    bounds = " and ".join(answer["bounds"])
    return (
        f"{number(answer['per_s'])} requests a second hold {bounds} ({known}); predicted "
        f"{number(answer['predicted_per_s'])}; limited by {plain(found['limit'])}; {found['ended']}"
    )
