"""What TensorBoard's own readers find in the events of a run."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context
from tensorboard.plugins.hparams.list_session_groups import Handler
from test_store import file_size_limit

from harness.maybe import Unavailable
from harness.protocols import Progress
from harness.records.figures import single
from harness.stats.histogram import histogram_fields
from harness.tensorboard.live import HEADLINES, TensorBoardSink
from harness.testing.results import fake_failure, fake_result
from harness.views.markdown import render_markdown

LATENCIES = [(1.0, 1.004, 1.02, 9.5), (1.01, 1.02, 1.03)]


def progress(second: float, **fields: object) -> Progress:
    values: dict[str, object] = {
        "phase": "window", "launch": 0, "launches": 1, "elapsed_s": second, "remaining_s": None,
        "iterations": 10, "wall_time_s": 1_800_000_000 + second,
    }  # fmt: skip
    return Progress(**values | fields)  # type: ignore[arg-type]


def feed(folder: Path, result=None) -> TensorBoardSink:
    folder.mkdir(exist_ok=True, parents=True)
    sink = TensorBoardSink(folder, fake_result().spec)
    sink.update(progress(0.0, phase="load", readings={"memory/rss_bytes": 1e6}))
    sink.update(progress(0.5, phase="warm-up", median_ms=3.0, throughput_per_s=333.0))
    sink.update(
        progress(1.25, median_ms=1.5, throughput_per_s=650.0, new_latencies_ms=LATENCIES[0])
    )
    sink.update(
        progress(
            1.75, median_ms=1.25, throughput_per_s=800.0, new_latencies_ms=LATENCIES[1],
            readings={"memory/rss_bytes": 2e6, "utilization/worker_cpu_percent": 99.5},
        )
    )  # fmt: skip
    sink.close(result)
    return sink


def read(folder: Path) -> EventAccumulator:
    everything = dict.fromkeys(("scalars", "histograms", "tensors", "compressedHistograms"), 0)
    accumulator = EventAccumulator(str(folder), size_guidance=everything)
    accumulator.Reload()
    return accumulator


def test_live_tags_carry_values_steps_and_wall_times(tmp_path: Path) -> None:
    feed(tmp_path)
    events = read(tmp_path)
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        "latency/median_ms", "throughput/per_s", "memory/rss_bytes",
        "utilization/worker_cpu_percent",
    }  # fmt: skip
    assert tags["histograms"] == ["latency/ms"]
    medians = [(e.step, e.wall_time, e.value) for e in events.Scalars("latency/median_ms")]
    assert medians == [(1250, 1_800_000_001.25, 1.5), (1750, 1_800_000_001.75, 1.25)]
    rss = [(e.step, e.value) for e in events.Scalars("memory/rss_bytes")]
    assert rss == [(1750, 2e6)]  # none while the model loads


def test_a_live_histogram_holds_every_latency(tmp_path: Path) -> None:
    feed(tmp_path)
    for event, latencies in zip(read(tmp_path).Histograms("latency/ms"), LATENCIES, strict=True):
        found = event.histogram_value
        assert (found.min, found.max, found.num) == (min(latencies), max(latencies), len(latencies))
        assert found.sum == pytest.approx(sum(latencies), rel=1e-12)
        assert sum(found.bucket) == len(latencies)


def test_the_headlines_equal_the_result(tmp_path: Path) -> None:
    result = fake_result()
    feed(tmp_path, result)
    events = read(tmp_path)
    absent = {"latency/p99_9_ms", "latency/device_median_ms"}  # unavailable in this result
    absent |= {tag for tag in HEADLINES if tag.startswith("server/")}  # it had no schedule
    assert set(HEADLINES) - set(events.Tags()["scalars"]) == absent
    for tag in set(HEADLINES) - absent:
        assert events.Scalars(tag)[-1].value == np.float32(single(result, HEADLINES[tag])), tag


def test_every_headline_is_a_place_in_a_result() -> None:
    for tag, name in HEADLINES.items():
        value = single(fake_result(), name)
        assert isinstance(value, int | float | Unavailable), tag


def test_a_failed_run_writes_no_headline_and_no_session(tmp_path: Path) -> None:
    feed(tmp_path, fake_failure())
    tags = read(tmp_path).Tags()
    assert not set(tags["scalars"]) & (set(HEADLINES) - {"latency/median_ms", "throughput/per_s"})
    assert tags["tensors"] == ["digits/metadata/info", "summary"]


def test_the_summary_is_the_markdown_table(tmp_path: Path) -> None:
    feed(tmp_path, fake_result())
    (event,) = read(tmp_path).Tensors("summary")
    assert event.tensor_proto.string_val[0].decode() == render_markdown(fake_result())


def sessions(logdir: Path) -> list[api_pb2.SessionGroup]:
    """What the HPARAMS tab shows for a log folder."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(TBContext(data_provider=provider))
    request, caller = RequestContext(), ""
    metadata = context.hparams_metadata(request, caller)
    nothing = context.hparams_from_data_provider(request, caller, limit=0)
    experiment = context.experiment_from_metadata(request, caller, True, metadata, nothing)
    columns = [
        api_pb2.ColParams(metric=info.name, include_in_result=True)
        for info in experiment.metric_infos
    ]
    columns += [
        api_pb2.ColParams(hparam=info.name, include_in_result=True)
        for info in experiment.hparam_infos
    ]
    wanted = api_pb2.ListSessionGroupsRequest(
        col_params=columns, start_index=0, slice_size=100, include_metrics=True,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
    )  # fmt: skip
    return list(Handler(request, context, caller, wanted).run().session_groups)


def test_the_hparams_tab_shows_one_row_per_run_in_its_own_folder(tmp_path: Path) -> None:
    bare = fake_result(energy=Unavailable("no meter"), id="first")
    feed(tmp_path / "20260101T000000Z-first", bare)  # lacks a metric, and is read first
    feed(tmp_path / "20260102T000000Z-second", fake_result())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "20260101T000000Z-first", "20260102T000000Z-second",
    ]  # fmt: skip
    for folder in tmp_path.iterdir():
        assert [path.name[:20] for path in folder.iterdir()] == ["events.out.tfevents."]
    rows = {group.sessions[0].name: group for group in sessions(tmp_path)}
    assert set(rows) == {"20260101T000000Z-first", "20260102T000000Z-second"}
    second = rows["20260102T000000Z-second"]
    hparams = {name: value.string_value or value.number_value for name, value in
               second.hparams.items()}  # fmt: skip
    assert hparams == {
        "model": "digits", "backend": "onnxruntime", "device": "cpu", "precision": "int8",
        "scenario": "latency", "boundary": "compute", "batch_size": 1.0, "concurrency": 1.0,
        "threads": "default", "status": "degraded", "quantization": "static",
        "calibration_method": "minmax",
    }  # fmt: skip
    metrics = {value.name.tag: value.value for value in second.metric_values}
    assert metrics["energy/joules_per_inference"] == np.float32(0.0001875)
    assert metrics["latency/median_ms"] == np.float32(0.1236)
    first = {value.name.tag for value in rows["20260101T000000Z-first"].metric_values}
    assert set(metrics) - first == {"energy/joules_per_inference"}


def test_steps_grow_even_when_the_wall_clock_is_set_back(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, fake_result().spec)
    for second in (0.0, 10.0, 3.0, 4.0):
        sink.update(progress(second, median_ms=1.0))
    sink.close(None)
    steps = [event.step for event in read(tmp_path).Scalars("latency/median_ms")]
    assert steps == [0, 10_000, 10_001, 10_002]


def test_events_can_be_read_while_the_run_goes(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, fake_result().spec)
    for second in range(3):
        sink.update(progress(second, median_ms=1.0 + second))
        assert read(tmp_path).Scalars("latency/median_ms")[-1].value == 1.0 + second
    sink.close(None)


@pytest.mark.parametrize("median", [2e-4, 0.05, 1.0, 37.5, 90_000.0])
def test_bins_are_one_percent_wide_and_cover_the_tail(median: float) -> None:
    random = np.random.default_rng(0)
    latencies = median * np.concatenate([random.lognormal(0, 0.02, 5_000), [40.0, 3_000.0]])
    found = histogram_fields(latencies, math.inf)
    limits, counts = found["bucket_limits"], found["bucket_counts"]
    assert len(limits) == len(counts) < 60
    assert sum(counts) == 5_002
    for low, high, count in zip(limits, limits[1:], counts[1:], strict=False):
        # the bin holds what numpy counts in it, and is 1 % wide unless it is empty
        inside = np.count_nonzero((latencies >= low * (1 + 1e-9)) & (latencies < high))
        assert count == pytest.approx(inside, abs=2)
        assert count == 0 or high / low == pytest.approx(1.01)
    assert limits[0] <= latencies.min() and limits[-1] >= latencies.max()


def test_what_is_far_out_shares_the_last_bin() -> None:
    latencies = [1.0] * 98 + [50.0, 900.0]
    found = histogram_fields(latencies, cut_ms=3.0)
    assert found["max"] == 3.0
    assert found["sum"] == sum(latencies) and found["num"] == 100
    assert found["bucket_limits"][-1] == pytest.approx(3.0, rel=0.011)
    assert found["bucket_counts"][-1] == 2


def test_a_shift_of_many_iterations_is_not_cut_away() -> None:
    found = histogram_fields([1.0] * 90 + [50.0] * 10, cut_ms=3.0)
    assert found["max"] == 50.0


def test_a_latency_of_zero_has_a_bin() -> None:
    found = histogram_fields([0.0, 1.0], 3.0)
    assert found["min"] == 0.0 and sum(found["bucket_counts"]) == 2
    assert all(map(math.isfinite, found["bucket_limits"]))


def test_a_full_disk_ends_the_feed(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, fake_result().spec)
    sink.update(progress(0.0, median_ms=1.0))
    with file_size_limit(2_000):
        for second in range(1, 200):
            sink.update(progress(second, median_ms=1.0))
        sink.close(fake_result())
    assert sink.problem is not None and "File too large" in sink.problem
    assert read(tmp_path).Scalars("latency/median_ms")[0].value == 1.0


def test_a_vanished_folder_ends_the_feed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    sink = TensorBoardSink(folder, fake_result().spec)
    sink.update(progress(0.0))
    shutil.rmtree(folder)
    sink.update(progress(1.0, median_ms=1.0))
    assert sink.problem is not None and "is gone" in sink.problem
    sink.close(fake_result())
    assert not folder.exists()


def test_a_folder_that_never_was_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path / "nowhere", fake_result().spec)
    sink.update(progress(0.0))
    sink.close(None)
    assert sink.problem is not None and not (tmp_path / "nowhere").exists()


def test_the_feed_leaves_torch_unimported_and_importable(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed, so nothing would import it")
    code = (
        "import importlib.util, pathlib, sys\n"
        "from harness.protocols import Progress\n"
        "from harness.tensorboard.live import TensorBoardSink\n"
        "from harness.spec import RunSpec\n"
        "assert 'tensorboardX' not in sys.modules and 'numpy' not in sys.modules\n"
        "sink = TensorBoardSink(pathlib.Path(sys.argv[1]), RunSpec())\n"
        "sink.update(Progress('warm-up', 0, 1, 0.0, None, 0, wall_time_s=1.0))\n"
        "assert sink.problem is None, sink.problem\n"
        "assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules\n"
        "assert importlib.util.find_spec('torch') is not None\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_launch_is_a_step_of_its_own_histogram(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, fake_result().spec)
    for launch in range(3):
        times = [1.0 + launch] * 10
        sink.update(progress(float(launch), launch=launch, median_ms=1.0, new_latencies_ms=times))
    sink.close(fake_result())
    found = read(tmp_path).Histograms("digits/latency_by_launch/int8")
    assert [(one.step, one.histogram_value.num) for one in found] == [(1, 10), (2, 10), (3, 10)]


def test_the_tail_shares_the_last_bin_of_the_distribution(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, fake_result().spec)
    times = [1.0] * 9_995 + [900.0] * 5
    sink.update(progress(0.0, median_ms=1.0, new_latencies_ms=times))
    sink.close(fake_result())
    (found,) = read(tmp_path).Histograms("digits/latency_distribution/int8")
    value = found.histogram_value
    assert value.num == 10_000 and value.sum == pytest.approx(9_995 + 4_500)
    assert value.bucket_limit[-1] < 1.02 and sum(value.bucket) == 10_000
