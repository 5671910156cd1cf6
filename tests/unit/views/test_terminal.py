"""The live line and the tables, compared whole."""

from __future__ import annotations

import io
import os
import shlex
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness.analysis.fidelity import fidelity
from harness.compare.comparison import compare_runs
from harness.maybe import Unavailable
from harness.protocols import Progress, Proof
from harness.records.result import NOT_REACHED, Check, ErrorInfo, PrecisionInfo
from harness.spec import RunSpec
from harness.testing.results import fake_failure, fake_result
from harness.views.comparison import render_pair
from harness.views.headline import headline
from harness.views.markdown import render_markdown
from harness.views.pipe import PipeSink
from harness.views.terminal import (
    TerminalSink,
    live_line,
    render_result,
    render_table,
    to_text,
)
from harness.views.text import number, plain, quantity, rows


def zoo_run():
    """A plain FP32 run of a model with random weights, on a GPU."""
    result = fake_result()
    return msgspec.structs.replace(
        result,
        status="complete",
        spec=RunSpec(model="resnet18", device="cuda:0", scenario="throughput", concurrency=4),
        model=msgspec.structs.replace(result.model, name="resnet18", random_weights=True),
        accuracy=Unavailable("random weights: no accuracy is claimed"),
        energy=Unavailable("permission_denied: energy_uj is not readable", "sudo chmod a+r it"),
        timing=msgspec.structs.replace(result.timing, device_ms=result.timing.latency_ms),
        memory=msgspec.structs.replace(result.memory, device={"gpu_used_bytes": 3 * 10**9}),
        validity=result.validity[:2],
    )


def aborted_run():
    """A run that was interrupted, with what was measured until then, and checks of the rest."""
    result = fake_result()
    unmade = [
        Check(name=name, verdict="unknown", reason="not reached: the run was interrupted")
        for name in ("steal", "clocks", "sampler", "drift")
    ]
    error = ErrorInfo(
        kind="interrupted", message="interrupted in the timed window", remedy="",
        phase="in the timed window", stderr_tail="",
    )  # fmt: skip
    return fake_result(
        status="interrupted", error=error, accuracy=NOT_REACHED,
        validity=(*unmade, *result.validity),
    )  # fmt: skip


def slower_run():
    result = fake_result()
    launches = tuple(
        msgspec.structs.replace(result.timing.launches[0], median_ms=0.15 + i / 1e4, window_s=0.3)
        for i in range(5)
    )
    return fake_result(
        id="20261122T000000Z-digits-onnxruntime-fp32-ffffff",
        spec=RunSpec(launches=5),
        timing=msgspec.structs.replace(
            result.timing,
            launches=launches,
            latency_ms=msgspec.structs.replace(result.timing.latency_ms, median=0.1502),
        ),
        throughput=msgspec.structs.replace(result.throughput, inferences_per_s=6667.0),
        energy=Unavailable("not_present: no meter", "measure on bare metal"),
    )


RUNS = [
    ("degraded", fake_result()),
    ("failed", fake_failure()),
    ("zoo", zoo_run()),
    ("aborted", aborted_run()),
]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("name", "result"), RUNS)
def test_the_table_of_a_run(name: str, result, whole: bool, golden) -> None:
    text = to_text(render_result(result, Path("results") / result.id, whole=whole))
    *above, _, _, _ = text.splitlines()
    assert max(map(len, above)) <= 80 and "\x1b" not in text
    golden(f"{'result' if whole else 'brief'}-{name}.txt", text + "\n")


@pytest.mark.parametrize(("name", "result"), RUNS)
def test_a_run_is_in_sight_on_a_small_terminal(name: str, result) -> None:
    text = to_text(render_result(result, Path("results") / result.id, whole=False))
    assert len(text.splitlines()) <= 22  # of 24, below the command and above the next prompt


def test_a_run_in_three_lines() -> None:
    assert headline(fake_result()) == [
        "digits, int8, onnxruntime on cpu, batch 1, 2 launches",
        "median 123.6 µs (123.4 to 123.9), p99 171.1 µs, 8000 /s, energy 187.5 µJ",
        "degraded: 3.1 % of CPU time was stolen by other guests",
    ]
    assert headline(fake_failure())[1:] == [
        "failed: the worker was killed by SIGKILL while loading; "
        "out of memory is the usual cause: try a smaller batch"
    ]


def test_why_a_run_is_degraded_names_every_doubt() -> None:
    noisy = Check(name="interval", verdict="warn", reason="the median is known to ±9%; wait")
    result = fake_result(validity=(noisy, *fake_result().validity))
    assert headline(result)[-1] == "degraded: interval, cpu steal"
    assert headline(fake_result(status="complete", validity=fake_result().validity[:2]))[-1] == (
        "complete: 2 checks passed"
    )
    assert headline(aborted_run())[-1] == "interrupted in the timed window"


def test_a_long_message_keeps_both_ends_in_the_headline() -> None:
    error = ErrorInfo(
        kind="exception", message="begin " + "x" * 5000 + " end", remedy="", phase="loading",
        stderr_tail="",
    )  # fmt: skip
    line = headline(fake_result(status="failed", error=error))[-1]
    assert line.startswith("failed while loading: begin xxx") and line.endswith("xxx end")
    assert len(line) < 650


@pytest.mark.parametrize("folder", ["/tmp/" + "deep/" * 40 + "run", "a folder/with spaces/run"])
def test_a_path_is_never_cut_or_wrapped(folder: str) -> None:
    text = to_text(render_result(fake_result(), Path(folder), whole=False))
    assert f"Files: {folder}" in text.splitlines()
    assert f"All of it: harness show {shlex.quote(folder)}" in text.splitlines()
    path = "/sys/class/powercap/intel-rapl:0/intel-rapl:0:0/energy_uj/and/so/on/and/so/forth"
    result = fake_result(energy=Unavailable(f"permission_denied: {path} cannot be read"))
    assert path in to_text(render_result(result)).split()
    assert path in to_text(render_table(("Channel", ""), [("energy", f"see {path}")]), 40).split()


def test_the_markdown_of_a_run(golden) -> None:
    golden("result-degraded.md", render_markdown(fake_result()).rstrip("\n") + "\n")


def test_two_runs_side_by_side(golden) -> None:
    a, b = slower_run(), slower_run()
    twice = msgspec.structs.replace(b.throughput, inferences_per_s=13333.0)
    b = msgspec.structs.replace(
        b, timing=_faster(b.timing), throughput=twice, energy=fake_result().energy
    )
    text = to_text(render_pair(compare_runs(a, b).cells[0], a, b))
    assert "\x1b" not in text
    golden("pair.txt", text + "\n")


def _faster(timing):
    return msgspec.structs.replace(
        timing,
        latency_ms=msgspec.structs.replace(timing.latency_ms, median=0.0751),
        launches=tuple(
            msgspec.structs.replace(launch, median_ms=launch.median_ms / 2, window_s=0.15)
            for launch in timing.launches
        ),
    )


def test_the_worst_output_leads_and_the_others_follow() -> None:
    ids = np.arange(1, 9, dtype=np.int64)
    ours = {"ids": ids, "embedding": np.array([3.0, 5.0]), "boxes": np.ones((2, 4))}
    theirs = {"ids": ids, "embedding": np.array([3.0, 4.0]), "boxes": np.ones((1, 4))}
    made = fake_result().precision
    assert isinstance(made, PrecisionInfo)
    found = rows(
        fake_result(
            precision=msgspec.structs.replace(made, fidelity=fidelity(ours, theirs, samples=16))
        )
    )
    told = {row.name: (row.value, row.note) for row in found}
    assert told["worst output"] == (
        "embedding",
        "against fp32, same inputs and backend, 16 samples",
    )
    assert told["SQNR"] == ("13.98 dB", "")
    outputs = [(row.value, row.note) for row in found if row.name == "output"]
    assert outputs == [
        ("100.00%", "ids, int64: elements that are equal"),
        ("n/a", "output boxes has shape (2, 4), the reference's (1, 4)"),
    ]


def test_every_absent_part_says_why() -> None:
    absent = Unavailable("because of x", "do y")
    names = ("timing", "throughput", "energy", "memory", "accuracy", "precision")
    found = rows(fake_result(validity=(), **dict.fromkeys(names, absent)))
    assert [row.section for row in found] == [
        "Latency", "Throughput", "Energy", "Memory", "Accuracy", "Precision",
    ]  # fmt: skip
    first, *others = (row[1:] for row in found)
    assert first == ("", "n/a", "because of x; do y")
    assert set(others) == {("", "n/a", "because of x")}  # the remedy is given once


def test_what_a_file_holds_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\x07\r[bold red]x[/]\u202e"
    result = fake_result(
        model=msgspec.structs.replace(fake_result().model, name=evil),
        throughput=Unavailable(evil),
    )
    text = to_text(render_result(result, Path(evil)))
    assert not set(text) & set("\x1b\x07\r\u202e")
    assert "[bold red]x[/]" in text


def progress(**fields: object) -> Progress:
    values: dict[str, object] = {
        "phase": "window", "launch": 0, "launches": 1, "elapsed_s": 2.0, "remaining_s": 3.4,
        "iterations": 1200, "median_ms": 1.2345678, "ci95_ms": (1.2, 1.3),
    }  # fmt: skip
    return Progress(**values | fields)  # type: ignore[arg-type]


def test_the_live_line() -> None:
    assert live_line(progress()) == (
        "about 3 s left: measuring, 1200 iterations, 1.235 ms [1.200, 1.300]"
    )
    assert live_line(progress(at_most=True, launch=1, launches=5, remaining_s=150)).startswith(
        "launch 2/5, at most 2 min left: measuring, "
    )
    bare = progress(
        phase="load", launch=1, launches=5, iterations=0, median_ms=None, remaining_s=None
    )
    assert live_line(bare) == "launch 2/5, 2 s: loading the model"


def test_preparing_is_shown_on_a_terminal_alone() -> None:
    preparing = progress(phase="build", iterations=0, median_ms=None, remaining_s=None, launches=5)
    assert live_line(preparing) == "launch 1/5: preparing the model"
    stream = io.StringIO()
    TerminalSink(stream).update(preparing)
    assert stream.getvalue() == ""  # where a model that cannot be used leaves one line alone


def test_a_sweep_gets_glimpses_through_a_pipe() -> None:
    reader, writer = os.pipe()
    sink = PipeSink(writer)
    sink.update(progress())
    assert msgspec.json.decode(os.read(reader, 4096)) == {
        "text": "measuring, 1200 iterations, 1.235 ms [1.200, 1.300]", "remaining_s": 3.4,
    }  # fmt: skip
    for _ in range(5000):  # more than a pipe holds: lines are lost, and nothing waits
        sink.update(progress())
    os.close(reader)
    sink.update(progress())
    sink.close(None)


def test_a_pipe_gets_one_plain_line_per_change_of_phase(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    sink = TerminalSink(stream)
    for phase, launch in (("load", 0), ("window", 0), ("window", 0), ("load", 1), ("window", 1)):
        sink.update(progress(phase=phase, launch=launch, launches=2))
    sink.close(fake_result())
    assert stream.getvalue().splitlines() == [
        "loading the model (launch 1 of 2)",
        "measuring (launch 1 of 2)",
        "loading the model (launch 2 of 2)",
        "measuring (launch 2 of 2)",
    ]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_one_line_redrawn_and_then_taken_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    sink = TerminalSink(stream)
    for iterations in (1, 2):
        sink.update(progress(iterations=iterations))
    sink.close(None)
    written = stream.getvalue()
    assert "1 iteration," in written and "2 iterations" in written
    assert "left" in written and "1.300]" not in written  # 60 columns: cut, never wrapped
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor comes back
    assert written.endswith("\x1b[2K")  # erased


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    sink = TerminalSink(stream)
    sink.update(progress())
    sink.close(None)
    assert stream.getvalue() == "measuring\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1.000"), (12.3456, "12.35"), (99999, "99999"), (-0.5, "-0.5000"),
     (0.00012346, "0.0001235"), (1e-9, "1e-09"), (3e12, "3e+12")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.5, "ms", "500.0 µs"), (1500.0, "ms", "1.500 s"), (0.002, "J", "2.000 mJ"), (0, "J", "0 nJ"),
     (999, "bytes", "999.0 B"), (2_500_000, "bytes", "2.500 MB"), (8000, "/s", "8000 /s")],
)  # fmt: skip
def test_quantities(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_plain_text_is_one_printable_line() -> None:
    assert plain(" a\n\tb\x00\x1b[0m ") == "a b [0m"


def test_the_console_width_is_respected() -> None:
    wide = to_text(render_result(fake_result()), width=160)
    assert len(wide.splitlines()) < len(to_text(render_result(fake_result())).splitlines())


def test_a_proof_names_the_worst_layer_and_what_was_left() -> None:
    result = fake_result()
    left = {f"block.{index}": "computes something else (3.1 dB)" for index in range(5)}
    made = msgspec.structs.replace(
        result.precision.quantization, proof=Proof(53, "layer4.1.conv2", 27.125, left)
    )
    precision = msgspec.structs.replace(result.precision, quantization=made)
    found = {
        row.name: (row.value, row.note)
        for row in rows(msgspec.structs.replace(result, precision=precision))
    }
    assert found["worst layer"] == (
        "27.12 dB",
        "layer4.1.conv2; each of 53 layers against fp32, given fp32's own inputs",
    )
    value, note = found["left in fp32"]
    assert value == "5 layers"
    assert note.startswith("block.0 computes something else (3.1 dB); block.1 ")
    assert note.endswith("; 2 more")
