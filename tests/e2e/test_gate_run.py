"""The gate for real: a backend that burns 10 % more time per inference is swapped in, and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from running import Harness, Ran

pytestmark = pytest.mark.measures

CELL = "digits/spinner:Spinner/cpu/fp32/b1/latency"
# Spins on the clock: the median is exact unless most inferences are interrupted, and each is far
# shorter than a time slice.
_SPINNER = """
import time

from harness.testing.fake_backend import FakeBackend

SPIN_NS = {spin_ns}


class Spinner(FakeBackend):
    name = "spinner"

    def artifact_format(self, precision, options):
        return "onnx"

    def prepare(self, artifact, inputs, options):
        session = super().prepare(artifact, inputs, options)
        enqueue, clock = session.enqueue, time.perf_counter_ns

        def spin():
            end = clock() + SPIN_NS
            enqueue()
            while clock() < end:
                pass

        session.enqueue = spin
        return session
"""
Measure = Callable[..., Ran]


@pytest.fixture
def measure(harness: Harness, tmp_path: Path) -> Measure:
    """``measure(out, spin_ns)``: the same command each time, on another build of the backend."""
    (tmp_path / "harness-policy.toml").write_text('metrics = ["latency_median"]\n')

    def call(out: str, spin_ns: int, launches: int = 5) -> Ran:
        build = tmp_path / f"build-{spin_ns}"
        build.mkdir(exist_ok=True)
        (build / "spinner.py").write_text(_SPINNER.format(spin_ns=spin_ns))
        fixed = ("--iterations", "300", "--warmup", "0.1", "--sample-rate", "0", "--quiet")
        ran = harness(
            "run", "--backend", "spinner:Spinner", "--launches", str(launches), *fixed,
            "--no-tensorboard", "--out", out, path=[build],
        )  # fmt: skip
        assert (ran.code, ran.out) == (0, ""), ran.err
        _as_if_the_machine_kept_its_speed(tmp_path / out)
        return ran

    return call


def _as_if_the_machine_kept_its_speed(folder: Path) -> None:
    """The backend's latency goes by the clock; what else the machine does must not be in doubt."""
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_bytes())
        for launch in result["timing"]["launches"]:
            launch["yardstick_ms"] = [1.0, 1.0]
        path.write_text(json.dumps(result))


def test_the_gate_goes_red_for_ten_percent_and_green_without(
    harness: Harness, measure: Measure, tmp_path: Path
) -> None:
    measure("lastnight", 300_000)
    measure("slower", 330_000)
    measure("repaired", 300_000)
    measure("hasty", 330_000, launches=2)

    red = harness("check", "slower", "--baseline", "lastnight", "--report-dir", "gate")
    assert (red.code, red.err) == (1, "")
    flat = " ".join(red.out.split())
    assert f"{CELL}: latency_median regressed: worse by " in flat
    assert "gate: regression (exit code 1)" in flat
    report = json.loads((tmp_path / "gate" / "report.json").read_bytes())
    row = report["comparison"]["cells"][0]["rows"][0]
    assert row["ratio"] == pytest.approx(1.10, abs=0.02)
    assert row["launches"] == [5, 5]
    suite = ET.parse(tmp_path / "gate" / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    assert CELL in (tmp_path / "gate" / "summary.md").read_text()

    green = harness("check", "repaired", "--baseline", "lastnight")
    assert (green.code, green.err) == (0, ""), green.out
    assert "1 unchanged" in green.out and "gate: pass (exit code 0)" in green.out

    hasty = harness("check", "hasty", "--baseline", "lastnight")
    assert hasty.code == 0
    assert "inconclusive: 5 and 2 launches; 5 a side are needed" in " ".join(hasty.out.split())
    strict = harness("check", "hasty", "--baseline", "lastnight", "--strict")
    assert strict.code == 5
