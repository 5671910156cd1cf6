"""What a killed driver leaves becomes the result that it owed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_assemble import sampled
from test_energy import counter
from test_saving import recorded, run_of

from harness.cli.main import main
from harness.engine.driver.journal import Begun, Ready, RunJournal, Seen
from harness.engine.driver.recover import recover
from harness.engine.driver.saving import stretches
from harness.engine.outcome.assemble import assemble
from harness.engine.outcome.evidence import Evidence, Installed, LaunchRecord, TurnsTaken
from harness.engine.sampler.client import SamplerProcess
from harness.engine.wire.frames import Header, Opened, Reading, Tick
from harness.engine.wire.frames import pack as frame
from harness.engine.wire.messages import Looked, Verified
from harness.errors import ResultError, UsageError
from harness.host import scratch
from harness.maybe import Unavailable
from harness.models import Prepared
from harness.protocols import Artifact, Description, TensorSpec
from harness.records.result import Machine, ModelInfo, Result, Software
from harness.records.samples import SamplesJournal, read_rounds, read_samples
from harness.records.store import RunFolder, killed_runs, read_result

IMAGE = TensorSpec(name="x", dtype="float32", shape=(1, 4))
PREPARED = Prepared(
    model=ModelInfo(
        name="m", source="onnx", sha256="0" * 64, parameters=3, random_weights=False,
        inputs=(IMAGE,), outputs=(IMAGE,), input_data="drawn, seed 0", file_size_bytes=99,
    ),
    artifact=Artifact("onnx", "/m.onnx", "", "fp32", "0" * 64, 99, (IMAGE,), (IMAGE,)),
    reference=None, inputs_path="/i.npz", evaluation_path=None, evaluation_name="",
    evaluation_sha256="",
)  # fmt: skip
INSTALLED = Installed(
    software=Software(versions={"harness": "0.1"}, runtime={}, environment={}, commit="abc"),
    clock_cost_ms=5e-5,
)


def finished(launches: int, streams: int = 1) -> Evidence:
    """What a driver knows when all is measured, with a meter beside it."""
    found = run_of(*(recorded(400, streams) for _ in range(launches)), rate_hz=None)
    found.spec = msgspec.structs.replace(found.spec, concurrency=streams)
    found.machine = Machine(fingerprint="f", factors={"cpu": "c"}, context={})
    found.prepared, found.installed = PREPARED, INSTALLED
    found.samplers = [sampled([counter()]).sampled() for _ in range(launches)]
    for index, record in enumerate(found.launches):
        record.load_s, record.first_inference_ms = 0.25, 3.5 + index
        record.memory = {"imported": {"rss_bytes": 1e6}, "window": {"peak_bytes": 3e6}}
        record.facts = {"version": "1"}
    found.launches[0].verified = Verified(
        Description({"version": "1"}, {"MatMul": {"fp32": 1}}), Looked()
    )
    return found


def frames_of(sampler: SamplerProcess) -> bytes:
    """The frames of a sampler as `test_assemble.sampled` feeds them."""
    ((column,), times) = sampler._columns or [], sampler._ticks_ns
    sent = [frame(Header((Opened(column.name, column.channels, None),), 10.0))]
    for index, t_ns in enumerate(times):
        values = tuple(None if np.isnan(v[index]) else v[index] for v in column.values)
        sent.append(frame(Tick(t_ns, 0, None, (Reading(0, t_ns, values),))))
    return b"".join(sent)


def journalled(out: Path, found: Evidence, *, cut: bool = False) -> Path:
    """The folder as a driver leaves it that is killed before the result is written. ``cut``: in
    the window of the last launch."""
    folder = RunFolder.create(out, ("m", "b", "fp32"))
    found.id = folder.id
    journal = RunJournal(folder.path)
    journal.open()
    journal.append(
        Begun(id=found.id, started_at=found.started_at, began_ns=found.began_ns, spec=found.spec,
              placement=found.placement)
    )  # fmt: skip
    journal.append(Ready(prepared=PREPARED, machine=found.machine))
    journal.append(INSTALLED)
    for index, record in enumerate(found.launches):
        known = record
        if cut and index == len(found.launches) - 1:
            known = LaunchRecord(load_s=record.load_s, facts=record.facts)
        now_ns = time.perf_counter_ns()
        journal.append(Seen.of(known, launch=index, doing="verifying", at_ns=now_ns, lost=None))
        name = f"series{f'-{index}' if index else ''}.journal"
        (folder.path / name).write_bytes(frames_of(sampled([counter()])))
    samples = SamplesJournal(folder.path)
    for one in stretches(found):
        samples.append(one.launch, one.start_ns, one.end_ns, stream=one.stream, timed=one.timed)
    samples.close()
    journal.close()
    return folder.path


@pytest.mark.parametrize(("launches", "streams"), [(1, 1), (1, 3), (5, 1)])
def test_every_figure_is_that_of_an_undisturbed_run(
    tmp_path: Path, launches: int, streams: int
) -> None:
    found = finished(launches, streams)
    folder = journalled(tmp_path / "r", found)
    expected = assemble(found)
    assert expected.timing.iterations == 200 * launches * streams
    assert expected.energy.sources  # else the comparison below says nothing about it

    result, problems = recover(folder)
    assert problems == []
    assert read_result(folder) == result
    assert result.status == "interrupted"
    assert "killed" in result.error.message
    own = {"status", "error", "artifacts", "sha256", "duration_s"}
    for name in set(Result.__struct_fields__) - own:
        assert getattr(result, name) == getattr(expected, name), name
    names = ["result.json", "samples.npz", *sorted(n for n in result.artifacts if "series" in n)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert int(read_samples(folder).timed.sum()) == result.timing.iterations


def test_of_a_launch_that_was_cut_short_what_was_measured_stands(tmp_path: Path) -> None:
    found = finished(2)
    folder = journalled(tmp_path / "r", found, cut=True)
    result, _ = recover(folder)

    assert result.timing.latency_ms == assemble(found).timing.latency_ms
    assert [launch.stop_reason for launch in result.timing.launches] == ["duration", "interrupted"]
    assert result.timing.launches[1].load_s == 0.25


def test_of_a_run_that_took_turns_the_iterations_after_each_rest_do_not_count(
    tmp_path: Path,
) -> None:
    """Two turns of four, of each the first one left out, and a third that the kill has cut short;
    the warm-up before them was journalled together with the first turn's first iteration."""
    found = finished(1)
    folder = RunFolder.create(tmp_path / "r", ("m", "b", "fp32"))
    found.id = folder.id
    journal = RunJournal(folder.path)
    journal.open()
    journal.append(
        Begun(id=found.id, started_at=found.started_at, began_ns=found.began_ns, spec=found.spec,
              placement=found.placement)
    )  # fmt: skip
    journal.append(Ready(prepared=PREPARED, machine=found.machine))
    journal.append(INSTALLED)
    record = LaunchRecord(turns=TurnsTaken(20_000_000, left_out=1))
    journal.append(Seen.of(record, launch=0, doing="resting", at_ns=10**6, lost=None))
    journal.close()
    samples, now = SamplesJournal(folder.path), 0
    for count, timed in ((6, False), (3, True), (1, False), (3, True), (1, False)):
        starts = now + 1000 * np.arange(count)
        samples.append(0, starts, starts + (100 if timed else 900), timed=timed)
        now = int(starts[-1]) + 1000
    samples.close()

    result, problems = recover(folder.path)

    assert problems == []
    assert result.timing.iterations == 6
    assert result.timing.latency_ms.median == pytest.approx(1e-4)
    assert read_samples(folder.path).timed.tolist() == [0] * 6 + [1] * 3 + [0] + [1] * 3 + [0]
    rounds = read_rounds(folder.path)
    assert rounds is not None
    assert rounds.tolist() == [-1] * 5 + [0] * 4 + [1] * 4 + [-1]


def test_a_run_that_was_killed_before_it_measured(tmp_path: Path) -> None:
    found = finished(1)
    folder = RunFolder.create(tmp_path, ("m", "b", "fp32")).path
    journal = RunJournal(folder)
    journal.open()
    journal.append(
        Begun(id=folder.name, started_at=found.started_at, began_ns=5, spec=found.spec,
              placement=found.placement)
    )  # fmt: skip
    journal.close()
    result, _ = recover(folder)
    assert (result.status, result.duration_s, result.machine.fingerprint) == (
        "interrupted", 0.0, "unknown",
    )  # fmt: skip
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_window_whose_iterations_no_disk_took_is_absent(tmp_path: Path) -> None:
    """The journal of the run knows of two windows, that of the samples of the first alone."""
    found = finished(2)
    folder = journalled(tmp_path / "r", found)
    both = read_samples(folder)
    (folder / "samples.journal").unlink()
    samples = SamplesJournal(folder)
    for one in (one for one in stretches(found) if one.launch == 0):
        samples.append(0, one.start_ns, one.end_ns, timed=one.timed)
    samples.close()

    result, problems = recover(folder)
    assert problems == []
    assert len(both.start_ns) == 2 * len(read_samples(folder).start_ns)
    assert [launch.iterations for launch in result.timing.launches] == [200]

    (empty := journalled(tmp_path / "e", finished(1))).joinpath("samples.journal").unlink()
    nothing, _ = recover(empty)
    assert isinstance(nothing.timing, Unavailable)
    assert nothing.status == "interrupted"


def test_a_driver_killed_between_result_and_samples_keeps_its_result(tmp_path: Path) -> None:
    found = finished(1)
    folder = journalled(tmp_path / "r", found)
    RunFolder(folder).write_result(assemble(found))
    result, _ = recover(folder)
    assert result.status == assemble(found).status != "interrupted"
    assert set(result.artifacts) == {"samples.npz", "series.npz"}


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    folder = journalled(tmp_path / "r", finished(1))
    driver = RunJournal.of_the_dead(folder)  # whoever holds the lock
    with pytest.raises(ResultError, match="still going"):
        recover(folder)
    assert list(killed_runs(tmp_path / "r")) == []
    driver.close()
    assert list(killed_runs(tmp_path / "r")) == [folder]


@pytest.mark.parametrize("data", [b"", b"{}\n", b"\xff\n", b'{"type":"launch"}\n', b"[" * 99_999])
def test_a_damaged_journal_is_one_line(tmp_path: Path, data: bytes, capsys) -> None:
    folder = journalled(tmp_path / "r", finished(1))
    (folder / "run.journal").write_bytes(data)
    assert main(["recover", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "journal" in line
    assert (folder / "samples.journal").exists()


@pytest.mark.parametrize("named", ["run", "id", "results", "nothing"])
def test_a_run_is_recovered_by_its_folder_its_id_or_the_folder_it_lies_in(
    tmp_path: Path, capsys, named: str
) -> None:
    folder = journalled(tmp_path / "r", finished(1))
    names = {"run": [str(folder)], "id": [folder.name], "results": [str(tmp_path / "r")]}
    assert main(["recover", *names.get(named, []), "--results", str(tmp_path / "r")]) == 0
    assert "interrupted, 200 timed iterations" in capsys.readouterr().out
    assert main(["recover", str(tmp_path / "r")]) == 2
    assert "there is nothing to recover" in capsys.readouterr().err


def test_commands_name_the_one_that_recovers(tmp_path: Path, capsys) -> None:
    results = tmp_path / "r"
    folder = journalled(results, finished(1))
    named = f"harness recover {folder}"
    report = ["report", "-o", str(tmp_path / "x.md")]
    for args in (["show", folder.name], ["show", str(folder)], [*report, str(folder)],
                 ["compare", str(folder), str(folder)], ["list", "runs"]):  # fmt: skip
        main([*args, "--results", str(results)])
        told = capsys.readouterr().err
        assert told.count(named) == 1 and len(told.splitlines()) == 1, (args, told)
    for args in (["show", "latest"], [*report, str(results)]):
        assert main([*args, "--results", str(results)]) == 2
        assert f"1 killed: harness recover --results {results}" in capsys.readouterr().err
    for args in (["history"], ["bisect", "digits/onnxruntime/cpu/int8/b1/latency"]):
        assert main([*args, "--results", str(results)]) == 4  # there is no series yet
        assert capsys.readouterr().err.count(named) == 1

    assert main(["recover", "--results", str(results), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["id"], one["status"], one["iterations"]) == (folder.name, "interrupted", 200)
    assert main(["show", "latest", "--results", str(results)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["recover", "--results", str(results)]) == 0
    assert capsys.readouterr().out == f"no run in '{results}' was killed\n"


def test_the_board_names_killed_runs_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def absent() -> None:
        raise UsageError("no TensorBoard", "install it")

    monkeypatch.setattr("harness.cli.board._tensorboard", absent)
    journalled(tmp_path / "r", finished(1))
    assert main(["board", "--logdir", str(tmp_path / "r")]) == 2
    told, refused = capsys.readouterr().err.splitlines()
    assert told.endswith(f"are not shown: 1 killed: harness recover --results {tmp_path / 'r'}")
    assert refused == "harness: no TensorBoard; install it"


# --- what a death leaves in the temporary folder ---


def test_the_dead_leave_nothing_and_nothing_else_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    alive, dead = scratch.Scratch(), scratch.Scratch()
    (Path(dead.path) / "deep" / "er").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (Path(dead.path) / "link").symlink_to(outside)
    os.close(dead._fd)  # as the kernel does
    (tmp_path / "harness-1-abcdefgh").mkdir()  # of a process that lives, without our mark
    (tmp_path / "harness-99999999-abcdefgh").mkdir()
    (tmp_path / "harness-99999999-abcdefgh" / "theirs").write_text("theirs")
    (tmp_path / "harness-99999999-linklink").symlink_to(outside)
    (tmp_path / "harness-99999999-nothings").mkdir()  # killed before it was marked
    (tmp_path / "harness-thesis").mkdir()
    scratch.sweep()

    assert Path(alive.path).is_dir() and not Path(dead.path).exists()
    assert (outside / "mine").read_text() == "mine"
    alive.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "harness-1-abcdefgh",
        "harness-99999999-abcdefgh",
        "harness-99999999-linklink",
        "harness-thesis",
        "outside",
    ]


def test_a_journal_of_a_launch_that_no_run_has_is_one_line(tmp_path: Path, capsys) -> None:
    folder = journalled(tmp_path, finished(1))
    block = np.array([1 << 40, 0, 1, 1, 5, 6], "<i8")
    with (folder / "samples.journal").open("ab") as file:
        file.write(block.tobytes())
    assert main(["recover", str(folder)]) == 2
    assert "are damaged: no run is so large" in capsys.readouterr().err


def test_sensors_are_read_up_to_where_they_are_damaged(tmp_path: Path) -> None:
    folder = journalled(tmp_path, finished(1))
    path = next(folder.glob("series*.journal"))
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] + b"\x10\0\0\0" + b"\xff" * (len(good) // 2))
    result, _ = recover(folder)
    assert result.status == "interrupted"
    assert result.timing.iterations == 200  # what is timed of them
