"""show, compare, list and doctor, called in process."""

from __future__ import annotations

import json
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import onnx_models
import pytest
from onnx import helper

from harness import machine, registry
from harness.cli import list as list_
from harness.cli.main import cli, main
from harness.inspect import findings, probe
from harness.maybe import Unavailable
from harness.protocols import Available, Channel, ProfilerContext
from harness.records.result import Result
from harness.testing.results import fake_failure, fake_result
from harness.views.terminal import render_result, to_text
from harness.views.text import size as size_text


def write(results: Path, name: str, result: Result) -> Path:
    folder = results / name
    folder.mkdir()
    result = msgspec.structs.replace(result, id=name)
    (folder / "result.json").write_bytes(msgspec.json.encode(result))
    return folder


def launched(median_ms: float, count: int = 5, **changes: object) -> Result:
    result = fake_result()
    launches = tuple(
        msgspec.structs.replace(result.timing.launches[0], median_ms=median_ms * (1 + i / 1000))
        for i in range(count)
    )
    whole = msgspec.structs.replace(
        result.timing.latency_ms, median=statistics.fmean(launch.median_ms for launch in launches)
    )
    timing = msgspec.structs.replace(result.timing, launches=launches, latency_ms=whole)
    return msgspec.structs.replace(result, timing=timing, **changes)


A, B = "20260101T000000Z-a-000001", "20260102T000000Z-b-000002"


def run_json(args: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_show_prints_the_table_of_a_run(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path, A, fake_result())
    for name in (A, "20260101", "latest", str(folder), str(folder / "result.json")):
        assert main(["show", name, "--results", str(tmp_path)]) == 0
        result = fake_result(id=A)
        assert capsys.readouterr() == (to_text(render_result(result, folder)) + "\n", "")


def test_show_as_json_is_the_result(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path, A, fake_result())
    shown = run_json(["show", str(folder)], capsys)
    assert shown == json.loads((folder / "result.json").read_bytes())


def test_show_says_that_a_run_has_not_ended(tmp_path: Path, capsys) -> None:
    (tmp_path / A).mkdir()
    assert main(["show", A, "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"harness: '{tmp_path / A}' holds no result.json; "
        "the run is still going, or was killed before its end\n"
    )


def test_show_names_what_it_cannot_read(tmp_path: Path, capsys) -> None:
    write(tmp_path, A, fake_result())
    (tmp_path / A / "result.json").write_bytes(b"{")
    assert main(["show", A, "--results", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("harness: '") and "cut short" in err
    assert err.count("\n") == 1


def compare(tmp_path: Path, a: Result, b: Result, *flags: str) -> int:
    write(tmp_path, A, a)
    write(tmp_path, B, b)
    return main(["compare", A, B, "--results", str(tmp_path), *flags])


def test_compare_judges_latency_by_launches(tmp_path: Path, capsys) -> None:
    assert compare(tmp_path, launched(0.2), launched(0.1), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["a"], found["b"]) == ("harness.comparison/1", A, B)
    (cell,) = found["cells"]
    assert cell["differences"] == {}
    rows = {row["metric"]: row for row in cell["rows"]}
    latency = rows["latency_median"]
    assert latency["verdict"] == "improved"
    assert latency["ratio"] == pytest.approx(0.5, rel=1e-9)
    assert latency["b"] == pytest.approx(0.1 * 1.002)  # as the run states it
    assert latency["b"] / latency["a"] == pytest.approx(latency["ratio"])
    assert rows["throughput"]["ratio"] == pytest.approx(1.0)
    energy = rows["energy_per_inference"]
    assert energy["verdict"] == "inconclusive" and "one figure a run" in energy["reason"]
    assert rows["file_size"]["verdict"] == "unchanged"
    assert (rows["top1"]["a"], rows["top1"]["verdict"]) == (0.875, "unchanged")
    assert rows["f1"]["verdict"] is None


def test_compare_with_few_launches_is_inconclusive_and_shows_the_ratio(
    tmp_path: Path, capsys
) -> None:
    assert compare(tmp_path, launched(0.2, 4), launched(0.1, 5)) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("latency median "))
    assert "0.500" in line and line.endswith("inconclusive")
    assert "latency median, throughput: 4 and 5 launches; 5 a side are needed" in out
    assert "doubt: A degraded (cpu steal), B degraded (cpu steal)" in out


def test_compare_refuses_other_hardware_by_name(tmp_path: Path, capsys) -> None:
    machine = fake_result().machine
    factors = {**machine.factors, "cpu": "Another CPU", "isa": "avx9"}
    other = msgspec.structs.replace(machine, fingerprint="else", factors=factors)
    assert compare(tmp_path, launched(0.2), launched(0.1, machine=other)) == 4
    assert capsys.readouterr().err == (
        "harness: nothing could be compared: the machines differ: "
        "cpu (Imaginary CPU 9000 and Another CPU), isa (absent and avx9); "
        "measure both on one machine\n"
    )


def test_compare_refuses_another_boundary(tmp_path: Path, capsys) -> None:
    spec = msgspec.structs.replace(fake_result().spec, boundary="transfer")
    assert compare(tmp_path, launched(0.2), launched(0.1, spec=spec)) == 4
    out, err = capsys.readouterr()
    assert out == "" and "the runs differ in boundary: compute and transfer" in err
    assert main(["compare", A, B, "--results", str(tmp_path), "--json"]) == 4
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert (cell["apart"], cell["rows"]) == ("another benchmark", [])


def test_compare_of_other_batches_leaves_latency_out(tmp_path: Path, capsys) -> None:
    spec = msgspec.structs.replace(fake_result().spec, batch_size=8)
    assert compare(tmp_path, launched(0.2), launched(0.1, spec=spec), "--json") == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["cells"][0]["rows"]}
    assert rows["latency_median"]["verdict"] == "not comparable"
    assert "batches of 1 and 8" in rows["latency_median"]["reason"]
    assert rows["throughput"]["ratio"] == pytest.approx(8.0)


def test_compare_with_a_failed_run_has_nothing_to_say(tmp_path: Path, capsys) -> None:
    assert compare(tmp_path, launched(0.2), fake_failure()) == 4
    assert f"{B} is the worker was killed by SIGKILL" in capsys.readouterr().err


def test_compare_tells_what_else_differs(tmp_path: Path, capsys) -> None:
    spec = msgspec.structs.replace(fake_result().spec, precision="fp32")
    assert compare(tmp_path, launched(0.2, spec=spec), launched(0.1)) == 0
    assert "A and B differ in precision fp32 / int8" in capsys.readouterr().out


def test_list_models_says_whose_weights_are_random(capsys) -> None:
    models = run_json(["list", "models"], capsys)
    assert {model["name"]: model["random_weights"] for model in models} == {
        "digits": False, "alexnet": True, "resnet18": True, "resnet50": True,
        "mobilenet_v2": True, "bert_base": True,
    }  # fmt: skip
    assert main(["list", "models"]) == 0
    for line in capsys.readouterr().out.replace("\n    ", " ").splitlines():
        if line.startswith(("alexnet", "resnet", "mobilenet", "bert")):
            assert " ".join(line.split()).endswith("random weights")


def test_list_models_says_which_extra_each_needs(capsys) -> None:
    models = run_json(["list", "models"], capsys)
    extras = {model["name"]: model["extra"] for model in models}
    assert extras.pop("digits") is None and set(extras.values()) == {"torch"}
    assert main(["list", "models"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if line[:1].strip()}
    assert rows["resnet18"] == rows["FILE.pt2"] == "torch"
    assert rows["digits"] == "small" and rows["FILE.onnx"] == "any"
    assert out.endswith("To have torch: pip install 'hw-harness[torch]'\n")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "--scenario", "server", "--rate", "9", "--batching", "4:1ms"),
         "--batching 4:1ms: no batch of 2: the model's input 'x' (1x3) has a fixed batch of 1"),
        (("capacity", "--latency-bound", "p99=1ms", "--arrivals", "file:t.csv"),
         "--arrivals file:t.csv has a rate of its own"),
        (("capacity", "--latency-bound", "p99=1ms", "--batching", "4:1ms"),
         "--batching 4:1ms: capacity predicts from single inferences"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_so_is_one_line(
    args: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx_models.save(
        tmp_path / "fixed.onnx", [helper.make_node("Relu", ["x"], ["y"])],
        [onnx_models.value("x", (1, 3))], [onnx_models.value("y", (1, 3))],
    )  # fmt: skip
    assert main([*args, "--model", str(model)]) == 2
    said = capsys.readouterr()
    assert told in said.err and len(said.err.splitlines()) == 1 and said.out == ""
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.parametrize(
    ("began", "age"),
    [("2026-01-01T00:00:00Z", "60 min"), ("2025-12-31T22:00:00", "3 h"),
     ("2025-12-30T01:00:00Z", "2 d"), ("2026-01-01T00:59:59.500Z", "0 s"),
     ("2026-01-01T02:00:00+00:00", "0 s"), ("junk", "?")],
)  # fmt: skip
def test_a_runs_age(began: str, age: str) -> None:
    run = SimpleNamespace(started_at=began)
    now = datetime(2026, 1, 1, 1, 0, tzinfo=UTC)
    assert list_._age(run, now) == age


def test_what_a_listed_run_says_of_its_cell() -> None:
    def told(cell: str, median: str = "", setting: str = "", launches: int = 1) -> str:
        run: Any = SimpleNamespace(id="a run", cell=SimpleNamespace(name=cell))
        return list_._told([run] * launches, {"a run": (median, setting)})

    assert told("net/onnxruntime/cpu/fp32/b1/latency", "500.0 µs") == "500.0 µs"
    assert told("net/onnxruntime/cpu/fp32/b1/latency", "1 ms", launches=5) == "1 ms, 5 launches"
    assert told("a/b/onnxruntime/cuda:0/fp32/b8/throughput") == "cuda:0, b8, throughput"
    assert (
        told("a/onnxruntime/cpu/int8/b8/latency", "1 ms", "dynamic, batch 8") == "1 ms, b8, dynamic"
    )
    of_server = "server, 200 /s, gamma:2 arrivals"
    assert told("a/onnxruntime/cpu/fp32/b1/server@200", "", of_server) == (
        "server@200, gamma:2 arrivals"
    )


@pytest.mark.parametrize(
    ("command", "earlier"),
    [("run", "--out"), ("sweep", "--out"), ("doctor", "--out"), ("import", "--logdir"),
     ("board", "--logdir")],
)  # fmt: skip
def test_the_results_folder_has_one_name_and_earlier_ones_work(
    command: str, earlier: str, capsys, tmp_path: Path
) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--results DIR" in out and earlier not in out
    (option,) = (one for one in cli.get_command(None, command).params if "--results" in one.opts)  # type: ignore[arg-type]
    assert earlier in option.opts


def test_o_says_what_it_wrote(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path, A, fake_result())
    for words in (["report"], ["export", "--format", "csv"]):
        file = tmp_path / f"{words[0]}.out"
        assert main([*words, str(folder), "-o", str(file)]) == 0
        out, err = capsys.readouterr()
        size = file.stat().st_size
        assert out == "" and f"wrote {file} ({size_text(size)})" in err.splitlines()


def test_list_gives_every_backend_an_answer_per_device(capsys) -> None:
    found = run_json(["list"], capsys)
    assert set(found) == {"models", "backends", "profilers"}
    devices = {entry["name"]: entry["devices"] for entry in found["backends"]}
    assert list(devices)[:2] == ["pytorch", "onnxruntime"]
    for answers in devices.values():
        assert set(answers) == {"cpu", "cuda:0"}
        for answer in answers.values():
            assert "details" in answer or (answer["unavailable"] and "remedy" in answer)
    assert "version" in devices["onnxruntime"]["cpu"]["details"]
    assert [entry["name"] for entry in found["profilers"]][:2] == ["memory", "utilization"]


def test_a_backend_that_dies_on_import_is_a_line(tmp_path: Path, monkeypatch, capsys) -> None:
    """Real plug-in distributions on the path: each misbehaves in a way of its own."""
    modules = {
        "crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "raise": "raise ImportError('libfoo.so.7 is missing')",
        "leave": "import sys; sys.exit('no licence')",
        "stub": "class Backend: name = 'stub'",
        "babble": (
            "class Backend:\n"
            "    name, wants, prepare = 'babble', None, None\n"
            "    def availability(self, device): return 'of course'\n"
        ),
        "greet": (
            "print('hello!')\n"
            "from harness.protocols import Available\n"
            "class Backend:\n"
            "    name, wants, prepare = 'greet', None, None\n"
            "    def availability(self, device): return Available({'on': device})\n"
        ),
    }
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    points = "".join(f"{name} = strange_{name}:Backend\n" for name in modules)
    (info / "entry_points.txt").write_text(f"[harness.backends]\n{points}")
    for name, code in modules.items():
        (tmp_path / f"strange_{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))

    found = {status.name: status.devices["cpu"] for status in probe.backends()}
    assert "asking it ended the process with signal 11" in found["crash"].reason
    assert "libfoo.so.7 is missing" in found["raise"].reason
    assert "SystemExit: no licence" in found["leave"].reason
    assert found["stub"].reason == ("it is no backend: Backend lacks availability, wants, prepare")
    assert "its answer makes no sense" in found["babble"].reason
    assert found["greet"] == Available({"runs": "", "on": "cpu"})
    assert isinstance(found["onnxruntime"], Available)
    assert main(["list", "backends"]) == 0
    assert "signal 11" in capsys.readouterr().out


class Raising:
    name = "raising"
    channels: tuple[Channel, ...] = ()

    def __init__(self, context: ProfilerContext) -> None:
        pass

    def open(self) -> Available | Unavailable:
        raise OSError("the sensor is on fire")

    def close(self) -> None:
        raise OSError("still on fire")


def test_a_profiler_that_raises_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PROFILERS", {"raising": f"{__name__}:Raising"})
    (status,) = probe.profilers(os.getpid())
    assert status.status == Unavailable(
        "opening it raised OSError: the sensor is on fire", "repair or uninstall the plug-in"
    )


def test_doctor_says_that_a_folder_cannot_be_looked_at() -> None:
    found = findings._disk(Path("x" * 300))
    # newer Pythons take it for an absent folder, whose parent is looked at
    assert found.found == "x" * 300 + ": File name too long" or str(Path.cwd()) in found.found


def test_doctor_examines_everything_and_changes_nothing(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run_json(["doctor", "--out", str(tmp_path / "not" / "yet")], capsys)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert set(findings) == {
        "virtualisation", "CPU frequency", "CPUs", "load", "pressure stall", "CPU steal",
        "memory peaks", "shared memory", "timer", "disk", "TensorBoard",
    }  # fmt: skip
    assert str(tmp_path) in findings["disk"]["found"]
    assert findings["TensorBoard"]["verdict"] == "pass"
    assert all(finding["found"] for finding in findings.values())
    meters = {meter["name"]: meter for meter in report["meters"]}
    assert list(meters) == ["nvml", "powercap", "hwmon", "jetson", "pyrapl", "external"]
    for meter in meters.values():  # it works, or it says why not and what to do
        readable = [c["name"] for c in meter["channels"] if c["unavailable"] is None]
        assert readable or meter["status"]["remedy"], meter
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(
        probe, "backends", lambda: [probe.BackendStatus("x", {"cpu": Available()})]
    )  # asked above
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for text in ("Machine", "Conditions", "Energy", "Channels", "Backend"):
        assert f"\n{text} " in f"\n{out.replace(chr(10), ' ' + chr(10))}"
    assert max(map(len, out.splitlines())) <= 80


def test_doctor_reads_another_machine_from_a_folder(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    cpu = "sys/devices/system/cpu"
    put("proc/cpuinfo", "model name : Real CPU\nflags : avx2 sse4_2\n")
    put("proc/self/status", "Cpus_allowed_list:\t0\n")
    put("proc/loadavg", "3.00 1.00 0.50 1/100 1\n")
    put(f"{cpu}/online", "0-3")
    put(f"{cpu}/cpu0/cpufreq/scaling_governor", "powersave")
    described = machine.fingerprint(str(tmp_path))
    found = {f.name: f for f in findings._settings(described, str(tmp_path))}
    verdicts = {name: finding.verdict for name, finding in found.items()}
    assert verdicts == {
        "virtualisation": "pass", "CPU frequency": "warn", "CPUs": "warn", "load": "warn",
        "pressure stall": "unknown",
    }  # fmt: skip
    assert found["CPU frequency"].remedy == "sudo cpupower frequency-set -g performance"
