"""CompressionWriter: what TensorBoard's own reader finds in its events."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_store import file_size_limit
from test_tensorboard_sink import read, sessions

from harness.board import CompressionWriter
from harness.compression.fields import ENGINE_FIELDS
from harness.compression.model import METRICS
from harness.compression.ratios import RATIOS
from harness.errors import DataError, ResultError, UsageError
from harness.host.names import run_name, tag_name

FP32 = {"accuracy": 0.8, "f1_score": 0.75, "loss": -0.5, "latency_mean_ms": 10.0,
        "latency_std_ms": 1.0, "model_size_mb": 40.0, "memory_usage_mb": 200.0,
        "gpu_memory_usage_mb": 0.0, "energy_consumption_mw": 500.0}  # fmt: skip
INT8 = FP32 | {"accuracy": 0.796, "latency_mean_ms": 2.5, "model_size_mb": 10.0}
RATIOS_OF_THESE = {
    "size_ratio": 4, "size_reduction_pct": 75, "speedup": 4, "memory_reduction_mb": 0,
    "accuracy_drop": 0.004, "accuracy_retention_pct": 99.5, "energy_ratio": 4,
    "energy_reduction": 0.00375, "energy_saving_share": 0.75, "aurora": 100 * 0.995**0.4 * 64**0.2,
}  # fmt: skip


def last(folder: Path) -> dict[str, float]:
    events = read(folder)
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


def metadata(folder: Path, model: str) -> dict:
    (text,) = read(folder).Tensors(f"{model}/metadata/info")[-1].tensor_proto.string_val
    assert text.startswith(b"```json\n") and text.endswith(b"\n```")
    return json.loads(text[8:-4])


def test_a_comparison_has_the_tags_of_the_board(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path / "new" / "logs") as board:
        fp32, int8 = board.log_compression_comparison("net", FP32, INT8, step=3)
    folder = tmp_path / "new" / "logs" / "net"
    steps = ("accuracy", "f1_score", "loss", "latency", "latency_std", "model_size", "memory",
             "gpu_memory", "energy")  # fmt: skip
    expected = {f"net/{step}/{precision}" for step in steps for precision in ("fp32", "int8")}
    expected |= {f"net/compression/{name}" for name in (*RATIOS, "aurora")}
    found = last(folder)
    assert set(found) == expected
    assert found["net/latency/int8"] == 2.5 and found["net/energy/int8"] == 500.0
    ratios = {name: found[f"net/compression/{name}"] for name in RATIOS_OF_THESE}
    assert ratios == pytest.approx(RATIOS_OF_THESE, rel=1e-6)
    assert {event.step for event in read(folder).Scalars("net/latency/int8")} == {3}
    assert fp32.ratios == {} and int8.ratios["speedup"] == 4
    assert int8.aurora is not None and "recall" in int8.missing


def test_the_metadata_says_units_and_what_is_missing(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        board.log_compression_comparison("net", FP32, {"latency_ms": 2.5, "recall": None})
        board.log_model_metadata("net", {"library": "torchvision", "input_shape": (1, 3, 8, 8)})
    said = metadata(tmp_path / "net", "net")
    assert said["model"] == "net" and said["info"]["input_shape"] == "1x3x8x8"
    fp32, int8 = said["precisions"]["fp32"], said["precisions"]["int8"]
    assert fp32["units"] == {"latency": "ms", "latency_std": "ms", "model_size": "MB",
                             "memory": "MB", "gpu_memory": "MB", "energy": "mW"}  # fmt: skip
    assert fp32["derived"] == {"energy_j": "average power x latency"}
    assert int8["missing"]["recall"] == "given as null"
    assert int8["missing"]["energy_j"] == int8["missing"]["accuracy"] == "not given"
    assert "latency_ms" not in int8["missing"] and "accuracy" in int8["missing"]["aurora"]
    assert set(last(tmp_path / "net")) & {"net/recall/int8", "net/accuracy/int8"} == set()


def test_any_two_precisions_compare(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        board.log_compression_comparison("net", FP32, INT8, precisions=("fp16", "int4"))
    found = last(tmp_path / "net")
    assert found["net/latency/int4"] == 2.5 and found["net/compression/speedup"] == 4


def test_a_third_precision_is_compared_and_leaves_the_ratios_of_int8(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        board.log_compression_comparison("net", FP32, INT8)
        fp16 = board.log_metrics("net", "fp16", FP32 | {"latency_mean_ms": 5.0})
    assert fp16.ratios["speedup"] == 2 and fp16.reference == "fp32"
    assert last(tmp_path / "net")["net/compression/speedup"] == 4


def test_ratios_alone(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        assert board.log_compression_ratios("net", FP32, INT8)["speedup"] == 4
    assert set(last(tmp_path / "net")) == {f"net/compression/{n}" for n in (*RATIOS, "aurora")}


def test_energy_is_in_joules_unless_it_is_power(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        assert board.log_energy_comparison("joules", 0.5, 0.125) == {
            "energy_ratio": 4.0, "energy_reduction": 0.375, "energy_saving_share": 0.75,
        }  # fmt: skip
        assert board.log_energy_comparison("watts", 500, 125, unit="mW") == {}
        board.log_compression_comparison("watts", {"latency_ms": 2}, {"latency_ms": 1})
        with pytest.raises(UsageError, match="unit is 'Wh'"):
            board.log_energy_comparison("net", 1, 2, unit="Wh")
    assert metadata(tmp_path / "joules", "joules")["precisions"]["int8"]["units"] == {"energy": "J"}
    assert last(tmp_path / "watts")["watts/energy/int8"] == 125
    assert last(tmp_path / "watts")["watts/compression/energy_ratio"] == 8
    assert not (tmp_path / "net").exists()


def test_distributions_hold_every_latency(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        board.log_latency_distribution("net", [1.0, 1.1, 9.0], np.array([0.5, 0.25]))
    events = read(tmp_path / "net")
    fp32 = events.Histograms("net/latency_distribution/fp32")[0].histogram_value
    int8 = events.Histograms("net/latency_distribution/int8")[0].histogram_value
    assert (fp32.num, int8.num, int8.min, int8.max) == (3, 2, 0.25, 0.5)
    assert sum(fp32.bucket) == 3 and fp32.sum == pytest.approx(11.1)


def test_other_weights_replace_the_score(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        assert board.log_aurora("net") is None
        board.log_compression_comparison("net", FP32, INT8)
        score = board.log_aurora("net", weights={"accuracy_retention": 1, "size_ratio": 1})
    assert score is not None and score.score == pytest.approx(100 * (0.995 * 4) ** 0.5)
    assert last(tmp_path / "net")["net/compression/aurora"] == np.float32(score.score)
    said = metadata(tmp_path / "net", "net")["precisions"]["int8"]["aurora"]
    assert said["components"] == pytest.approx({"accuracy_retention": 0.995, "size_ratio": 4})


def test_one_row_of_hyperparameters_per_model(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        for model in ("a", "b"):
            board.log_compression_comparison(model, FP32, INT8)
            board.log_hparams(model, {"bits": 8, "scheme": "static", "pruning_ratio": 0.5,
                                      "calibration": None})  # fmt: skip
        board.log_hparams("c", {"bits": 4}, {"accuracy": 0.5})
    rows = {group.sessions[0].name: group for group in sessions(tmp_path)}
    assert set(rows) == {"a", "b", "c"}
    assert rows["a"].hparams["bits"].number_value == 8
    assert rows["a"].hparams["scheme"].string_value == "static"
    values = {m.name.tag: m.value for m in rows["a"].metric_values}
    assert values["headline/speedup"] == 4 and values["headline/latency_ms"] == 2.5


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"latency_mean_ms": float("nan")}, "net, int8: latency_mean_ms is nan"),
        ({"model_size_mb": float("inf")}, "net, int8: model_size_mb is inf"),
        ({"latency_std_ms": -1}, "net, int8: latency_std_ms is -1"),
        ({"model_size_mb": -0.5}, "net, int8: model_size_mb is -0.5"),
        ({"accuracy": "high"}, "net, int8: accuracy is 'high'"),
        ({"accuracy": True}, "net, int8: accuracy is True"),
        ({"accuracy": 101}, "net, int8: accuracy is 101"),
        ({"memory_mb": [1, 2]}, r"net, int8: memory_mb is \[1, 2\]"),
        ({"memory_mb": np.ones(2)}, "net, int8: memory_mb is array"),
        ({"memory_mb": 10**400}, "net, int8: memory_mb is inf"),
        ({"latency_ms": 1, "latency_mean_ms": 1}, "latency_ms is given twice"),
    ],
)
def test_what_is_no_measurement_is_refused_by_name(tmp_path: Path, metrics, says: str) -> None:
    with CompressionWriter(tmp_path) as board, pytest.raises(DataError, match=says):
        board.log_compression_comparison("net", FP32, metrics)
    assert list(tmp_path.iterdir()) == []  # nothing was written of either


def test_metrics_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board, pytest.raises(DataError, match="net, int8: metrics"):
        board.log_compression_comparison("net", FP32, None)  # type: ignore[arg-type]


def test_the_document_names_every_method_and_metric() -> None:
    text = (Path(__file__).parents[3] / "docs" / "compression-board.md").read_text("utf-8")
    methods = [name for name in vars(CompressionWriter) if name.startswith("log_")]
    assert all(f"`{name}(" in text for name in methods)
    assert all(f"`{name}`" in text for name in METRICS)
    assert all(f"`{name}`" in text for name in ENGINE_FIELDS)
    assert all(name in text for name in RATIOS)


def test_numpy_and_tensor_scalars_are_numbers(tmp_path: Path) -> None:
    class Tensor:
        def item(self) -> float:
            return 0.5

    with CompressionWriter(tmp_path) as board:
        entry = board.log_metrics(
            "net",
            "int8",
            {"accuracy": Tensor(), "latency_ms": np.float32(2), "memory_mb": np.int64(7)},
        )
    assert [figure.value for figure in entry.figures.values()] == [0.5, 2.0, 7.0]


@pytest.mark.parametrize(
    ("latencies", "says"),
    [([], "no latencies"), ([1, -2.0], "latency 1 is -2"), ([float("nan")], "latency 0 is nan"),
     (["x"], "no numbers"), ([1, float("inf")], "latency 1 is inf")],
)  # fmt: skip
def test_bad_latencies_are_refused_by_name(tmp_path: Path, latencies, says: str) -> None:
    with CompressionWriter(tmp_path) as board, pytest.raises(DataError, match=f"int8: .*{says}"):
        board.log_latency_distribution("net", [1.0], latencies)
    assert list(tmp_path.iterdir()) == []


def test_names_and_steps_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        for call in (
            lambda: board.log_compression_comparison(3, FP32, INT8),  # type: ignore[arg-type]
            lambda: board.log_compression_comparison("a\ud800", FP32, INT8),
            lambda: board.log_compression_comparison("a", FP32, INT8, step=-1),
            lambda: board.log_compression_comparison("a", FP32, INT8, step=1.5),  # type: ignore[arg-type]
            lambda: board.log_metrics("a", "../int8", INT8),
            lambda: board.log_metrics("a", "", INT8),
            lambda: board.log_compression_comparison("a", FP32, INT8, precisions=("fp32", "fp32")),
            lambda: board.log_energy_comparison("a", 1, 2, precisions=("fp32",)),  # type: ignore[arg-type]
        ):
            with pytest.raises(UsageError):
                call()
    assert list(tmp_path.iterdir()) == []


EVIL = [
    "../../evil", "/etc/passwd", "..", ".", "", "a/b", "a_b", "a b", "nul\x00\n\x1b[31m", "CON",
    "x" * 5000, "x" * 4999 + "y", "модель", "a\\b", "-rf", "~", "a/../b", "s3://bucket/x",
]  # fmt: skip


def test_hostile_names_stay_below_the_folder_and_apart(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with CompressionWriter(logs) as board:
        for model in EVIL:
            board.log_metrics(model, "int8", INT8)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert {path.name for path in logs.iterdir()} == set(map(run_name, EVIL))
    assert len(set(map(run_name, EVIL))) == len(EVIL)
    for model in EVIL:
        folder, tag = logs / run_name(model), tag_name(model)
        assert last(folder)[f"{tag}/latency/int8"] == 2.5
        assert metadata(folder, tag)["model"] == model  # whatever the tag had to leave out
    assert tag_name("модель") == "модель" and tag_name("a/b c") == "a/b c"


@given(st.text(max_size=300))
def test_every_name_gives_a_tame_folder_and_tag(model: str) -> None:
    folder, tag = run_name(model), tag_name(model)
    assert folder.isascii() and "/" not in folder and folder not in ("", ".", "..")
    assert not folder.startswith((".", "-")) and len(folder) <= 100
    assert tag.isprintable() and 0 < len(tag) < 300 and "" not in tag.split("/")


@given(st.lists(st.text("aA/_. -0f", max_size=6), unique=True, max_size=8))
def test_no_two_names_share_a_folder(models: list[str]) -> None:
    assert len({run_name(model) for model in models}) == len(models)


def test_a_link_in_place_of_a_run_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "net").symlink_to(tmp_path / "elsewhere")
    with CompressionWriter(tmp_path / "logs") as board, pytest.raises(ResultError, match="a link"):
        board.log_metrics("net", "int8", INT8)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_more_models_than_open_files(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        for again in range(2):
            for index in range(80):
                board.log_metrics(f"m{index}", "int8", {"latency_ms": 1 + again}, step=again)
    assert len(list(tmp_path.iterdir())) == 80
    assert last(tmp_path / "m0")["m0/latency/int8"] == 2
    assert [e.step for e in read(tmp_path / "m0").Scalars("m0/latency/int8")] == [0, 1]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    board = CompressionWriter(tmp_path)
    board.log_metrics("net", "int8", {"latency_ms": 1})
    with (
        file_size_limit(3_000),
        pytest.raises(ResultError, match="cannot be written: File too lar"),
    ):
        for step in range(200):
            board.log_metrics("net", "int8", {"latency_ms": step}, step=step)
    assert last(tmp_path / "net")["net/latency/int8"] >= 1  # what was written is still there


def test_a_vanished_folder_is_one_clear_error(tmp_path: Path) -> None:
    board = CompressionWriter(tmp_path)
    board.log_metrics("net", "int8", INT8)
    shutil.rmtree(tmp_path / "net")
    with pytest.raises(ResultError, match="is gone"):
        board.log_metrics("net", "int8", INT8)
    board.log_metrics("net", "int8", INT8)  # and the next call begins anew
    board.close()
    assert last(tmp_path / "net")["net/latency/int8"] == 2.5


def test_a_logdir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match=r"file' cannot be written"):
        CompressionWriter(tmp_path / "file")


def test_what_went_wrong_first_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), CompressionWriter(tmp_path) as board:
        board.log_metrics("net", "int8", INT8)
        shutil.rmtree(tmp_path / "net")
        _ = 1 / 0


def test_the_writer_leaves_torch_unimported() -> None:
    code = (
        "import sys, tempfile, harness.board\n"
        "assert 'msgspec' not in sys.modules\n"
        "with harness.board.CompressionWriter(tempfile.mkdtemp()) as board:\n"
        "    board.log_metrics('net', 'int8', {'latency_ms': 1})\n"
        "assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_metric_is_not_lost_in_silence(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as board:
        given = {"latency_ms": 2.0, "latencyms": 3.0, "evaluated_on": "cpu"}
        entry = board.log_metrics("net", "int8", given)
    assert entry.figures.keys() == {"latency_ms"} and entry.info == {"evaluated_on": "cpu"}
    assert entry.missing["latencyms"] == "no metric that the board knows"
