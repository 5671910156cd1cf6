"""The plug-in as a user has it: real pytest, in a folder of its own, with real runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Ran, assert_no_orphans, environment

ROOT = Path(__file__).parents[2]
DIGITS = "digits/onnxruntime/cpu/fp32/b1/latency::latency"
SHORT = "iterations=200, warmup_s=0, max_warmup_s=0, sample_rate_hz=0, idle_s=0"
MEASURE = f"""
def test_digits(hwbench):
    result = hwbench({SHORT})
    assert result.timing.iterations == 200

def test_other():
    pass
"""
# of pytest-benchmark's own measurements, which take a second each unless told otherwise
AT_ONCE = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=1")
Pytest = Callable[..., Ran]


@pytest.fixture
def run_pytest(tmp_path: Path, cache: Path) -> Pytest:
    """``run_pytest(source, *options)`` in ``tmp_path``."""

    def call(source: str, *options: str) -> Ran:
        (tmp_path / "test_it.py").write_text(source)
        (tmp_path / "pytest.ini").touch()
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"]
        ran = subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            env=environment(cache),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert_no_orphans(tmp_path)
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return call


@pytest.fixture
def export(tmp_path: Path, cache: Path) -> Callable[..., None]:
    def call(*words: str) -> None:
        command = [sys.executable, "-m", "harness", "export", "--format", "pytest-benchmark"]
        done = subprocess.run(
            [*command, *words],
            cwd=tmp_path,
            env=environment(cache),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return call


def outcomes(ran: Ran) -> dict[str, int]:
    """``{"passed": 2}``, from pytest's last line."""
    last = ran.out.strip().splitlines()[-1]
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", last.split(" in ")[0])}


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """A copy of the file, changed; its name."""
    document = json.loads(path.read_bytes())
    change(document)
    copy = path.with_name(f"changed-{path.name}")
    copy.write_text(json.dumps(document))
    return copy.name


def scaled(factor: float) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for one in document["benchmarks"]:
            one["stats"] |= {name: one["stats"][name] * factor for name in ("median", "min")}

    return change


# --- measuring ---


def test_pytest_benchmark_gets_what_was_measured(run_pytest: Pytest, tmp_path: Path) -> None:
    ran = run_pytest(MEASURE, "--benchmark-only", "--benchmark-json=now.json", "--hwbench-out=runs")
    assert ran.code == 0 and outcomes(ran) == {"passed": 1, "skipped": 1}
    assert "benchmark 'latency (s)': 1 tests" in ran.out and "accuracy top-1 99.81%" in ran.out
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_bytes())
    document = json.loads((tmp_path / "now.json").read_bytes())
    (one,) = document["benchmarks"]
    assert (one["name"], one["fullname"]) == ("test_digits", DIGITS)
    with np.load(folder / "samples.npz") as samples:
        timed = samples["timed"] == 1
        latencies = (samples["end_ns"] - samples["start_ns"])[timed] / 1e9
    assert one["stats"]["data"] == latencies.tolist()
    assert one["stats"]["median"] * 1e3 == pytest.approx(result["timing"]["latency_ms"]["median"])
    assert one["options"]["timer"] == "perf_counter_ns in the worker"
    extra = one["extra_info"]
    assert extra["results"] == [folder.name] and extra["fingerprint"] in folder_machines(document)
    assert extra["figures"]["top1"]["value"] == result["accuracy"]["top1"]
    assert folder_machines(document)[extra["fingerprint"]] == result["machine"]["factors"]


DUEL = """
def test_slower(hwbench):
    duel = hwbench.duel("option=latency_us=1000,latency_us=10000", backend="fakes:Fake",
                        launches=1, duration_s=0.1, max_warmup_s=0.2)
    assert 1 < duel.ratio and duel.interval[0] <= duel.ratio <= duel.interval[1]
    assert duel.verdict == "inconclusive" and duel.comparison.design == "paired rounds"
    assert [run.spec.options["latency_us"] for run in duel.results] == ["1000", "10000"]

def test_no_sense(hwbench):
    hwbench.duel("nonsense=1,2")
"""


def test_a_duel_is_asserted_on_and_has_a_row_a_variant(run_pytest: Pytest, tmp_path: Path) -> None:
    ran = run_pytest(DUEL, "--benchmark-json=now.json")
    assert outcomes(ran) == {"failed": 1, "passed": 1}, ran.out
    assert "--across is 'nonsense=1,2'" in ran.out
    assert re.search(
        r"latency_us=10000 takes \S+ of latency_us=1000's time, ± .*: inconclusive", ran.out
    )
    rows = json.loads((tmp_path / "now.json").read_bytes())["benchmarks"]
    assert [row["name"].partition("[")[2] for row in rows] == [
        "latency_us=1000]",
        "latency_us=10000]",
    ]
    assert len({row["fullname"] for row in rows}) == 2
    assert rows[0]["stats"]["median"] < rows[1]["stats"]["median"]
    assert rows[0]["extra_info"]["duel"] == "reference"
    assert rows[1]["extra_info"]["duel"]["ratio"] > 1


def folder_machines(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["machine_info"]["harness"]["machines"]
    return found


def test_an_export_is_a_baseline_that_a_slower_run_fails(
    run_pytest: Pytest, export: Callable[..., None], tmp_path: Path
) -> None:
    assert run_pytest(MEASURE).code == 0
    export("-o", "base.json", "latest")
    export("-o", ".benchmarks/", "latest")
    fast = edited(tmp_path / "base.json", scaled(0.1))
    ran = run_pytest(MEASURE, f"--benchmark-compare={fast}", "--benchmark-compare-fail=median:5%")
    assert ran.code == 1 and "Performance has regressed" in ran.out + ran.err
    assert "test_digits (NOW)" in ran.out and "test_digits (changed-base)" in ran.out
    assert "machine_info is different" not in ran.out + ran.err
    slow = edited(tmp_path / "base.json", scaled(10.0))
    ran = run_pytest(MEASURE, f"--benchmark-compare={slow}", "--benchmark-compare-fail=median:5%")
    assert ran.code == 0 and "test_digits (NOW)" in ran.out
    ran = run_pytest(MEASURE, "--benchmark-compare", "--benchmark-compare-fail=median:10000%")
    assert ran.code == 0 and "Comparing against benchmarks from: Linux-CPython" in ran.err
    assert "test_digits (NOW)" in ran.out and "test_digits (0001_" in ran.out


def test_other_hardware_is_refused_by_name(
    run_pytest: Pytest, export: Callable[..., None], tmp_path: Path
) -> None:
    assert run_pytest(MEASURE).code == 0
    export("-o", "base.json", "latest")

    def other_cpu(document: dict[str, Any]) -> None:
        for factors in folder_machines(document).values():
            factors["cpu"] = "Imaginary CPU"

    def other_gpu(document: dict[str, Any]) -> None:
        for factors in folder_machines(document).values():
            factors["gpu_name"] = "Imaginary GPU"

    file = edited(tmp_path / "base.json", other_cpu)
    ran = run_pytest(MEASURE, f"--benchmark-compare={file}")
    assert ran.code == 4 and "was measured on other hardware: cpu (Imaginary CPU there, " in ran.err
    assert len(list((tmp_path / "results").iterdir())) == 1  # nothing was measured for it
    file = edited(tmp_path / "base.json", other_gpu)
    ran = run_pytest(MEASURE, f"--benchmark-compare={file}")
    assert ran.code == 1 and outcomes(ran) == {"failed": 1, "passed": 1}
    assert "hardware: gpu_name (Imaginary GPU there, absent here)" in ran.out


def test_files_of_others_are_not_judged(run_pytest: Pytest, tmp_path: Path) -> None:
    source = "def test_plain(benchmark):\n    benchmark(sum, [1, 2])\n"
    assert run_pytest(source, *AT_ONCE, "--benchmark-json=plain.json").code == 0
    assert "harness" not in json.loads((tmp_path / "plain.json").read_bytes())["machine_info"]

    def other(document: dict[str, Any]) -> None:
        document["machine_info"]["node"] = "elsewhere"

    file = edited(tmp_path / "plain.json", other)
    ran = run_pytest(source, *AT_ONCE, f"--benchmark-compare={file}")
    assert ran.code == 0 and "machine_info is different" in ran.out + ran.err
    file = edited(tmp_path / "plain.json", lambda d: d["machine_info"].update(harness=1))
    ran = run_pytest(source, f"--benchmark-compare={file}")
    assert ran.code == 4 and "does not name its machines" in ran.err


def test_beside_other_tests_it_refuses_to_measure(run_pytest: Pytest, tmp_path: Path) -> None:
    ran = run_pytest(MEASURE, "-n2")
    assert ran.code == 1 and outcomes(ran) == {"failed": 1, "passed": 1}
    assert "hwbench does not measure while other tests run beside it" in ran.out
    assert "-n0" in ran.out and "During handling" not in ran.out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("options", [[], ["-n2"]], ids=["alone", "xdist"])
def test_switched_off_it_tries_that_the_run_works(
    run_pytest: Pytest, tmp_path: Path, options: list[str]
) -> None:
    source = MEASURE.replace("== 200", "== 10")
    ran = run_pytest(source, "--benchmark-disable", *options)
    assert ran.code == 0 and outcomes(ran) == {"passed": 2}, ran.out
    assert "latency (s)" not in ran.out and not (tmp_path / "results").exists()


def test_skipped_it_does_nothing(run_pytest: Pytest, tmp_path: Path) -> None:
    ran = run_pytest(MEASURE, "--benchmark-skip")
    assert ran.code == 0 and outcomes(ran) == {"passed": 1, "skipped": 1}
    assert not (tmp_path / "results").exists()


ODD = f"""
import pytest

def test_no_such_field(hwbench):
    hwbench(batchsize=2)

def test_no_such_backend(hwbench):
    hwbench(backend="nonesuch")

def test_not_here(hwbench):
    hwbench(device="cuda")

def test_run_fails(hwbench):
    hwbench(backend="fakes:Fake", options={{"fail": "raise", "fail_at": "5"}}, {SHORT})

def test_required(hwbench):
    hwbench(backend="fakes:Fake", power_source="none", require=["energy"], {SHORT})

@pytest.mark.benchmark(group="mine")
def test_twice(hwbench):
    hwbench(backend="fakes:Fake", {SHORT})
    hwbench(backend="fakes:Fake", {SHORT})

@pytest.mark.benchmark(group="mine")
def test_grouped(hwbench):
    hwbench(backend="fakes:Fake", options={{"latency_us": 100}}, {SHORT})
"""


def test_what_goes_wrong_is_one_message(run_pytest: Pytest, tmp_path: Path) -> None:
    ran = run_pytest(ODD, "-rs", "-W", "error", "--benchmark-json=now.json")
    assert ran.code == 1 and outcomes(ran) == {"failed": 5, "passed": 1, "skipped": 1}, ran.out
    for says in (
        "'batchsize' is no field of a run; see harness run --help",
        "unknown backend 'nonesuch'; choose one of",
        "onnxruntime on cuda:0: no NVIDIA",
        "the measurement failed: the worker raised RuntimeError: the fake backend was told to",
        "--require energy: sampling was switched off; give --sample-rate above 0",
        "hwbench was called twice in one test; parametrize the test",
    ):
        assert says in ran.out, says
    assert "Traceback" not in ran.out and "During handling" not in ran.out
    assert "not used at all" not in ran.out
    kept = json.loads((tmp_path / "now.json").read_bytes())["benchmarks"]
    assert [(one["name"], one["group"]) for one in kept] == [("test_grouped", "mine")]
    assert kept[0]["stats"]["min"] >= 100e-6


def test_without_pytest_benchmark_only_its_own_tests_fail(run_pytest: Pytest) -> None:
    ran = run_pytest(MEASURE, "-p", "no:benchmark", "-W", "error")
    assert ran.code == 1 and outcomes(ran) == {"passed": 1, "error": 1}
    assert "hwbench needs pytest-benchmark" in ran.out and "hw-harness[pytest]" in ran.out


def test_unused_it_costs_an_import_of_one_small_file(run_pytest: Pytest) -> None:
    source = """
import sys

def test_other(request):
    assert request.config.pluginmanager.hasplugin("hwbench")
    assert not {name for name in sys.modules if name.split(".")[0] == "harness"}
    assert not {"numpy", "torch", "msgspec", "click", "psutil"} & set(sys.modules)
"""
    ran = run_pytest(source)
    assert ran.code == 0 and outcomes(ran) == {"passed": 1}, ran.out


def test_a_package_of_the_project_called_harness_is_the_projects(
    run_pytest: Pytest, tmp_path: Path
) -> None:
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("def answer():\n    return 42\n")
    (tmp_path / "conftest.py").touch()
    source = """
import harness

def test_mine(benchmark):
    assert benchmark(harness.answer) == 42
"""
    ran = run_pytest(source, *AT_ONCE, "--benchmark-json=now.json")
    assert ran.code == 0 and outcomes(ran) == {"passed": 1}, ran.out + ran.err
    ran = run_pytest(source + "def test_ours(hwbench):\n    hwbench()\n")
    assert outcomes(ran).items() >= {"passed": 1, "error": 1}.items(), ran.out
    assert "hwbench cannot be used: a package of this project is called harness, too" in ran.out


def test_options_and_ini_file_speak_for_tests_that_say_nothing(run_pytest: Pytest) -> None:
    source = f"""
def test_told(hwbench):
    spec = hwbench({SHORT}).spec
    assert (spec.backend, spec.precision, spec.launches, spec.duration_s) == (
        "fakes:Fake", "int8", 2, None)

def test_own(hwbench):
    spec = hwbench(precision="fp32", launches=1, backend=None, {SHORT}).spec
    assert (spec.backend, spec.precision, spec.launches) == ("fakes:Fake", "fp32", 1)
"""
    ran = run_pytest(
        source,
        *("--hwbench-precision=int8", "--hwbench-duration=9", "--hwbench-out=elsewhere"),
        *("-o", "hwbench_backend=fakes:Fake", "-o", "hwbench_precision=bf16"),
        *("-o", "hwbench_launches=2"),
    )
    assert ran.code == 0 and outcomes(ran) == {"passed": 2}, ran.out


def test_the_benchmark_of_the_backends(tmp_path: Path, cache: Path) -> None:
    options = ("--benchmark-only", "--hwbench-duration=0.2", f"--hwbench-out={tmp_path / 'runs'}")
    chosen = "digits and not pytorch-int8"  # which takes ten seconds to quantize
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-k", chosen]
    ran = subprocess.run(
        [*command, "benchmarks/test_backends.py", *options],
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "benchmark 'digits (s)'" in ran.stdout
    for name in ("onnxruntime-fp32", "onnxruntime-int8", "pytorch-fp32"):
        assert f"test_backends[digits-{name}]" in ran.stdout
    assert len(list((tmp_path / "runs").iterdir())) >= 3
