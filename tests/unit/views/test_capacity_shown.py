"""A capacity as a table, and as scalars over the rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_tensorboard_sink import read

from harness.maybe import Maybe, Unavailable
from harness.records.capacity import CapacityFound, Held, Measured, Monotone, Predicted
from harness.records.result import Capacity
from harness.spec import parse
from harness.tensorboard.capacity import write_curve
from harness.views.capacity import render_capacity, run_line
from harness.views.terminal import to_text

NO_METER = Unavailable("no meter", "measure on bare metal")


def server_run(rate: float, p99_ms: float, joules: Maybe[float], net: Maybe[float]) -> Measured:
    bound = Held(bound="p99=10ms", late=0.002, quantile_ms=p99_ms, effective=500, verdict="pass")
    return Measured(
        run="a", rate_per_s=rate, p50_ms=2.0, p99_ms=p99_ms, utilization=rate / 400,
        joules_per_request=joules, net_joules_per_request=net, lateness_ms=0.02, stationary=True,
        held=(bound,), predicted_p99_ms=p99_ms - 0.5,
    )  # fmt: skip


def found(joules: Maybe[float], net: Maybe[float]) -> dict[str, Any]:
    whole = CapacityFound(
        id="c", ended="known", spec=parse({"scenario": "server", "rate": "1"}),
        capacity=Capacity(per_s=300.0, ci95=(290.0, 312.0), bounds=("p99=10ms",),
                          limited_by="p99=10ms", predicted_per_s=310.0, probes=1),
        limit="p99=10ms", scale=0.97, saturation_per_s=400.0,
        probes=(server_run(300.0, 9.5, joules, net),),
        curve=(server_run(150.0, 4.5, joules, net),),
        predicted=(Predicted(rate_per_s=90.0, p50_ms=2.0, p99_ms=3.0, utilization=0.225),),
        monotone=(Monotone(bound="p99=10ms", rate_per_s=(300.0,), late=(0.002,)),),
    )  # fmt: skip
    rows: dict[str, Any] = msgspec.to_builtins(whole)
    return rows


def test_measured_stands_beside_predicted_by_rate() -> None:
    lines = to_text(render_capacity(found(0.5, 0.2)), 120).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["90.00", "150.0", "300.0"]
    assert lines[1].split()[-1] == "predicted"
    cells = "150.0 /s 37.5% 2.000 ms 4.500 ms 4.000 ms 500.0 mJ 200.0 mJ 0.20% p99=10ms pass"
    assert lines[2].split() == cells.split()
    assert lines[-1].startswith("300.0 requests a second hold p99=10ms (290.0 to 312.0)")


def test_without_a_meter_there_is_no_column_of_energy_but_the_reason() -> None:
    text = to_text(render_capacity(found(NO_METER, NO_METER)), 120)
    assert "net" not in text.splitlines()[0] and "energy: no meter" in text


def test_each_run_is_a_line() -> None:
    rows = found(0.5, 0.2)
    assert run_line(rows) == "curve 1: 150.0 /s, p99 4.500 ms (predicted 4.000 ms)"
    rows["curve"] = []
    assert run_line(rows) == "probe 1: 300.0 /s, pass; capacity about 300.0 /s"


def test_scalars_have_the_rate_as_their_step(tmp_path: Path) -> None:
    write_curve(tmp_path, found(0.5, NO_METER))
    events = read(tmp_path)
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)]
               for tag in events.Tags()["scalars"]}  # fmt: skip
    assert scalars["capacity/p99_ms"] == [(150, 4.5), (300, 9.5)]
    assert scalars["capacity/joules_per_request"] == [(150, 0.5), (300, 0.5)]
    assert scalars["capacity/predicted_p99_ms"] == [(90, pytest.approx(3.0))]
    assert "capacity/net_joules_per_request" not in scalars
