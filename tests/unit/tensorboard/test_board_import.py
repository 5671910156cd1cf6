"""The compression engine's file: read, written again, and brought into TensorBoard."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_board_plugin import read
from test_board_writer import last, metadata
from test_store import file_size_limit

from harness.board import log_benchmark_results
from harness.cli.main import main
from harness.compression import engine_file as compression_engine
from harness.compression.entries import entry_of
from harness.compression.fields import ENGINE_FIELDS
from harness.compression.from_results import board_from, export
from harness.errors import DataError, ResultError
from harness.maybe import Unavailable
from harness.spec import RunSpec
from harness.tensorboard.importer import EVENTS_NAME
from harness.testing.results import fake_failure, fake_result

FP32 = {"accuracy": 0.91, "f1_score": 0.9, "precision": 0.89, "recall": 0.88, "sensitivity": 0.87,
        "specificity": 0.86, "loss": 0.3, "latency_mean_ms": 8.0, "latency_std_ms": 0.5,
        "model_size_mb": 44.0, "memory_usage_mb": 300, "gpu_memory_usage_mb": 0,
        "energy_consumption_mw": 5000.0, "evaluated_on": "cpu"}  # fmt: skip
INT8 = FP32 | {"latency_mean_ms": 2.0, "model_size_mb": 11.0, "threads": 4}
INFO = {"library": "torchvision", "category": "classification", "input_shape": [1, 3, 224, 224],
        "description": "a net"}  # fmt: skip
FILE: dict[str, Any] = {
    "net": {"fp32": FP32, "int8": INT8, "model_info": INFO, "benchmark_time_seconds": 12.5}
}


def put(folder: Path, content: Any, name: str = "bench.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_a_file_becomes_a_board(tmp_path: Path) -> None:
    board = compression_engine.load(put(tmp_path, FILE))
    fp32, int8 = board.entries
    assert (fp32.model, fp32.precision, fp32.run, fp32.status) == (
        "net", "fp32", "bench.json", "imported",
    )  # fmt: skip
    values = {name: figure.value for name, figure in int8.figures.items()}
    assert values == {metric: INT8[field] for field, metric in ENGINE_FIELDS.items()} | {
        "energy_j": pytest.approx(0.01)  # 5 W for 2 ms
    }
    assert int8.derived == {"energy_j": "average power x latency"}
    assert int8.ratios["speedup"] == 4 and int8.ratios["energy_ratio"] == pytest.approx(4)
    assert int8.aurora is not None and int8.aurora.score == pytest.approx(100 * 64**0.2)
    assert int8.info == {
        "latency_statistic": "mean", "library": "torchvision", "category": "classification",
        "input_shape": "1x3x224x224", "description": "a net", "source": "bench.json",
        "benchmark_time_seconds": "12.5", "evaluated_on": "cpu", "threads": "4",
    }  # fmt: skip
    assert board.notes == ()


def test_importing_writes_the_tags_of_the_board(tmp_path: Path) -> None:
    board = log_benchmark_results(put(tmp_path, FILE), tmp_path / "a" / "logs")
    folder = tmp_path / "a" / "logs" / "net"
    assert [path.name for path in folder.iterdir()] == [EVENTS_NAME]
    found = last(folder)
    assert found["net/energy/int8"] == 5000.0 and found["net/sensitivity/fp32"] == pytest.approx(
        0.87
    )
    assert found["net/compression/speedup"] == 4
    said = metadata(folder, "net")["precisions"]["int8"]
    assert said["units"]["energy"] == "mW" and said["derived"] == board.entries[1].derived
    assert said["info"]["library"] == "torchvision" and said["status"] == "imported"


def test_the_tab_shows_what_was_imported(tmp_path: Path) -> None:
    board = log_benchmark_results(put(tmp_path, {**FILE, "a/b c": FILE["net"]}), tmp_path / "logs")
    shown = {(entry.model, entry.precision): entry for entry in read(tmp_path / "logs").entries}
    assert len(shown) == 4
    for entry in board.entries:
        found = shown[entry.model, entry.precision]
        assert (found.status, found.derived, found.missing) == (
            "imported", entry.derived, entry.missing,
        )  # fmt: skip
        assert {name: figure.value for name, figure in found.figures.items()} == {
            name: pytest.approx(figure.value, rel=1e-6) for name, figure in entry.figures.items()
        }
        assert found.ratios == pytest.approx(entry.ratios, rel=1e-6, abs=1e-6)
        assert entry.info.items() <= found.info.items()


def test_importing_again_replaces_the_import(tmp_path: Path) -> None:
    log_benchmark_results(put(tmp_path, FILE), tmp_path / "logs")
    faster = {"net": {"int8": INT8 | {"latency_mean_ms": 1.0}}}
    log_benchmark_results(put(tmp_path, faster), tmp_path / "logs")
    found = last(tmp_path / "logs" / "net")
    assert found["net/latency/int8"] == 1.0 and "net/latency/fp32" not in found


def round_trip(tmp_path: Path, content: Any) -> Any:
    return json.loads(compression_engine.dump(compression_engine.load(put(tmp_path, content))))


def test_a_round_trip_loses_nothing(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "generated_by": "engine 3", "seeds": [1, 2], "settings": {"batch": 1},
        "a/b ünï": {
            "fp32": FP32 | {"custom": {"deep": [1, None, {"x": "y"}]}, "notes": None},
            "int8": {"accuracy": None, "energy_consumption_mw": 0, "recall": 0.5},
            "mixed": {"latency_mean_ms": 3}, "int4": {}, "fp16": None,
            "benchmark_time_seconds": 3, "hardware": {"gpu": "none"},
        },
        "nothing measured": {"model_info": INFO}, "": {"int8": {}, "x": 1}, "empty": {},
    }  # fmt: skip
    assert round_trip(tmp_path, odd) == odd
    assert round_trip(tmp_path, FILE) == FILE


values = st.one_of(st.none(), st.integers(0, 100), st.floats(0, 100), st.text(max_size=5))
jsons = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["fp32", "int8", "fp16", "int4"]),
        st.dictionaries(st.sampled_from(list(ENGINE_FIELDS)), st.none() | st.floats(0, 100)),
        min_size=1,
    ),
    st.dictionaries(st.text(max_size=4).map(lambda key: f"x{key}"), jsons, max_size=4),
)
def test_round_trips_of_any_file(tmp_path_factory, precisions, extra) -> None:
    content = {"net": precisions | extra, "meta": extra}
    assert round_trip(tmp_path_factory.mktemp("trip"), content) == content


def test_half_filled_models_are_read_and_say_what_is_missing(tmp_path: Path) -> None:
    content = {"net": {"fp32": {"latency_mean_ms": 4.0}, "int8": {"latency_mean_ms": None}}}
    fp32, int8 = compression_engine.load(put(tmp_path, content)).entries
    assert int8.missing["latency_ms"] == "given as null" and int8.ratios == {}
    assert fp32.missing["energy_j"] == "not given" and "power_mw" not in fp32.missing


def test_a_power_of_zero_was_not_measured(tmp_path: Path) -> None:
    content = {"net": {"fp32": FP32, "int8": INT8 | {"energy_consumption_mw": 0}}}
    int8 = compression_engine.load(put(tmp_path, content)).entries[1]
    assert "power_mw" not in int8.figures and "energy_ratio" not in int8.ratios
    assert int8.missing["energy_j"] == "given as 0 mW: not measured"


def test_a_latency_or_size_of_zero_was_not_measured(tmp_path: Path) -> None:
    zero = {"latency_mean_ms": 0, "model_size_mb": 0.0}
    content = {"net": {"fp32": FP32, "int8": INT8 | zero}}
    int8 = compression_engine.load(put(tmp_path, content)).entries[1]
    assert int8.figures.keys().isdisjoint({"latency_ms", "model_size_mb", "energy_j"})
    assert int8.missing["latency_ms"] == "given as 0 ms: not measured"
    assert int8.missing["model_size_mb"] == "given as 0 MB: not measured"
    assert round_trip(tmp_path, content) == content


def test_without_fp32_the_widest_precision_is_the_reference(tmp_path: Path) -> None:
    content = {"net": {"int4": INT8, "bf16": FP32 | {"latency_mean_ms": 8.0}, "fp16": FP32}}
    int4, bf16, fp16 = compression_engine.load(put(tmp_path, content)).entries
    assert (int4.reference, fp16.reference, bf16.reference) == ("bf16", "bf16", None)
    assert fp16.ratios["speedup"] == 8.0 / FP32["latency_mean_ms"]


def test_what_does_not_compare_is_noted(tmp_path: Path) -> None:
    content = {"net": {"fp32": FP32 | {"evaluated_on": "cuda"}, "int8": INT8 | {"accuracy": 90.5}}}
    first, second = compression_engine.load(put(tmp_path, content)).notes
    assert "fp32 on cuda, int8 on cpu" in first and "0.91 and 90.5" in second


HOSTILE: dict[str, tuple[bytes, str]] = {
    "cut short": (json.dumps(FILE).encode()[:200], "no JSON, or cut short"),
    "empty": (b"", "no JSON"),
    "no model": (b"{}", "holds no model"),
    "a list": (b"[1]", "no JSON object but a list"),
    "deep": (b"[" * 200_000, "nested too deeply"),
    "deep inside": (b'{"m":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
    "nan": (b'{"m":{"fp32":{"accuracy":NaN}}}', "m, fp32: accuracy is nan"),
    "nan elsewhere": (b'{"m":{"fp32":{"x":{"y":[1,Infinity]}}}}', "m, fp32: x: y is inf"),
    "nan in the model": (b'{"m":{"fp32":{},"t":NaN}}', "m: t is nan"),
    "too large": (b'{"m":{"fp32":{"latency_mean_ms":1e400}}}', "latency_mean_ms is inf"),
    "negative": (b'{"m":{"int8":{"model_size_mb":-1}}}', "m, int8: model_size_mb is -1"),
    "a text": (b'{"m":{"fp32":{"latency_mean_ms":"fast"}}}', "latency_mean_ms is 'fast'"),
    "a truth": (b'{"m":{"fp32":{"accuracy":true}}}', "accuracy is True"),
    "a list of figures": (b'{"m":{"fp32":[1]}}', "m, fp32 is a list"),
    "twice": (b'{"m":{"fp32":{}},"m":{"fp32":{}}}', "the key 'm' stands there twice"),
    "digits": (b'{"m":{"fp32":{"accuracy":' + b"9" * 5000 + b"}}}", "Exceeds the limit"),
    "no utf-8": (b'{"m\xff":{"fp32":{}}}', "no JSON"),
    "surrogate": (b'{"m\\ud800":{"fp32":{}}}', "no text or number"),
    "precision": (b'{"m":{"../x":{"latency_mean_ms":1}}}', "no name of a precision"),
    "a result": (msgspec.json.encode(fake_result()), "is a result of harness run"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line_and_writes_nothing(name: str, tmp_path: Path, capsys) -> None:
    data, says = HOSTILE[name]
    path = put(tmp_path, data)
    assert main(["import", str(path), "--logdir", str(tmp_path / "logs")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and "bench.json" in err
    assert len(err) < 500
    assert not (tmp_path / "logs").exists()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in ((tmp_path / "pipe", "no regular file"), (tmp_path, "directory"),
                       (tmp_path / "none", "No such file"), (Path("a\0b"), "null")):  # fmt: skip
        with pytest.raises(DataError, match=says):
            compression_engine.load(path)


def test_a_large_file_takes_reasonable_time_and_memory(tmp_path: Path) -> None:
    samples = [index / 7 for index in range(1000)]
    content = {f"m{i}": {"fp32": FP32 | {"raw": samples}, "int8": INT8} for i in range(600)}
    path = put(tmp_path, content)
    size_mb = path.stat().st_size / 1e6
    started = time.process_time()
    json.loads(path.read_bytes())
    parsed, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(compression_engine.load(path).entries) == 1200
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    assert size_mb > 10 and grown_mb < 10 * size_mb
    assert time.process_time() - parsed < 20 * (parsed - started)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    content = {f"m{i}": FILE["net"] for i in range(3)}
    content["big"] = {"fp32": FP32, "model_info": {f"k{i}": "x" * 1999 for i in range(40)}}
    path = put(tmp_path, content)
    with file_size_limit(20_000), pytest.raises(ResultError, match="cannot be written"):
        log_benchmark_results(path, tmp_path / "new" / "logs")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_a_failed_import_leaves_the_earlier_one(tmp_path: Path) -> None:
    log_benchmark_results(put(tmp_path, FILE), tmp_path / "logs")
    before = (tmp_path / "logs" / "net" / EVENTS_NAME).read_bytes()
    with file_size_limit(500), pytest.raises(ResultError):
        log_benchmark_results(tmp_path / "bench.json", tmp_path / "logs")
    assert (tmp_path / "logs" / "net" / EVENTS_NAME).read_bytes() == before
    assert len(list((tmp_path / "logs" / "net").iterdir())) == 1


def test_the_command_shows_the_board(tmp_path: Path, capsys) -> None:
    path = put(tmp_path, FILE)
    assert main(["import", str(path), "--logdir", str(tmp_path / "logs")]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:-1])) <= 80  # the last names the folder
    assert out.splitlines()[2].split() == [
        "net", "int8", "91.00%", "2.000", "ms", "11.00", "MB", "10.00", "mJ", "4.00x", "229.7",
    ]  # fmt: skip
    assert "1 model in " in out
    assert main(["import", str(path), "--logdir", str(tmp_path / "logs"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["entries"]) == 2


def run_of(precision: str, name: str, **changes: Any):
    spec = RunSpec(precision=precision, launches=2)  # type: ignore[arg-type]
    return fake_result(id=name, spec=spec, started_at=name, **changes)


def test_runs_become_a_file_with_power_and_joules(tmp_path: Path) -> None:
    written = json.loads(export([run_of("int8", "2"), run_of("fp32", "1")]))
    assert set(written) == {"digits"}
    int8 = written["digits"]["int8"]
    assert int8["latency_mean_ms"] == 0.1248 and int8["latency_median_ms"] == 0.1236
    assert int8["energy_consumption_mw"] == 1500.0 and int8["energy_per_inference_j"] == 0.0001875
    assert "power" in int8["harness"]["units"]["energy_consumption_mw"]
    assert int8["model_size_mb"] == 0.098304 and int8["memory_usage_mb"] == 67.108864
    assert written["digits"]["benchmark_time_seconds"] == 5.5
    assert written["digits"]["model_info"]["input_shape"] == [1, 1, 8, 8]


def test_exported_runs_come_back(tmp_path: Path) -> None:
    data = export([run_of("fp32", "1"), run_of("int8", "2")])
    int8 = compression_engine.load(put(tmp_path, data)).entries[1]
    assert (int8.run, int8.status, int8.precision) == ("2", "degraded", "int8")
    energy, latency = int8.figures["energy_j"], int8.figures["latency_ms"]
    assert energy.value == 0.0001875 and int8.derived == {}  # measured, not derived
    assert (latency.value, latency.low, latency.high) == (0.1248, 0.1244, 0.1253)
    assert int8.missing["gpu_memory_mb"] == "the device is the host"
    assert int8.info["machine"] == "5d41402abc4b"
    again = compression_engine.dump(compression_engine.load(put(tmp_path, data)))
    assert json.loads(again) == json.loads(data)


def test_a_hostile_note_of_our_own_is_only_kept(tmp_path: Path) -> None:
    for note in ({"run": 3}, {"run": "r", "status": "x", "intervals": {"accuracy": [3, 1]}}, "x"):
        content = {"net": {"fp32": {"accuracy": 0.5, "harness": note}}}
        (entry,) = compression_engine.load(put(tmp_path, content)).entries
        assert entry.status == "imported" and entry.figures["accuracy"].low is None
        assert round_trip(tmp_path, content) == content


def test_runs_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    other = run_of("fp32", "3")
    other = msgspec.structs.replace(other, spec=msgspec.structs.replace(other.spec, batch_size=8))
    written = json.loads(export([run_of("fp32", "1"), run_of("fp32", "2"), other]))
    assert list(written) == ["digits batch size 1", "digits batch size 8"]  # two launches pooled


def test_a_failed_run_and_absent_energy_are_said(tmp_path: Path) -> None:
    none = run_of("fp32", "1", energy=Unavailable("not_present: no meter", "add one"))
    written = json.loads(export([none, msgspec.structs.replace(fake_failure(), started_at="2")]))
    fp32, int8 = written["digits"]["fp32"], written["digits"]["int8"]
    assert "energy_consumption_mw" not in fp32 and "energy_per_inference_j" not in fp32
    assert fp32["harness"]["missing"]["energy_j"] == "no meter; add one"
    assert int8["harness"]["status"] == "failed" and "accuracy" not in int8


def write_runs(results: Path) -> None:
    for index, precision in enumerate(("fp32", "int8"), 1):
        folder = results / f"2026010{index}T000000Z-digits-{index}"
        folder.mkdir(parents=True)
        result = run_of(precision, folder.name)
        (folder / "result.json").write_bytes(msgspec.json.encode(result))


def test_the_export_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path / "results")
    args = ["export", "--format", "compression-engine", "latest~1", "latest", "latest", "-o"]
    assert main([*args, "out.json"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("wrote out.json (")
    assert set(json.loads(Path("out.json").read_bytes())["digits"]) >= {"fp32", "int8"}
    assert main([*args, "-"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("out.json").read_bytes())
    assert main(["import", "out.json", "--logdir", "logs"]) == 0
    assert last(tmp_path / "logs" / "digits")["digits/compression/speedup"] == 1.0


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--format", "yaml", "-o", "x", "latest"], "--format is 'yaml'; choose one of compression-"),
     (["--format", "compression-engine", "-o", "x", "nonesuch"], "nonesuch"),
     (["--format", "compression-engine", "-o", "no/x", "latest"], "'no/x' cannot be written")],
)  # fmt: skip
def test_bad_exports_are_one_line(tmp_path: Path, capsys, monkeypatch, args, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path / "results")
    assert main(["export", *args]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err and not Path("x").exists()


def test_a_board_from_results_has_intervals_reasons_and_ratios() -> None:
    board = board_from([run_of("int8", "2"), run_of("fp32", "1")])
    fp32, int8 = board.entries
    assert (fp32.precision, int8.precision, int8.reference_run) == ("fp32", "int8", "1")
    latency = int8.figures["latency_ms"]
    assert (latency.value, latency.low, latency.high) == (0.1236, 0.1234, 0.1239)
    assert int8.ratios["speedup"] == 1.0 and int8.figures["model_size_mb"].value == 0.098304
    assert int8.missing["gpu_memory_mb"] == "the device is the host"


def test_distributions_come_from_the_samples(tmp_path: Path) -> None:
    from harness.records.samples import SamplesJournal

    journal = SamplesJournal(tmp_path)
    journal.append(0, [0, 10], [5_000_000, 5_000_010], timed=False)
    journal.append(0, range(1000), [i + 2_000_000 + 1000 * i for i in range(1000)])
    journal.close()
    entry = board_from([run_of("fp32", "1")], [tmp_path]).entries[0]
    assert entry.latencies is not None and sum(entry.latencies.counts) == 1000
    assert entry.latencies.edges_ms[0] == 2.0 and entry.latencies.edges_ms[-1] <= 2.999
    none = board_from([run_of("fp32", "1")], [tmp_path / "none"])
    assert none.entries[0].latencies is None and "no distribution" in none.notes[0]
    both = board_from([run_of("fp32", "1"), run_of("int8", "2")], [tmp_path / "no"] * 2)
    assert len(both.notes) == 1 and both.notes[0].startswith("2 of 2 runs show no distribution")


def test_without_an_allocators_peak_the_gpu_memory_is_what_the_process_held() -> None:
    result = fake_result()
    device = {"allocator_peak_bytes": Unavailable("no allocator"), "process_bytes": 300_000_000}
    memory = msgspec.structs.replace(result.memory, device=device)
    entry = entry_of(msgspec.structs.replace(result, memory=memory))
    assert entry.figures["gpu_memory_mb"].value == 300.0 and "gpu_memory_mb" not in entry.missing
    assert "no peak is known" in entry.info["gpu_memory"]


def test_what_is_left_out_is_named_with_the_reason(tmp_path: Path, capsys: Any) -> None:
    side = {"accuracy": 0.9, "latency_mean_ms": 9.5, "model_size_mb": 44.7}
    content = {
        "good": {
            "fp32": {**side, "latency_p75_ms": 10.0},
            "int8": {"error": "no calibration data"},
            "int4": None,
            "quantized": {"error": "unsupported operator"},
            "error": "the evaluation of int8 stopped half way",
        },
        "bad": {"error": "CUDA out of memory"},
        "worse": {"error": {"type": "ValueError", "message": "no labels"}},
        "odd": {"comment": "nothing here"},
        "version": 3,
    }
    path = put(tmp_path, content)
    board = compression_engine.load(path)
    assert board.notes == (
        "good: error: the evaluation of int8 stopped half way",
        "good, int4 is left out: it is null",
        "good, quantized is left out: error: unsupported operator",
        "bad is left out: error: CUDA out of memory",
        'worse is left out: error: {"type":"ValueError","message":"no labels"}',
        "odd is left out: it has no precision such as fp32",
        "version is left out: it is a number, and no model",
        "kept, and not shown, for the board has no such figure: latency_p75_ms",
    )
    fp32, int8 = board.entries
    assert (fp32.status, int8.status) == ("imported", "failed")
    assert int8.missing["latency_ms"] == "error: no calibration data"
    assert main(["import", str(path), "--logdir", str(tmp_path / "log")]) == 0
    flat = " ".join(capsys.readouterr().out.split())
    assert "bad is left out: error: CUDA out of memory" in flat and "1 model in" in flat
    (events,) = (tmp_path / "log" / "bad").iterdir()
    assert b"CUDA out of memory" in events.read_bytes()


def test_a_file_of_failures_alone_says_what_failed(tmp_path: Path) -> None:
    failed = {f"net{index}": {"error": f"reason {index}"} for index in range(5)}
    with pytest.raises(DataError, match=r"net1 is left out: error: reason 1; .*; and 2 more"):
        compression_engine.load(put(tmp_path, failed))
