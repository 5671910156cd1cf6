"""``harness verify``: figures made again from the data, and files held against their hashes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from test_assemble import result_of
from test_energy import READS, counter

from harness.analysis.held import Figure
from harness.analysis.recompute import recompute
from harness.cli.main import main
from harness.maybe import Unavailable
from harness.records.samples import Samples
from harness.records.sealed import MOST_BYTES, digests, read_series

STORED = Path(__file__).parents[2] / "data" / "stored" / "results"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two launches that an earlier version wrote, sealed as it would be today."""
    (source,) = STORED.glob("*-int8-928a4a")
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    _edit(folder, lambda raw: raw.update(sha256=digests(folder, raw["artifacts"])))
    return folder


def _edit(folder: Path, change: Change) -> None:
    path = folder / "result.json"
    raw = json.loads(path.read_bytes())
    change(raw)
    path.write_text(json.dumps(raw))


def verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["verify", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "harness.verification/1"
    (one,) = found["runs"]
    return code, one


def states(found: dict[str, Any], state: str) -> set[str]:
    return {one["figure"] for one in found["figures"] if one["state"] == state}


def test_a_run_as_it_was_written_agrees(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(run, capsys)
    assert (code, found["verdict"], found["differ"]) == (0, "agrees", 0)
    agrees = states(found, "agrees")
    assert {
        "timing.latency_ms.median", "timing.latency_ms.p99", "timing.latency_ms.ci95.median",
        "timing.iterations", "timing.drift", "timing.launches.1.mean_ms",
        "throughput.inferences_per_s", "throughput.ci95", "accuracy.top1", "precision.size_ratio",
    } <= agrees  # fmt: skip
    assert any(name.startswith("profiles.channels.") for name in agrees)
    unknown = {one["figure"]: one["why"] for one in found["figures"] if one["why"]}
    assert "high-water mark" in unknown["memory.window_peak_bytes"]
    assert {one["state"] for one in found["files"]} <= {"same", "missing"}
    assert main(["verify", str(run)]) == 0
    assert ": agrees; figures: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        (
            "timing.latency_ms.median",
            lambda raw: raw["timing"]["latency_ms"].update(median=0.001),
        ),
        ("timing.iterations", lambda raw: raw["timing"].update(iterations=7)),
        ("throughput.inferences_per_s", lambda raw: raw["throughput"].update(inferences_per_s=1e9)),
        (
            "timing.launches.0.median_ms",
            lambda raw: raw["timing"]["launches"][0].update(median_ms=1),
        ),
        ("accuracy.top1", lambda raw: raw["accuracy"].update(top1=1.0)),
        ("precision.size_ratio", lambda raw: raw["precision"].update(size_ratio=10.0)),
    ],
)
def test_a_figure_that_was_changed_differs(
    run: Path, capsys: pytest.CaptureFixture[str], figure: str, change: Change
) -> None:
    _edit(run, change)
    code, found = verify(run, capsys)
    assert (code, found["verdict"]) == (1, "differs")
    assert states(found, "differs") == {figure}


def test_a_launch_that_was_cut_out_differs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit(run, lambda raw: raw["timing"]["launches"].pop())
    code, found = verify(run, capsys)
    assert code == 1 and "timing.launches.1.iterations" in states(found, "differs")


def test_samples_of_another_run_are_found_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(run / "samples.npz") as packed:
        columns = {name: packed[name] for name in packed.files}
    columns["end_ns"] = columns["end_ns"] - (columns["end_ns"] - columns["start_ns"]) // 2
    np.savez_compressed(run / "samples.npz", **columns)
    code, found = verify(run, capsys)
    assert code == 1 and "timing.latency_ms.median" in states(found, "differs")
    files = {one["file"]: one for one in found["files"]}
    assert files["samples.npz"]["state"] == "changed"
    assert files["samples.npz"]["recorded"] != files["samples.npz"]["found"]
    assert files["series.npz"]["state"] == "same"


@pytest.mark.parametrize("what", ["gone", "damaged", "a link", "a pipe", "nonsense"])
def test_samples_that_cannot_be_read_leave_the_figures_open(
    run: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = run / "samples.npz"
    moved = path.rename(run.parent / "elsewhere.npz")
    if what == "damaged":
        path.write_bytes(moved.read_bytes()[:-100])
    elif what == "a link":
        path.symlink_to(moved)
    elif what == "a pipe":
        os.mkfifo(run / "series-9.npz")
        _edit(run, lambda raw: raw["sha256"].update({"series-9.npz": "0" * 64, "../x": "0" * 64}))
    elif what == "nonsense":
        ones = np.ones(3, dtype=np.int64)
        np.savez(path, launch=ones - 1, stream=ones, timed=ones, start_ns=ones, end_ns=ones)
    code, found = verify(run, capsys)
    assert (code, found["verdict"]) == (1, "differs")
    open_ones = {one["figure"]: one for one in found["figures"]}
    median = open_ones["timing.latency_ms.median"]
    if what != "a link":  # whose content is right, and which is not the run's file
        assert median["state"] == "not recomputed" and median["why"]
    states_of = {one["file"]: one["state"] for one in found["files"]}
    assert states_of["samples.npz"] == (
        "missing" if what in ("gone", "a link", "a pipe") else "changed"
    )
    if what == "a pipe":
        assert states_of["series-9.npz"] == states_of["../x"] == "missing"


def test_a_result_of_before_there_were_hashes_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(run, lambda raw: raw.pop("sha256"))
    code, found = verify(run, capsys)
    assert code == 0
    assert "not recorded" in {one["state"] for one in found["files"]}


def test_a_result_that_was_kept_alone_is_no_theft(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a baseline keeps it."""
    for path in run.iterdir():
        if path.name != "result.json":
            path.unlink()
    code, found = verify(run, capsys)
    assert (code, found["verdict"], found["differ"]) == (0, "nothing recomputed", 0)
    assert {one["state"] for one in found["files"]} == {"not kept"}
    assert main(["verify", str(run)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "samples.npz" in shown and "nobody kept them with the result" in shown


def test_readings_that_an_unsealed_run_did_not_keep_are_no_theft(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(run, lambda raw: raw.update(sha256={}))
    (run / "series.npz").unlink()
    code, found = verify(run, capsys)
    assert (code, found["verdict"], found["differ"]) == (0, "agrees", 0)
    states_of = {one["file"]: one["state"] for one in found["files"]}
    assert states_of["series.npz"] == "not kept"


def test_what_is_no_run_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_of_readings_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_BYTES > 1e9
    monkeypatch.setattr("harness.records.sealed.MOST_BYTES", 1000)
    np.savez_compressed(tmp_path / "series.npz", wall_ns=np.zeros((1000, 2), np.int64))
    found = read_series(tmp_path, 0)
    assert isinstance(found, Unavailable) and "unpacks to more" in found.reason


# --- energy -----------------------------------------------------------------------------------


def _energy_figures(
    scale: float, *, lose: str = "", before: bool = False, **changes: Any
) -> dict[str, Figure]:
    """Two sockets at 100 and 50 W; ``scale`` is of what the second's readings say later.

    ``before``: as results were that do not name the counter of a meter.
    """
    readings = [counter(**changes), counter("energy/package-1_j", scale=0.5)]
    run = result_of(readings)
    if before:
        sources = {
            name: msgspec.structs.replace(source, counted_by="")
            for name, source in run.energy.sources.items()
        }
        run = msgspec.structs.replace(
            run, energy=msgspec.structs.replace(run.energy, sources=sources)
        )
    times = np.array([round(at_s * 1e9) for at_s in READS])
    kept = {one.channel.name: (times, np.array(one.values, float)) for one in readings}
    second = kept["energy/package-1_j"]
    kept["energy/package-1_j"] = (second[0], second[1] * scale)
    kept.pop(lose, None)
    none = Unavailable("no samples")
    assert {one.state for one in recompute(run, none, [kept])} <= {"agrees", "not recomputed"}
    window = np.array([12, 20], dtype=np.int64) * 1_000_000_000
    timed = np.linspace(*window, 801).astype(np.int64)
    ones = np.ones(800, dtype=np.int64)
    samples = Samples(ones * 0, ones * 0, ones, timed[:-1], timed[1:])
    return {one.figure: one for one in recompute(run, samples, [kept])}


def test_the_joules_of_counters_are_recomputed_part_by_part() -> None:
    found = _energy_figures(1.0)
    total = found["energy.sources.test-total.energy_j.value"]
    assert total.state == "agrees" and total.recomputed == pytest.approx(1200.0)
    assert found["energy.joules_per_inference.value"].state == "agrees"
    wrong = _energy_figures(0.9)
    assert wrong["energy.sources.test-total.energy_j.value"].state == "differs"
    assert wrong["energy.sources.package-0.energy_j.value"].state == "agrees"
    lost = _energy_figures(1.0, lose="energy/package-1_j")
    assert lost["energy.sources.test-total.energy_j.value"].state == "not recomputed"
    assert msgspec.json.encode(list(lost.values()))


def test_a_counter_is_found_by_what_it_is_and_not_by_its_name() -> None:
    """Another's profiler calls its channels as it likes, and says which meter they are of."""
    named: list[dict[str, Any]] = [
        {"name": "rack.7/total_j", "meter": "north"},
        {"name": "j", "meter": "rack/7"},
    ]
    for changes in named:
        found = _energy_figures(1.0, **changes)
        own = found[f"energy.sources.{changes['meter']}.energy_j.value"]
        assert (own.state, own.recomputed) == ("agrees", pytest.approx(800.0))
        assert found["energy.sources.test-total.energy_j.value"].state == "agrees"
    assert {one.figure: one.state for one in _energy_figures(1.0, before=True).values()} == {
        one.figure: one.state for one in _energy_figures(1.0).values()
    }
