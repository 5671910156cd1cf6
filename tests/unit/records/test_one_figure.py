"""One figure has one value, wherever it is read: JSON, index, compare, board, TensorBoard, exports.

Results are drawn at random, with launches that disagree, so that two estimators of one name differ.
"""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import made
from test_assemble import evidence, launch, result_of
from test_energy import SECOND, counter

from harness.analysis.throughput import launch_rate
from harness.compare.gate.limits import absolute_limits
from harness.compare.match import matched
from harness.compare.policy import parse_policy
from harness.compare.sides import Side, measured
from harness.compare.verdicts import MetricVerdict, Settings, drafts, judge_all
from harness.compression.entries import entry_of
from harness.engine.driver.recorder import Recorder
from harness.engine.outcome.assemble import assemble
from harness.engine.wire.timeline import Timeline
from harness.exports.csv import export as csv_of
from harness.exports.junit import export as junit_of
from harness.exports.markdown import export as markdown_of
from harness.exports.pytest_benchmark.document import export as benchmarks_of
from harness.maybe import Maybe, Unavailable
from harness.records.figures import figures, single, value
from harness.records.index.figures import NAMES, read_figures
from harness.records.metric import FIGURES, METRICS
from harness.records.result import NOT_KEPT, LatencyStats, Launch, Result
from harness.tensorboard.live import HEADLINES, headline_values
from harness.testing.results import fake_result
from harness.views.text import rows

ABSENT = Unavailable("too few iterations", "measure longer")
HEADLINE_OF = {
    "latency_median": "latency/median_ms",
    "latency_mean": "latency/mean_ms",
    "latency_std": "latency/std_ms",
    "latency_min": "latency/min_ms",
    "latency_max": "latency/max_ms",
    "latency_p90": "latency/p90_ms",
    "latency_p95": "latency/p95_ms",
    "latency_p99": "latency/p99_ms",
    "latency_p99_9": "latency/p99_9_ms",
    "device_median": "latency/device_median_ms",
    "throughput": "throughput/per_s",
    "capacity": "server/capacity_per_s",
    "waiting_p99": "server/waiting_p99_ms",
    "utilization": "server/utilization",
    "queue_mean": "server/queue",
    "offered_rate": "server/offered_per_s",
    "energy_per_inference": "energy/joules_per_inference",
    "memory_peak": "memory/peak_bytes",
    "file_size": "model/size_bytes",
    "size_ratio": "model/size_ratio",
    "top1": "accuracy/top1",
    "f1": "accuracy/macro_f1",
    "cosine": "fidelity/cosine",
    "sqnr": "fidelity/sqnr_db",
    "top1_agreement": "fidelity/top1_agreement",
}
# the board's name, and its unit in ours
BOARD_OF = {
    "latency_median": ("latency_ms", 1.0),
    "latency_std": ("latency_std_ms", 1.0),
    "throughput": ("throughput_per_s", 1.0),
    "energy_per_inference": ("energy_j", 1.0),
    "memory_peak": ("memory_mb", 1e6),
    "device_memory_peak": ("gpu_memory_mb", 1e6),
    "file_size": ("model_size_mb", 1e6),
    "top1": ("accuracy", 1.0),
    "f1": ("f1_score", 1.0),
}

_positive = st.floats(1e-3, 1e6)
_bytes = st.integers(1, 1 << 40)


def _or_absent(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, st.just(ABSENT))


def _stats(base: LatencyStats) -> st.SearchStrategy[LatencyStats]:
    tails = {name: _or_absent(_positive) for name in ("p90", "p95", "p99", "p99_9")}
    changed = st.fixed_dictionaries({"median": _positive, "mean": _positive, **tails})
    return changed.map(lambda found: msgspec.structs.replace(base, **found))


def _launches(base: Launch) -> st.SearchStrategy[Launch]:
    names = (
        "mean_ms", "p90_ms", "p95_ms", "p99_ms", "device_median_ms", "joules_per_inference",
        "average_power_w", "inferences_per_s",
    )  # fmt: skip
    fields = {name: _or_absent(_positive) for name in names}
    fields |= {"memory_peak_bytes": _or_absent(_bytes)}
    fields |= {"device_memory_peak_bytes": _or_absent(_bytes)}
    fields |= dict.fromkeys(("median_ms", "first_inference_ms", "load_s"), _positive)
    return st.fixed_dictionaries(fields).map(lambda f: msgspec.structs.replace(base, **f))


@st.composite
def results(draw: st.DrawFn) -> Result:
    base = fake_result()
    replace = msgspec.structs.replace
    timing, energy, memory = base.timing, base.energy, base.memory
    assert not isinstance(timing, Unavailable)
    assert not isinstance(energy, Unavailable)
    assert not isinstance(memory, Unavailable)
    launches = draw(st.lists(_launches(timing.launches[0]), min_size=1, max_size=6))
    device = st.fixed_dictionaries(
        {},
        optional={
            "allocator_peak_bytes": _or_absent(_bytes),
            "process_bytes": _or_absent(_bytes),
        },
    )
    source = energy.sources["rapl-package"]
    spread = energy.joules_per_inference
    assert not isinstance(spread, Unavailable)
    joules: Maybe[Any] = draw(_or_absent(_positive.map(lambda j: replace(spread, value=j))))
    source = replace(source, average_power_w=draw(_or_absent(_positive)))
    throughput = replace(base.throughput, inferences_per_s=draw(_positive))
    return replace(
        base,
        spec=replace(base.spec, device=draw(st.sampled_from(["cpu", "cuda"])), concurrency=4),
        timing=replace(
            timing,
            launches=tuple(launches),
            latency_ms=draw(_stats(timing.latency_ms)),
            device_ms=draw(_or_absent(_stats(timing.latency_ms))),
        ),
        throughput=draw(_or_absent(st.just(throughput))),
        energy=draw(
            _or_absent(
                st.just(
                    replace(energy, joules_per_inference=joules, sources={energy.primary: source})
                )
            )
        ),
        memory=replace(
            memory, window_peak_bytes=draw(_or_absent(_bytes)), device=draw(_or_absent(device))
        ),
    )


def _same(found: float | None, whole: Maybe[float]) -> bool:
    if isinstance(whole, Unavailable):
        return found is None
    return found is not None and math.isclose(found, whole, rel_tol=1e-12)


def _compared(a: Result, b: Result) -> dict[str, MetricVerdict]:
    match = matched(Side((a,)), Side((b,)))
    every = Settings(metrics=tuple(METRICS))
    return {row.metric: row for row in judge_all(drafts(match, every), every.alpha)}


@given(results())
@settings(max_examples=60, deadline=None)
def test_a_figure_of_a_run_has_one_value_everywhere(
    tmp_path_factory: pytest.TempPathFactory, run: Result
) -> None:
    file = tmp_path_factory.mktemp("run") / "result.json"
    file.write_bytes(msgspec.json.encode(run))
    indexed = dict(zip(NAMES, read_figures(str(file)).values, strict=True))
    lines = csv.DictReader(io.StringIO(csv_of([run], [file]).data.decode()))
    exported = {line["metric"]: float(line["value"]) if line["value"] else None for line in lines}
    cases = {case.get("name", "").split()[-1]: case for case in _junit(run, file)}
    blocks = json.loads(benchmarks_of([run], [file]).data)["benchmarks"]
    extra = blocks[0]["extra_info"]["figures"]
    entry, tags, against = entry_of(run), headline_values(run), _compared(run, run)
    for name in FIGURES:
        whole = single(run, name)
        if name in HEADLINE_OF:
            assert _same(tags.get(HEADLINE_OF[name]), whole), name
        if name in BOARD_OF:
            field, unit = BOARD_OF[name]
            shown = entry.figures.get(field)
            assert _same(None if shown is None else shown.value * unit, whole), name
    assert _same(indexed["accuracy_f1"], single(run, "f1"))
    for name in METRICS:
        whole = single(run, name)
        assert measured([run], name).value == whole == value([run], name)
        assert _same(indexed[name], whole), name
        assert _same(exported[name], whole), name
        if name in cases:
            assert _same(_property(cases[name]), whole), name
            assert (cases[name].find("skipped") is not None) == isinstance(whole, Unavailable)
        if name in extra:
            assert _same(extra[name]["value"], whole), name
        assert (name in against) == (not isinstance(whole, Unavailable)), name
        if name in against:
            assert against[name].a == against[name].b == whole
            assert against[name].ratio == 1.0, name
        if isinstance(whole, Unavailable):
            assert isinstance(figures([run], name), Unavailable), name
            assert not any(block["fullname"].endswith(f"::{name}") for block in blocks)


def test_every_figure_has_the_tag_and_the_column_that_are_pinned_here() -> None:
    assert {one.name: one.headline for one in FIGURES.values() if one.headline} == HEADLINE_OF
    assert set(HEADLINES) == set(HEADLINE_OF.values())
    columns = {one.name: one for one in FIGURES.values() if one.column}
    assert {name: (m.column, m.column_divisor) for name, m in columns.items()} == BOARD_OF


def _junit(run: Result, file: Path) -> list[ET.Element]:
    return list(ET.fromstring(junit_of([run], [file]).data).iter("testcase"))


def _property(case: ET.Element) -> float | None:
    found = {one.get("name"): one.get("value") for one in case.iter("property")}
    text = found.get("value")
    return None if text is None else float(text)


def test_the_policy_limits_the_figure_that_is_shown() -> None:
    run = made([1.0, 1.0, 1.0, 1.0, 6.0])
    assert not isinstance(run.timing, Unavailable)
    stats = msgspec.structs.replace(run.timing.latency_ms, median=2.0)  # the mean of the launches
    run = msgspec.structs.replace(run, timing=msgspec.structs.replace(run.timing, latency_ms=stats))
    limit = {"limit": [{"cell": "*", "metric": "latency_median", "maximum": 1.5}]}
    (breach,) = absolute_limits({("k", "f"): Side((run,))}, parse_policy(limit))
    assert (breach.state, breach.message.split()[0]) == ("broken", "2")


# --- p99 that the result does not have --------------------------------------------------------


def _without_p99() -> Result:
    """Five launches, the last too short for a p99 of its own, so that the run has none."""
    run = made(1.0)
    timing = run.timing
    assert not isinstance(timing, Unavailable)
    short = msgspec.structs.replace(timing.launches[-1], p99_ms=ABSENT)
    stats = msgspec.structs.replace(timing.latency_ms, p99=ABSENT)
    return msgspec.structs.replace(
        run,
        timing=msgspec.structs.replace(
            timing, latency_ms=stats, launches=(*timing.launches[:-1], short)
        ),
    )


def test_a_p99_that_the_result_lacks_is_nowhere(tmp_path: Path) -> None:
    run, whole, file = _without_p99(), made(1.0), tmp_path / "result.json"
    line = next(
        one
        for one in csv.DictReader(io.StringIO(csv_of([run], [file]).data.decode()))
        if one["metric"] == "latency_p99"
    )
    assert (line["value"], line["absent"]) == ("", "too few iterations; measure longer")
    case = next(one for one in _junit(run, file) if one.get("name", "").endswith(" latency_p99"))
    assert case.find("skipped") is not None and _property(case) is None
    assert b"latency p99" not in markdown_of([run], [file]).data
    assert b"::latency_p99" not in benchmarks_of([run], [file]).data
    row = _compared(whole, run)["latency_p99"]
    assert (row.verdict, row.b) == ("not comparable", ABSENT)
    assert row.a == single(whole, "latency_p99") and isinstance(row.ratio, Unavailable)


def test_of_several_runs_one_without_the_figure_is_left_out_and_said() -> None:
    side = Side((made(1.0), _without_p99()))
    match = matched(Side((made(1.0),)), side)
    settings = Settings(metrics=("latency_p99",))
    (row,) = judge_all(drafts(match, settings), settings.alpha)
    assert row.launches == (5, 5)
    assert "B 1 of 2 runs have no figure" in row.doubt


# --- throughput over streams --------------------------------------------------------------------


def _stream(edges_s: list[float], timeline: Timeline, index: int) -> Recorder:
    stream = timeline.streams[index]
    for at, (start, end) in enumerate(pairwise(edges_s)):
        stream.starts[at], stream.ends[at] = round(start * SECOND), round(end * SECOND)
    stream.window_start, stream.window_end = 0, len(edges_s) - 1
    stream.written = len(edges_s) - 1
    recorder = Recorder(stream)
    recorder.drain()
    return recorder


def test_a_launch_and_its_run_have_one_throughput_over_streams() -> None:
    """Two streams; the second starts 0.25 s later and runs on alone for 1 s.

    Both run from 12.25 to 14 s: 7 iterations of a quarter second and 3 of a half end in it, not
    the 8 + 5 of the 3 s that the launch took.
    """
    timeline = Timeline.create(2, 64)
    quarter = [12.0 + 0.25 * step for step in range(9)]
    half = [12.25 + 0.5 * step for step in range(6)]
    record = launch((12 * SECOND, round(14.75 * SECOND)))
    record.recorders = [_stream(quarter, timeline, 0), _stream(half, timeline, 1)]
    timeline.close()
    run = assemble(evidence(None, record, concurrency=2, scenario="throughput", batch_size=2))
    assert not isinstance(run.timing, Unavailable) and not isinstance(run.throughput, Unavailable)
    assert run.throughput.inferences_per_s == pytest.approx(2 * 10 / 1.75)
    assert run.timing.launches[0].inferences_per_s == run.throughput.inferences_per_s
    assert figures([run], "throughput") == (run.throughput.inferences_per_s,)
    assert _compared(run, run)["throughput"].a == run.throughput.inferences_per_s


def test_files_that_do_not_say_it_of_a_launch() -> None:
    """Known of a single launch and of a single stream; of several of both it is not made up."""
    run = result_of([counter()])
    timing = run.timing
    assert not isinstance(timing, Unavailable)
    old = tuple(
        msgspec.structs.replace(one, inferences_per_s=NOT_KEPT) for one in timing.launches * 2
    )
    told = timing.launches[0].inferences_per_s
    twice = msgspec.structs.replace(run, timing=msgspec.structs.replace(timing, launches=old))
    assert figures([twice], "throughput") == pytest.approx((told, told))
    streams = msgspec.structs.replace(run.spec, concurrency=4)
    several = msgspec.structs.replace(twice, spec=streams)
    assert figures([several], "throughput") == NOT_KEPT
    alone = msgspec.structs.replace(timing, launches=old[:1])
    single_launch = msgspec.structs.replace(several, timing=alone)
    assert figures([single_launch], "throughput") == (single(run, "throughput"),)


def test_a_rate_is_of_inferences() -> None:
    ends = np.arange(1, 11, dtype=np.int64) * SECOND
    assert launch_rate([(ends - SECOND, ends)], 4) == pytest.approx(4.0)


def test_show_says_the_figures_of_compare() -> None:
    run = made([1.0, 1.0, 1.0, 1.0, 6.0])
    shown = {(row.section, row.name): row.value for row in rows(run)}
    assert shown["Throughput", ""] == "1000 /s"
    assert _compared(run, run)["throughput"].a == 1000.0
