"""The board out of event files: tags, metadata, both loaders, and what strangers may write."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from test_tensorboard_sink import LATENCIES, feed, progress
from werkzeug.test import Client

from harness.board import assets, gather
from harness.board.gather import Run
from harness.board.source import Source
from harness.compression.entries import entry_of
from harness.compression.model import METRICS, Board, Entry, Figure
from harness.compression.ratios import with_ratios
from harness.maybe import Unavailable
from harness.tensorboard import tags
from harness.tensorboard.live import TensorBoardSink
from harness.tensorboard.metadata import encode
from harness.tensorboard.writer import CompressionWriter
from harness.testing.results import fake_failure, fake_result

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of a library inside TensorBoard
    from tensorboard.backend import application

    from harness.board import plugin

NOW_S = 1_800_000_002.0
STATIC = Path(assets.__file__).parent / "static"


def slow_provider(logdir: Path) -> MultiplexerDataProvider:
    multiplexer = EventMultiplexer(tensor_size_guidance={"histograms": 1, "text": 1})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def read(logdir: Path) -> Board:
    _, content = Source(slow_provider(logdir)).json(RequestContext(), "")
    return msgspec.convert(json.loads(content)["board"], Board)


def run_of(entry: Entry, **scalars: float) -> Run:
    return Run(
        scalars={f"{entry.model}/{name}/{entry.precision}": v for name, v in scalars.items()},
        texts={f"{entry.model}/metadata/info": metadata(entry)},
        seen_s=NOW_S,
    )


def metadata(entry: Entry) -> str:
    return encode(entry.model, [entry], {})


# -- tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8", "bf16", "int4", "fp8_e4m3", "w8a8", "nf4"])
def test_a_number_format_makes_a_tag_the_boards(precision: str) -> None:
    tag = f"zoo/resnet/latency/{precision}"
    assert tags.of_the_board([tag]) == {tag: ("zoo/resnet", "latency", precision)}


@pytest.mark.parametrize(
    "tag", ["resnet/accuracy/val", "latency/median_ms", "a/b", "x/weights/int8", "/accuracy/int8",
            "resnet/accuracy/", "training/loss/epoch"],
)  # fmt: skip
def test_other_peoples_tags_stay_theirs(tag: str) -> None:
    assert tags.of_the_board([tag]) == {}


def test_a_declared_model_may_have_any_precision() -> None:
    found = tags.of_the_board(
        ["m/accuracy/tiny", "m/metadata/info/text_summary", "n/accuracy/tiny"]
    )
    assert {tag.model for tag in found.values()} == {"m"}


# -- from a run of ours ---------------------------------------------------------------------------


def test_what_a_result_says_comes_back_from_its_events(tmp_path: Path) -> None:
    result = fake_result()
    feed(tmp_path / result.id, result)
    (entry,) = read(tmp_path).entries
    (expected,) = with_ratios([entry_of(result)])
    assert set(entry.figures) == set(expected.figures)
    for name, figure in expected.figures.items():
        for part in ("value", "low", "high"):
            wanted = getattr(figure, part)
            found = getattr(entry.figures[name], part)
            assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-6)), name
    for part in ("model", "precision", "run", "status", "random_weights", "missing", "info"):
        assert getattr(entry, part) == getattr(expected, part), part
    assert entry.latencies is not None
    assert sum(entry.latencies.counts) == sum(map(len, LATENCIES))
    assert entry.latencies.edges_ms[0] == pytest.approx(1.0, rel=1e-6)
    assert entry.latencies.edges_ms[-1] == pytest.approx(9.5, rel=1e-6)


def test_a_figure_that_is_absent_has_its_reason(tmp_path: Path) -> None:
    result = fake_result(energy=Unavailable("virtualized: no counters here", "use a wall meter"))
    feed(tmp_path / "run", result)
    (entry,) = read(tmp_path).entries
    assert "energy_j" not in entry.figures
    assert entry.missing["energy_j"] == "no counters here; use a wall meter"


def test_a_failed_run_says_so_and_why(tmp_path: Path) -> None:
    feed(tmp_path / "run", fake_failure())
    (entry,) = read(tmp_path).entries
    assert (entry.status, entry.figures) == ("failed", {})
    assert entry.info["error"] == "the worker was killed by SIGKILL while loading"
    assert set(entry.missing) >= {"accuracy", "latency_ms", "energy_j"}


def test_a_run_under_way_has_a_row_with_its_latest_median(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, fake_result().spec)
    sink.update(progress(0.0, phase="warm-up"))
    sink.update(progress(0.5, median_ms=1.5, throughput_per_s=600.0))
    sink.update(progress(1.0, median_ms=1.25, throughput_per_s=800.0))
    runs = {"run": Run(
        scalars={"latency/median_ms": 1.25, "throughput/per_s": 800.0},
        texts={"digits/metadata/info": metadata(Entry(
            model="digits", precision="int8", run="", status="running"))},
        seen_s=NOW_S,
    )}  # fmt: skip
    (entry,) = gather.board(runs, NOW_S).entries
    assert entry.status == "running"
    assert entry.figures == {"latency_ms": Figure(1.25), "throughput_per_s": Figure(800.0)}
    (stale,) = gather.board(runs, NOW_S + gather.STALE_S + 1).entries
    assert stale.status == "interrupted"
    (seen,) = read(tmp_path).entries  # stamped in 2027, so it is not stale to this clock
    assert seen.figures["latency_ms"] == Figure(1.25)
    sink.close(None)


def test_int8_is_compared_with_fp32_of_the_same_backend_in_another_run() -> None:
    fast = Entry(model="m", precision="fp32", run="", info={"backend": "a", "machine": "x"})
    other = Entry(model="m", precision="fp32", run="", info={"backend": "b", "machine": "x"})
    int8 = Entry(model="m", precision="int8", run="", info={"backend": "a", "machine": "x"})
    running = msgspec.structs.replace(fast, status="running")
    runs = {
        "1": run_of(fast, latency=4.0, accuracy=0.9),
        "2": run_of(other, latency=40.0, accuracy=0.9),
        "3": run_of(int8, latency=2.0, accuracy=0.9),
        "4": run_of(running, latency=1.0),
    }
    entry = gather.board(runs, NOW_S).entries[-1]
    assert (entry.precision, entry.reference_run) == ("int8", "1")
    assert entry.ratios["speedup"] == 2.0
    assert entry.aurora is not None and entry.aurora.components["speedup"] == 2.0


# -- from the writer ------------------------------------------------------------------------------


def test_a_comparison_that_was_logged_comes_back_whole(tmp_path: Path) -> None:
    with CompressionWriter(tmp_path) as writer:
        writer.log_compression_comparison(
            "resnet18",
            {"accuracy": 0.75, "latency_mean_ms": 8.0, "model_size_mb": 48.0},
            {"accuracy": 0.74, "latency_mean_ms": 2.0, "model_size_mb": 12.0},
        )
        writer.log_latency_distribution("resnet18", [8.0, 8.1, 7.9], [2.0, 2.5])
    fp32, int8 = read(tmp_path).entries
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert int8.figures["latency_ms"].value == 2.0
    assert int8.ratios["speedup"] == 4.0 and int8.ratios["size_ratio"] == 4.0
    assert int8.ratios["accuracy_drop"] == pytest.approx(0.01, abs=1e-6)
    assert fp32.latencies is not None and sum(fp32.latencies.counts) == 3
    assert int8.latencies is not None and sum(int8.latencies.counts) == 2


# -- what a stranger may have written -------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_left_out_and_said(value: float) -> None:
    runs = {"r": Run(scalars={"m/latency/int8": value, "m/accuracy/int8": 0.5})}
    (entry,) = gather.board(runs, NOW_S).entries
    assert set(entry.figures) == {"accuracy"}
    assert str(value) in entry.missing["latency_ms"]


def test_an_energy_without_its_unit_is_no_figure() -> None:
    (entry,) = gather.board({"r": Run(scalars={"m/energy/int8": 4.0})}, NOW_S).entries
    assert not entry.figures and "unit" in entry.missing["energy_j"]


def test_an_energy_in_milliwatts_is_a_power() -> None:
    text = '```json\n{"precisions": {"int8": {"units": {"energy": "mW"}}}}\n```'
    runs = {"r": Run(scalars={"m/energy/int8": 900.0}, texts={"m/metadata/info": text})}
    (entry,) = gather.board(runs, NOW_S).entries
    assert entry.figures == {"power_mw": Figure(900.0)}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", "null", "[" * 100_000, "```json\n{\n```", '{"model": 7, "info": [1]}',
     '{"precision": {"a": 1}, "status": ["x"], "units": 3, "missing": "no", "precisions": []}',
     '{"precisions": {"int8": 4}}', "x" * 2_000_000],
)  # fmt: skip
def test_metadata_may_be_anything(text: str) -> None:
    runs = {"r": Run(scalars={"m/accuracy/int8": 0.5}, texts={"m/metadata/info": text})}
    (entry,) = gather.board(runs, NOW_S).entries
    assert (entry.model, entry.precision, entry.status) == ("m", "int8", "complete")
    assert entry.figures == {"accuracy": Figure(0.5)}


@pytest.mark.parametrize(
    "rows", [[], [[0, 1, 0]], [[0, 1, math.nan]], [[0, math.inf, 1]], [[2, 1, 1]],
             [[0, 1, 1], [1, 2, -1], [2, 3, 1]]],
)  # fmt: skip
def test_an_unsound_histogram_is_none(rows: list[list[float]]) -> None:
    assert gather.histogram(rows) is None


def test_empty_rows_at_the_ends_of_a_histogram_go() -> None:
    found = gather.histogram(
        [[1.5, 1.0, 0], [1.0, 2.0, 3], [2.0, 4.0, 0], [4.0, 5.0, 1], [5, 9, 0]]
    )
    assert found is not None
    assert found.edges_ms == (1.0, 2.0, 4.0, 5.0) and found.counts == (3.0, 0.0, 1.0)


def test_ratios_that_were_logged_count_where_no_figure_tells() -> None:
    runs = {"r": Run(scalars={
        "m/accuracy/int8": 0.5, "m/compression/speedup": 2.5, "m/compression/size_ratio": math.nan,
    })}  # fmt: skip
    (entry,) = gather.board(runs, NOW_S).entries
    assert entry.ratios == {"speedup": 2.5}
    runs["r"].scalars["m/accuracy/int4"] = 0.4  # now it is not said whose they are
    assert all(not entry.ratios for entry in gather.board(runs, NOW_S).entries)


def test_the_ratios_are_those_of_the_analysis() -> None:
    scalars = {"m/latency/fp32": 9.0, "m/latency/int8": 3.0, "m/accuracy/fp32": 0.8,
               "m/accuracy/int8": 0.6}  # fmt: skip
    fp32, int8 = gather.board({"r": Run(scalars=scalars)}, NOW_S).entries
    assert with_ratios([fp32, msgspec.structs.replace(int8, ratios={}, aurora=None)])[1] == int8


# -- TensorBoard ----------------------------------------------------------------------------------


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """TensorBoard's own application around the plug-in."""
    feed(tmp_path / "run", fake_result())
    context = TBContext(data_provider=slow_provider(tmp_path))
    made = plugin.Loader().load(context)
    assert made is not None
    return Client(application.TensorBoardWSGI([made], data_provider=context.data_provider))


def test_the_board_is_json_with_a_token_that_saves_sending_it_twice(client: Client) -> None:
    first = client.get("/data/plugin/compression/board")
    assert first.status_code == 200 and first.mimetype == "application/json"
    assert first.json is not None
    assert set(first.json["metrics"]) == set(METRICS)
    assert len(first.json["board"]["entries"]) == 1
    token = first.json["token"]
    again = client.get(f"/data/plugin/compression/board?token={token}")
    assert again.json == {"token": token}
    other = client.get("/data/plugin/compression/board?token=older")
    assert other.json == first.json


def test_every_file_of_the_page_is_served_with_its_type(client: Client) -> None:
    for name in assets.PAGE:
        answer = client.get(f"/data/plugin/compression/{name}")
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert (answer.status_code, answer.mimetype) == (200, kind), name
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.data == (STATIC / name).read_bytes()


@pytest.mark.parametrize("path", ["../plugin.py", "vendor/README.md", "%2e%2e/plugin.py", "x.js"])
def test_nothing_else_is_served(client: Client, path: str) -> None:
    assert client.get(f"/data/plugin/compression/{path}").status_code == 404


def test_the_page_is_every_module_that_there_is() -> None:
    modules = {path.name for path in STATIC.iterdir() if path.is_file()}
    assert {name for name in assets.PAGE if "/" not in name} == modules
    for path in STATIC.glob("*.js"):
        for imported in re.findall(r'from "\./([\w.]+)"', path.read_text()):
            assert imported in modules, path.name


def test_no_module_parses_text_as_html_or_code() -> None:
    for path in STATIC.glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://",
            path.read_text(),
        )
        assert not found, path.name


def test_the_library_is_the_one_that_its_readme_says() -> None:
    vendor = STATIC / "vendor"
    digest = hashlib.sha256((vendor / "echarts.min.js").read_bytes()).hexdigest()
    readme = (vendor / "README.md").read_text()
    assert digest in readme
    for licence in re.findall(r"`((?:LICENSE|NOTICE)-\w+)`", readme):
        assert (vendor / licence).stat().st_size > 100, licence


def test_the_tab_is_active_only_where_there_is_something(tmp_path: Path, client: Client) -> None:
    listing = client.get("/data/plugins_listing").json["compression"]
    assert listing["enabled"] and listing["tab_name"] == "COMPRESSION"
    assert listing["loading_mechanism"]["module_path"] == "/data/plugin/compression/index.js"
    (tmp_path / "empty").mkdir()
    made = plugin.Loader().load(TBContext(data_provider=slow_provider(tmp_path / "empty")))
    assert made is not None and not made.is_active()


def test_a_failure_to_load_costs_the_tab_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugin.Loader().load(TBContext()) is None  # no data provider
    monkeypatch.setattr(assets, "PAGE", ("gone.js",))
    assert plugin.Loader().load(TBContext(data_provider=slow_provider(Path("nowhere")))) is None


def test_the_histogram_of_a_whole_run_is_the_sum_of_its_moments() -> None:
    from harness.stats.histogram import Distribution, histogram_fields

    random = np.random.default_rng(0)
    batches = [random.lognormal(0, 0.3, 500) for _ in range(4)]
    distribution = Distribution()
    for batch in batches:
        distribution.add(batch.tolist())
    distribution.add([])
    whole = histogram_fields(np.concatenate(batches).tolist(), math.inf)
    found = distribution.fields()
    assert found is not None
    # but for the tail beyond the 99.9th percentile, which shares the last bin
    counts, kept = whole["bucket_counts"], len(found["bucket_counts"])
    assert found["bucket_limits"] == pytest.approx(whole["bucket_limits"][:kept])
    assert found["bucket_counts"][:-1] == counts[: kept - 1]
    assert found["bucket_counts"][-1] == sum(counts[kept - 1 :]) and sum(counts[kept:]) <= 2
    assert found["num"] == 2000 and found["sum"] == pytest.approx(whole["sum"])
    assert Distribution().fields() is None


def test_precisions_compare_with_the_reference_that_their_writer_named(tmp_path: Path) -> None:
    half, quarter = {"accuracy": 0.8, "latency_ms": 4.0}, {"accuracy": 0.8, "latency_ms": 2.0}
    with CompressionWriter(tmp_path) as writer:
        writer.log_compression_comparison("net", half, quarter, precisions=("fp16", "int4"))
    fp16, int4 = read(tmp_path).entries
    assert (int4.reference, int4.ratios["speedup"]) == ("fp16", pytest.approx(2.0))
    assert fp16.reference is None and fp16.ratios == {}


def test_metadata_that_cannot_be_read_is_noted() -> None:
    scalars = {"m/latency/int8": 1.0}
    runs = {
        f"run {index:02}": Run(scalars=scalars, texts={"m/metadata/info": text})
        for index, text in enumerate(["```json\n{\n```", *["no JSON"] * 6, '{"model": "m"}'])
    }
    notes = gather.board(runs, 0.0).notes
    assert len(notes) == 6 and notes[0].startswith("run 00: the metadata is no JSON object")
    assert notes[-1] == "and 2 more such runs"


def test_percentages_stand_beside_shares_and_a_mixture_has_no_ratio() -> None:
    def at(accuracies: dict[str, float], model: str) -> Run:
        return Run(scalars={f"{model}/accuracy/{p}": value for p, value in accuracies.items()})

    runs = {
        "percent": at({"fp32": 80.0, "int8": 76.0}, "percent"),
        "mixed": at({"fp32": 80.0, "int8": 0.76}, "mixed"),
    }
    mixed, percent = (
        entry for entry in gather.board(runs, 0.0).entries if entry.precision == "int8"
    )
    assert percent.figures["accuracy"].value == mixed.figures["accuracy"].value == 0.76
    assert percent.ratios["accuracy_drop"] == pytest.approx(0.04)
    assert percent.ratios["accuracy_retention_pct"] == pytest.approx(95.0)
    assert mixed.ratios == {}
    assert mixed.missing["aurora"] == (
        "accuracies of 80 and 0.76; is one a share and one a percentage?"
    )


def test_a_zero_that_nothing_measures_is_missing() -> None:
    runs = {"r": Run(scalars={"m/latency/int8": 0.0, "m/gpu_memory/int8": 0.0})}
    (entry,) = gather.board(runs, 0.0).entries
    assert entry.figures == {"gpu_memory_mb": Figure(0.0)}
    assert entry.missing["latency_ms"] == "the event file holds 0, which is no measurement"
