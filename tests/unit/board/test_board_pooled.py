"""One truth in every picture: cells pooled and judged as `harness compare` does it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from board_runs import SPREAD, put, swept, tab
from made_runs import made

from harness.board.gather import Run
from harness.board.gather import board as gathered
from harness.board.logged import logged_in
from harness.cli.main import main
from harness.compare.comparison import compare_sets
from harness.compare.match import parse_across
from harness.compression.from_results import board_from
from harness.compression.model import Entry, Figure, Histogram
from harness.compression.pooled import pooled_histogram
from harness.compression.settings import QUANTIZING, told
from harness.records.metric import FIGURES
from harness.records.result import Result
from harness.spec import BY_NAME
from harness.tensorboard.writer import CompressionWriter

FASTER = {"fp32": 2.0, "int8": 1.0}
NEAR = {"fp32": 1.0, "int8": 0.999}


def sweep() -> list[Result]:
    return [*swept("fast", FASTER), *swept("near", NEAR)]


def test_a_sweep_of_five_launches_is_a_row_a_cell() -> None:
    runs = sweep()
    board = board_from(runs)
    assert [(e.model, e.precision, e.launches, len(e.runs)) for e in board.entries] == [
        ("fast", "fp32", 5, 5), ("fast", "int8", 5, 5), ("near", "fp32", 5, 5),
        ("near", "int8", 5, 5),
    ]  # fmt: skip
    fp32 = board.entries[0].figures["latency_ms"]
    assert fp32.value == 2.0  # the median of the five
    assert fp32.low is not None and fp32.high is not None and fp32.low < 2.0 < fp32.high
    launches = [run.figures["latency_ms"] for run in board.entries[0].runs]
    assert launches == pytest.approx([2.0 * factor for factor in SPREAD])


def test_the_board_says_what_compare_says() -> None:
    runs = sweep()
    board = board_from(runs)
    compared = compare_sets(runs, runs, across=parse_across("precision=fp32,int8"))
    by_model = {cell.cell.partition("/")[0]: cell for cell in compared.cells}
    judged = {e.model: e.judged for e in board.entries if e.reference}
    assert judged.keys() == by_model.keys()
    columns = {name: metric.column or name for name, metric in FIGURES.items()}
    for model, cell in by_model.items():
        for row in cell.rows:
            found = judged[model][columns[row.metric]]
            assert (found.verdict, found.reason) == (row.verdict, row.reason), row.metric
    assert judged["fast"]["latency_ms"].verdict == "improved"
    assert judged["near"]["latency_ms"].verdict != "improved"


def test_single_launches_are_never_certain() -> None:
    runs = [run for run in sweep() if run.tags["launch"] == "1"]
    for entry in board_from(runs).entries:
        if entry.reference:
            assert entry.judged["latency_ms"].verdict in ("inconclusive", "not comparable")
            assert entry.advice.endswith("--across precision=fp32,int8")
            assert f"--model={entry.model} " in entry.advice


def test_two_launches_have_no_interval_and_say_so() -> None:
    runs = [run for run in swept("fast", FASTER) if run.tags["launch"] in "12"]
    entry = board_from(runs).entries[0]
    assert entry.figures["latency_ms"] == Figure(2.0 * (SPREAD[0] + SPREAD[1]) / 2)
    assert entry.info["intervals"].startswith("none: 2 launches are pooled")


def test_imported_figures_have_sizes_that_are_exact_and_nothing_else_that_is(
    tmp_path: Path,
) -> None:
    fp32 = {"accuracy": 0.9, "latency_ms": 9.0, "model_size_mb": 40.0}
    int8 = {"accuracy": 0.9, "latency_ms": 3.0, "model_size_mb": 10.0}
    with CompressionWriter(tmp_path) as writer:
        writer.log_compression_comparison("net", fp32, int8)
    entry = tab(tmp_path).entries[1]
    verdicts = {name: found.verdict for name, found in entry.judged.items()}
    assert verdicts == {"accuracy": "inconclusive", "latency_ms": "inconclusive",
                        "model_size_mb": "improved"}  # fmt: skip


def test_the_tab_pools_by_the_results_beside_the_events(tmp_path: Path) -> None:
    runs = sweep()
    put(tmp_path / "nightly", runs)
    board = tab(tmp_path)
    expected = board_from(runs)
    assert len(board.entries) == 4
    for found, wanted in zip(board.entries, expected.entries, strict=True):
        for part in ("model", "precision", "figures", "judged", "ratios", "runs", "setting"):
            assert getattr(found, part) == getattr(wanted, part), part


def test_a_launch_under_way_stands_beside_those_that_are_done(tmp_path: Path) -> None:
    from harness.tensorboard import tags
    from harness.tensorboard.events import EventFile

    runs = swept("fast", FASTER)
    put(tmp_path, runs)
    going = tmp_path / "20261122T000000Z-going"
    going.mkdir()
    file = EventFile(going / "events.out.tfevents.1.harness")
    tags.write_running(file.at(0), runs[0].spec)
    file.close()
    entries = tab(tmp_path).entries
    assert [(e.precision, e.status) for e in entries] == [
        ("fp32", "complete"), ("fp32", "running"), ("int8", "complete"),
    ]  # fmt: skip
    assert entries[2].judged["latency_ms"].verdict == "improved"  # against the one that is done


def test_a_broken_result_is_named_and_its_events_shown(tmp_path: Path) -> None:
    runs = swept("fast", FASTER)
    put(tmp_path, runs)
    (tmp_path / runs[0].id / "result.json").write_text("{")
    board = tab(tmp_path)
    assert len(board.entries) == 3 and "not judged" in board.notes[0]


def test_a_duel_between_the_two_has_the_last_word(tmp_path: Path) -> None:
    from harness.compare.duel import of_duel
    from harness.compare.paired import Design, Rounds, paired

    a, b = (
        made(1.0, precision=precision, tags={"duel": "d"}, started_at=f"2026-11-21T0{at}:00:00Z")
        for at, precision in enumerate(("fp32", "int8"))
    )
    design = Design(block_ms=20.0, left_out=1, seed=0, goal=None, cpus=(0,))
    rounds = [
        Rounds(
            latency=tuple(tuple(f * (1e6 + 1e3 * (i % 7)) for i in range(40)) for f in (1.0, 0.9)),
            cold=((1.0,) * 40,) * 2, cpu=((1e6,) * 40, (9e5,) * 40), resting=(0.0, 0.0),
        )
        for _ in range(5)
    ]  # fmt: skip
    record = of_duel(paired(("fp32", "int8"), (a.id, b.id), design, rounds, "launches"), [a, b])
    put(tmp_path / "duel", [a, b])
    (tmp_path / "duel" / "comparison.json").write_bytes(msgspec.json.encode(record))
    found = tab(tmp_path).entries[1].judged["latency_ms"]
    assert found.design == "paired rounds" and found.verdict == "improved"
    assert found.ratio == pytest.approx(0.9, rel=1e-6)
    folders = [tmp_path / "duel" / run.id for run in (a, b)]
    assert board_from([a, b], folders).entries[1].judged["latency_ms"] == found
    (tmp_path / "duel" / "events.out.tfevents.1").touch()  # the duel's own, of no model's figures
    assert logged_in(tmp_path).unused == ()
    (tmp_path / "duel" / "comparison.json").write_text("{")
    board = tab(tmp_path)
    assert any("damaged" in note for note in board.notes)
    assert board.entries[1].judged["latency_ms"].design == "separate launches"


# -- settings and names ---------------------------------------------------------------------------


def quantized(**spec: Any) -> Result:
    return made(1.0, precision="int8", **spec)


def test_ways_to_quantize_are_told_apart_everywhere(tmp_path: Path, capsys: Any) -> None:
    runs = [
        made(2.0, precision="fp32"),
        quantized(),
        quantized(quantization="dynamic"),
        quantized(calibration_method="entropy"),
        quantized(calibration="data/mine.npz"),
    ]
    entries = board_from(runs).entries
    assert [e.setting for e in entries] == [
        "", "static, minmax, own calibration data", "dynamic",
        "static, entropy, own calibration data", "static, minmax, calibrated on mine.npz",
    ]  # fmt: skip
    assert {e.reference for e in entries[1:]} == {"fp32"}  # each against the one FP32
    put(tmp_path / "results", runs)
    assert main(["list", "runs", "--results", str(tmp_path / "results")]) == 0
    shown = capsys.readouterr().out
    assert "dynamic" in shown and "entropy" in shown and "mine.npz" in shown
    out = tmp_path / "out.json"
    args = ["export", "--format", "compression-engine", "-o", str(out), str(tmp_path / "results")]
    assert main(args) == 0
    model = json.loads(out.read_bytes())["digits"]
    assert {"fp32", "int8", "int8-dynamic"} < model.keys() and len(model) == 7


def test_another_dataset_or_option_is_another_reference() -> None:
    runs = [
        made(2.0, precision="fp32"), quantized(dataset="other.npz"), quantized(options={"a": "b"}),
    ]  # fmt: skip
    entries = board_from(runs).entries
    assert [e.reference for e in entries] == [None, None, None]
    assert "dataset is other.npz, that of fp32 is as by default" in entries[1].missing["aurora"]
    assert [e.setting for e in entries] == ["", "dataset other.npz", "a=b"]


NAMES = (
    "package.module:factory",
    "a model (v2) [final]",
    "net+int",
    "模型 🦜",
    "Ünïcode/β+1",
    "a  b",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_entry_with_the_figures_of_the_result(tmp_path: Path, name: str) -> None:
    result = made(1.5, precision="int8", model=name if ":" in name else "x")
    put(tmp_path, [result])
    with CompressionWriter(tmp_path / "written") as writer:
        writer.log_metrics(name, "int8", {"latency_ms": 1.25, "accuracy": 0.5})
        writer.log_latency_distribution(name, [1.0, 2.0], [1.0, 1.5])
    entries = {e.run: e for e in tab(tmp_path).entries if e.precision == "int8"}
    assert len(entries) == 2
    assert entries[result.id].figures["latency_ms"].value == 1.5
    (written,) = (e for e in entries.values() if e.run != result.id)
    assert written.model == name and written.latencies is not None
    assert set(written.figures) == {"accuracy", "latency_ms"}


def test_tensorboardx_own_cleaning_makes_no_second_model() -> None:
    text = '{"model": "my net+", "precision": "int8"}'
    run = Run(
        scalars={"my_net_/latency/int8": 1.0},
        texts={"my net+/metadata/info/text_summary": text},
        histograms={"my net+/latency_distribution/int8": [[1.0, 2.0, 3.0]]},
    )
    (entry,) = gathered({"run": run}, 0.0).entries
    assert entry.model == "my net+" and entry.figures["latency_ms"] == Figure(1.0)
    assert entry.latencies is not None


def test_what_belongs_to_the_precision_is_what_quantizes() -> None:
    assert set(QUANTIZING) == set(BY_NAME["precision"].across or ())


def test_what_nothing_else_tells_apart_goes_by_its_run() -> None:
    twins = [Entry(model="m", precision="int8", run=run) for run in ("a", "b")]
    assert [e.setting for e in told(twins)] == ["a", "b"]
    assert told([twins[0]])[0].setting == ""


def test_distributions_add_up() -> None:
    one, two = Histogram((1.0, 2.0, 4.0), (2.0, 4.0)), Histogram((1.0, 3.0), (2.0,))
    assert pooled_histogram([one, two]) == Histogram((1.0, 2.0, 3.0, 4.0), (3.0, 3.0, 2.0))


# -- imports and logs, in reports and exports ------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, an import, a CompressionWriter's log, and a training's, in one folder."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    put(results, swept("ours", FASTER))
    side = {"accuracy": 0.9, "latency_mean_ms": 9.5, "model_size_mb": 44.7}
    engine = tmp_path / "bench.json"
    engine.write_text(json.dumps({"theirs": {"fp32": side, "int8": side}}))
    assert main(["import", str(engine), "--results", str(results)]) == 0
    with CompressionWriter(results) as writer:
        writer.log_metrics("scripted", "int8", {"latency_ms": 1.25})
    from harness.training import TrainingLogger

    with TrainingLogger("trained", results) as logger:
        logger.log_epoch(0, 1.0)
    return results


@pytest.mark.parametrize("name", ["a.html", "a.md"])
def test_a_report_takes_imports_and_logs(mixed: Path, capsys: Any, name: str) -> None:
    assert main(["report", str(mixed), "-o", name]) == 0
    text = Path(name).read_text()
    for model in ("ours", "theirs", "scripted"):
        assert model in text
    err = capsys.readouterr().err
    assert "training-trained" in err and "no figures of a model at a precision" in err


def test_a_report_of_an_import_alone_and_of_the_engines_file(mixed: Path, capsys: Any) -> None:
    for ref in (str(mixed / "theirs"), "bench.json"):
        assert main(["report", ref, "-o", "a.html"]) == 0
        assert "theirs" in Path("a.html").read_text()
    training = next(mixed.glob("training-*"))
    capsys.readouterr()
    assert main(["report", str(training), "-o", "b.html"]) == 2
    err = capsys.readouterr().err
    assert "no figures of a model at a precision" in err and "killed" not in err


def test_exports_take_imports_and_name_what_they_cannot_hold(mixed: Path, capsys: Any) -> None:
    export = ["export", str(mixed), "-o", "out", "--format"]
    assert main([*export, "compression-engine"]) == 0
    assert {"ours", "theirs", "scripted"} <= json.loads(Path("out").read_bytes()).keys()
    assert main([*export, "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(Path("out").read_text())))
    assert {row["model"] for row in rows} == {"ours", "theirs", "scripted"}
    assert {"9.5"} == {r["value"] for r in rows if r["model"] == "theirs"
                       and r["metric"] == "latency_ms"}  # fmt: skip
    for form in ("junit", "markdown", "pytest-benchmark"):
        capsys.readouterr()
        assert main([*export, form]) == 0
        assert "left out: 3 imported or logged" in capsys.readouterr().err
    assert main(["export", str(mixed / "theirs"), "-o", "x", "--format", "junit"]) == 4
    assert "no run to export, only 2 imported or logged" in capsys.readouterr().err


def test_list_runs_has_a_row_a_cell_of_a_sweep(mixed: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["list", "runs", "--results", str(mixed)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "launches" in line]
    assert len(lines) == 2 and all("5 launches" in line for line in lines)
    assert any("2.000 ms" in line for line in lines)


# -- add_scalars ----------------------------------------------------------------------------------


@pytest.mark.parametrize("torch_like", [True, False], ids=["torch", "tensorboardX"])
def test_scripts_that_draw_with_add_scalars_show(tmp_path: Path, torch_like: bool) -> None:
    from tensorboardX import SummaryWriter

    figures = {"latency": {"fp32": 9.5, "int8": 3.25}, "accuracy": {"fp32": 0.75, "int8": 0.5},
               "model_size": {"fp32": 40.0, "int8": 10.0}}  # fmt: skip
    for step, curves in figures.items():
        tag = f"resnet18/{step}"
        if torch_like:
            for precision, value in curves.items():
                with SummaryWriter(str(tmp_path / f"resnet18_{step}_{precision}")) as curve:
                    curve.add_scalar(tag, value, 0)
        else:
            with SummaryWriter(str(tmp_path)) as writer:
                writer.add_scalars(tag, curves, 0)
    for entries in (tab(tmp_path).entries, logged_in(tmp_path).board.entries):
        assert [(e.model, e.precision) for e in entries] == [
            ("resnet18", "fp32"), ("resnet18", "int8"),
        ]  # fmt: skip
        assert entries[1].ratios["size_ratio"] == 4.0
        assert entries[1].ratios["speedup"] == pytest.approx(9.5 / 3.25)


def test_a_trainings_curves_are_no_precisions(tmp_path: Path) -> None:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalars("net/accuracy", {"train": 0.5, "val": 0.25}, 0)
    assert tab(tmp_path).entries == ()


def test_a_run_of_ours_is_set_against_ours_and_not_against_a_log_of_that_name() -> None:
    logged = [
        Entry(model="fast", precision=p, run=p, figures={"latency_ms": Figure(1000.0)})
        for p in ("fp32", "int8")
    ]
    entries = board_from(swept("fast", FASTER), logged=logged).entries
    pairs = {(e.run in ("fp32", "int8"), e.reference_run in ("fp32", "int8"))
             for e in entries if e.reference}  # fmt: skip
    assert pairs == {(True, True), (False, False)}
    assert not any("batch" in e.setting for e in entries)
