"""A real third-party distribution, installed: what it brings works, what is broken says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Harness

from harness.maybe import Unavailable
from harness.protocols import Artifact, Quantization, TensorSpec
from harness.records.store import read_result
from harness.testing.contract_backend import BackendContract, Subject
from harness.testing.contract_profiler import Make, ProfilerContract
from harness.zoo.shipped import ASSETS

DISTRIBUTION = Path(__file__).parents[1] / "plugin_dist"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the distribution into."""
    source = tmp_path_factory.mktemp("plugin") / "source"  # setuptools builds in the source's place
    shutil.copytree(DISTRIBUTION, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = source.with_name("site")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "-t", str(target), str(source)],
        check=True,
        timeout=600,
    )
    return target


def test_list_shows_what_works_and_why_the_rest_does_not(harness: Harness, site: Path) -> None:
    listed = harness("list", "backends", "--json", path=[site])

    assert (listed.code, listed.err) == (0, "")
    found: dict[str, Any] = {backend["name"]: backend["devices"] for backend in listed.result}
    assert list(found)[-3:] == ["tally", "tally-broken", "tally-card"]  # after the built-ins
    assert found["tally"]["cpu"] == {"details": {"runs": "fp32", "version": "1.2.3"}}
    assert "cannot count on cuda:0" in found["tally"]["cuda:0"]["unavailable"]
    said = {backend["name"]: backend for backend in listed.result}
    (option,) = said["tally"]["options"]
    assert (option["name"], option["default"]) == ("times", "1")
    assert said["tally-card"]["default_device"] == "cuda"
    broken = found["tally-broken"]["cpu"]
    assert "No module named 'libtally_that_nobody_has'" in broken["unavailable"]
    assert broken["remedy"]


def test_doctor_lists_the_profiler_and_its_channels(harness: Harness, site: Path) -> None:
    report = harness("doctor", "--json", path=[site])

    assert report.code == 0
    profilers = {profiler["name"]: profiler for profiler in report.result["profilers"]}
    assert profilers["tally"]["status"] == {"details": {}}
    names = [channel["name"] for channel in profilers["tally"]["channels"]]
    assert names == ["tally_threads", "tally_read_bytes"]


def test_run_measures_the_backend_and_samples_the_profiler(
    harness: Harness, tmp_path: Path, site: Path
) -> None:
    # long iterations: a counter's window needs two readings
    slow = ("--option", "times=1000", "--sample-rate", "50")
    ran = harness("run", "--backend", "tally", "--iterations", "50", *slow, "--json", path=[site])

    assert (ran.code, ran.err) == (0, "")
    (folder,) = (tmp_path / "results").iterdir()
    assert "-digits-tally-fp32-" in folder.name
    result = read_result(folder)
    assert result.timing.iterations == 50
    assert result.precision.operators == {"Sum": {"fp32": 1}}
    threads = result.profiles.channels["tally_threads"]
    read = result.profiles.channels["tally_read_bytes"]
    assert (threads.kind, threads.unit, threads.source) == ("gauge", "count", "/proc/PID/status")
    assert threads.min >= 1
    assert (read.kind, read.unit) == ("counter", "bytes")
    assert read.last >= read.first > 0


def test_a_backend_has_a_device_of_its_own_by_default(harness: Harness, site: Path) -> None:
    ran = harness("run", "--backend", "tally-card", path=[site])

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.endswith("tally cannot count on cuda:0; use --device cpu\n")


def test_a_backend_brings_a_format_made_of_symmetric_int8(
    harness: Harness, tmp_path: Path, site: Path
) -> None:
    chosen = ("--backend", "tally-card", "--device", "cpu", "--precision", "int8")
    ran = harness("run", *chosen, "--iterations", "5", "--json", path=[site])

    assert (ran.code, ran.err) == (0, "")
    (folder,) = (tmp_path / "results").iterdir()
    result = read_result(folder)
    assert result.timing.iterations == 5
    assert isinstance(result.precision.quantization, Quantization)
    assert result.precision.quantization.scheme.startswith("symmetric")
    assert result.precision.file_size_bytes > len(b"tally\n")
    assert result.software.versions["harness-tally"] == "1.2.3"
    assert not isinstance(result.precision.fidelity, Unavailable)  # held against fp32's own file


def test_a_backend_that_fails_to_load_is_one_line(
    harness: Harness, tmp_path: Path, site: Path
) -> None:
    ran = harness("run", "--backend", "tally-broken", path=[site])

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        "harness: backend 'tally-broken' cannot be used: it fails to load: ModuleNotFoundError: "
        "No module named 'libtally_that_nobody_has'; repair or uninstall the plug-in\n"
    )
    assert not (tmp_path / "results").exists()


def test_what_a_plugin_refuses_is_one_line(harness: Harness, site: Path) -> None:
    ran = harness("run", "--backend", "tally", "--option", "times=0", path=[site])

    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "harness: --option times is '0'; give a whole number from 1 to 1000\n"


@pytest.fixture
def imported(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in processes started from here."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.fspath(site))


@pytest.mark.usefixtures("imported")
class TestTallyBackend(BackendContract):
    @pytest.fixture
    def subject(self) -> Subject:
        from harness_tally.backend import TallyBackend

        path = ASSETS / "digits.onnx"
        artifact = Artifact(
            format="onnx",
            path=str(path),
            source="",
            precision="fp32",
            sha256="",
            size_bytes=path.stat().st_size,
            inputs=(TensorSpec("x", "float32", (2, 3)),),
        )
        ones = np.ones((2, 3), np.float32)
        return Subject(TallyBackend, artifact, {"x": ones}, {"x": 2 * ones}, "onnxruntime")


@pytest.mark.usefixtures("imported")
class TestTallyProfiler(ProfilerContract):
    files = ("proc/{pid}/status", "proc/{pid}/io")

    @pytest.fixture
    def make(self) -> Make:
        from harness_tally.profiler import TallyProfiler

        return TallyProfiler
