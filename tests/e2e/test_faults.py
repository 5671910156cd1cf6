"""Whatever ends a worker or its driver: a result that says so, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from running import Harness, assert_no_orphans, helpers

from harness.records.samples import read_samples
from harness.records.store import read_result

FAKE = ("run", "--backend", "fakes:Fake", "--duration", "1", "--warmup", "0.1", "--out", "results")
AT = ("--option", "latency_us=2000", "--option", "fail_at=200")


def only_run(folder: Path) -> Path:
    (run,) = (folder / "results").glob("[0-9]*")  # beside an index, perhaps
    return run


@pytest.mark.parametrize(
    ("fail", "kind", "text"),
    [
        ("raise", "exception", "the worker raised"),
        ("segfault", "signal", "SIGSEGV"),
        ("kill", "signal", "SIGKILL"),
        ("exit", "exit", "exit code 7"),
    ],
)
def test_a_worker_that_dies_leaves_a_failed_result(
    harness: Harness, tmp_path: Path, fail: str, kind: str, text: str
) -> None:
    ran = harness(*FAKE, *AT, "--option", f"fail={fail}", "--json")

    assert ran.code == 3
    assert text in ran.err
    result = read_result(only_run(tmp_path))
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.kind == kind
    assert text in result.error.message
    assert result.error.phase in ("warming up", "in the timed window")
    names = sorted(path.name for path in only_run(tmp_path).iterdir())
    assert [name for name in names if "tmp" in name or "journal" in name] == []


def test_the_runtimes_own_error_survives_whole(harness: Harness, tmp_path: Path) -> None:
    numpy_helper, helper = onnx.numpy_helper, onnx.helper
    shape = numpy_helper.from_array(np.array([3], "int64"), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="a_long_name_" * 100)],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])],
        [shape],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "reshape.onnx")

    ran = harness("run", "--model", "reshape.onnx", "--out", "results")

    assert ran.code == 3
    result = read_result(only_run(tmp_path))
    assert result.error is not None
    # 1200 characters of a name, and only then what helps
    assert "a_long_name_" * 100 in result.error.message
    assert "requested shape:{3}" in result.error.message
    # the headline has both ends, the table above it the whole, and no row says "unknown"
    assert "requested shape:{3}" in ran.out.splitlines()[-1]
    assert "unknown" not in ran.out
    assert "requested shape:{3}" in ran.err and len(ran.err.splitlines()[-1]) < 700


def test_what_was_measured_before_a_crash_is_kept(harness: Harness, tmp_path: Path) -> None:
    ran = harness(
        *FAKE, "--option", "latency_us=2000", "--option", "fail=segfault",
        "--option", "fail_at=1500", "--max-warmup", "0.3", "--duration", "5", "--json",
    )  # fmt: skip

    result = ran.result
    assert result["status"] == "failed"
    timed = result["timing"]["iterations"]
    warm = result["timing"]["launches"][0]["warmup_iterations"]
    # iterations of a chunk are published together, and a chunk lasts about 5 ms
    assert 1490 <= timed + warm <= 1500
    samples = read_samples(only_run(tmp_path))
    assert int(samples.timed.sum()) == timed
    assert len(samples.timed) == timed + warm
    assert result["timing"]["latency_ms"]["median"] >= 2.0


def test_a_hanging_worker_is_given_up(harness: Harness, tmp_path: Path) -> None:
    ran = harness(*FAKE, *AT, "--option", "fail=hang", "--timeout", "1", "--json")

    assert ran.code == 3
    assert "no progress for 1 s while" in ran.err
    assert ran.result["error"]["kind"] == "timeout"


def test_a_load_that_is_given_up_may_just_be_slow(harness: Harness) -> None:
    ran = harness(*FAKE, "--option", "fail=hang", "--option", "fail_at=prepare", "--timeout", "1")

    assert ran.code == 3
    assert "no progress for 1 s while loading the model; raise --timeout (building an" in ran.err


def test_a_worker_that_dies_while_loading(harness: Harness) -> None:
    ran = harness(*FAKE, "--option", "fail=segfault", "--option", "fail_at=prepare", "--json")

    assert ran.code == 3
    assert ran.result["error"]["phase"] == "loading the model"
    assert "unavailable" in ran.result["timing"]


@pytest.mark.parametrize(
    ("late", "status", "why"),
    [
        ("outputs:kill", "degraded", "SIGKILL while verifying outputs"),
        ("outputs:hang", "degraded", "no progress for 2 s while verifying outputs"),
        ("outputs:raise", "", "RuntimeError: as the test wants it"),
        ("describe:raise", "", "RuntimeError: as the test wants it"),
        ("close:raise", "", ""),
    ],
)
def test_what_fails_after_the_window_costs_no_figure(
    harness: Harness, late: str, status: str, why: str
) -> None:
    ran = harness(
        *FAKE, "--option", f"late={late}", "--option", "latency_us=1000", "--timeout", "2", "--json"
    )

    assert ran.code == 0, ran.err
    result = ran.result
    assert result["timing"]["iterations"] > 10
    assert result["timing"]["stop_reason"] == "duration"
    assert result["error"] is None
    assert result["status"] == status or (not status and result["status"] != "failed")
    assert why in json.dumps(result["accuracy"]) + json.dumps(result["precision"])
    warned = [check for check in result["validity"] if check["name"] == "verification"]
    assert len(warned) == (status == "degraded")


def test_non_finite_outputs_fail_the_run(harness: Harness) -> None:
    ran = harness(*FAKE, "--option", "latency_us=500", "--option", "fail=nan", "--json")

    assert ran.code == 3
    assert ran.result["status"] == "failed"
    (check,) = [c for c in ran.result["validity"] if c["name"] == "finite outputs"]
    assert check["verdict"] == "fail"
    assert "NaN in " in ran.err


def wait_for_window(folder: Path) -> None:
    """Until the journal holds iterations of the window, more than the tests want to find."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        journals = list((folder / "results").glob("*/samples.journal"))
        if journals and int(read_samples(journals[0].parent).timed.sum()) > 200:
            return
        time.sleep(0.05)
    raise AssertionError("no run began")


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_writes_what_was_measured(start: Start, tmp_path: Path, number: int) -> None:
    process = start(*FAKE, "--option", "latency_us=1000", "--duration", "60", "--json")
    wait_for_window(tmp_path)
    process.send_signal(number)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=600)

    assert process.returncode == 130
    result = json.loads(out)
    assert result["status"] == "interrupted"
    assert result["error"]["kind"] == "interrupted"
    assert result["timing"]["stop_reason"] == "interrupted"
    assert result["timing"]["iterations"] > 100
    assert_no_orphans(tmp_path)


def test_a_killed_driver_leaves_a_result_to_recover_and_no_worker(
    start: Start, harness: Harness, tmp_path: Path
) -> None:
    process = start(*FAKE, "--option", "latency_us=1000", "--duration", "60")
    wait_for_window(tmp_path)
    assert len(helpers(tmp_path)) >= 2  # driver and worker, and the sampler
    process.kill()
    process.communicate(timeout=600)

    assert_no_orphans(tmp_path)
    samples = read_samples(only_run(tmp_path))
    assert len(samples.start_ns) > 100
    assert (samples.end_ns - samples.start_ns >= 1_000_000).all()

    assert "harness recover" in harness("list", "runs").err
    assert harness("recover").code == 0
    result = read_result(only_run(tmp_path))
    assert (result.status, result.timing.stop_reason) == ("interrupted", "interrupted")
    assert result.timing.iterations == int(samples.timed.sum())
    assert len(read_samples(only_run(tmp_path)).start_ns) == len(samples.start_ns)


def test_a_killed_sampler_costs_its_channels_only(start: Start, tmp_path: Path) -> None:
    process = start(*FAKE, "--option", "latency_us=1000", "--duration", "4", "--json")
    wait_for_window(tmp_path)
    (sampler,) = [p for p in helpers(tmp_path) if "harness.engine.sampler.main" in p.cmdline()]
    sampler.kill()
    out, _ = process.communicate(timeout=600)

    assert process.returncode == 0
    result = json.loads(out)
    assert result["timing"]["iterations"] > 200
    assert "killed by SIGKILL" in result["profiles"]["channels"]["worker_cpu_s"]["unavailable"]
    assert result["profiles"]["sampler"]["gap_max_s"] > 1
    (check,) = [c for c in result["validity"] if c["name"] == "sampler"]
    assert check["verdict"] == "warn"
    assert result["status"] == "degraded"


def test_a_killed_worker_is_named(start: Start, tmp_path: Path) -> None:
    process = start(*FAKE, "--option", "latency_us=1000", "--duration", "60", "--json")
    wait_for_window(tmp_path)
    (worker,) = [
        p for p in helpers(tmp_path) if "harness.engine.worker.main" in " ".join(p.cmdline())
    ]
    psutil.Process(worker.pid).kill()
    out, err = process.communicate(timeout=600)

    assert process.returncode == 3
    assert "SIGKILL" in err
    assert json.loads(out)["timing"]["iterations"] > 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting takes root")
def test_on_a_small_disk_the_result_goes_before_the_samples(
    harness: Harness, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (disk / "mine.txt").write_text("mine")
        flags = ("--option", "latency_us=50", "--duration", "1", "--out", str(disk / "results"))
        ran = harness("run", "--backend", "fakes:Fake", *flags, "--json")
        assert ran.code == 0
        assert "No space left on device" in ran.err
        assert ran.err.splitlines() == [li for li in ran.err.splitlines() if li[:9] == "harness: "]
        assert ran.result["timing"]["iterations"] > 1000
        (run,) = (disk / "results").iterdir()
        kept = read_result(run)
        assert kept.timing.iterations == ran.result["timing"]["iterations"]
        (check,) = [check for check in kept.validity if check.name == "samples"]
        assert (check.verdict, kept.status) == ("warn", "degraded")
        assert (disk / "mine.txt").read_text() == "mine"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
