"""Whatever a user gets wrong: one line that names it and says what to do, and nothing left over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from running import Harness, Ran, assert_no_orphans

from harness.cli.main import main
from harness.zoo.shipped import ASSETS

# Each case: the arguments, a piece of the line that names the value, and one that says what to do.
Case = tuple[str, str, str]


@pytest.fixture
def harness(
    harness: Harness, tmp_path: Path, cache: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> Harness:  # fmt: skip
    """The real command for the first of a test's calls; in this process for all others, which saves
    them the start of an interpreter and of what it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    called: list[Sequence[str]] = []

    def call(*args: str) -> Ran:
        called.append(args)
        if len(called) == 1:
            return harness(*args)
        capfd.readouterr()
        code = main(args)
        assert_no_orphans(tmp_path)
        return Ran(code, *capfd.readouterr())

    return call


def check(harness: Harness, folder: Path, cases: list[Case], *prefix: str) -> None:
    (folder / "results").mkdir(exist_ok=True)
    before = sorted(folder.rglob("*"))
    for text, names, remedy in cases:
        ran = harness(*prefix, *text.split())
        seen = f"{text}: {ran.code} {ran.out!r} {ran.err!r}"
        assert (ran.code, ran.out) == (2, ""), seen
        assert ran.err.startswith("harness: "), seen
        assert ran.err.endswith("\n") and len(ran.err.splitlines()) == 1, seen
        told, _, advice = ran.err.partition("; ")
        assert names in told, seen
        assert remedy in advice, seen
    assert sorted(folder.rglob("*")) == before


def test_names_that_nobody_knows(harness: Harness, tmp_path: Path) -> None:
    known = "choose one of "
    cases = [
        ("run --model digist", "unknown model 'digist'", "did you mean digits?"),
        ("run --backend onnxrt", "unknown backend 'onnxrt'", f"{known}pytorch, onnxruntime"),
        ("run --precision int3", "--precision is 'int3'", f"{known}fp32, int8"),
        ("run --option speed=fast", "no option 'speed'", f"{known}graph_optimization_level"),
        ("run --option execution_mode=x", "execution_mode is 'x'", f"{known}sequential, parallel"),
        ("run --device gpu", "--device is 'gpu'", "cpu, cuda or cuda:N"),
        ("run --power-source sun", "--power-source is 'sun'", f"{known}auto"),
        ("run --require luck", "--require is 'luck'", f"{known}energy"),
        ("fly", "'fly'", "harness --help"),
        ("run --loud", "'--loud'", "harness run --help"),
    ]
    check(harness, tmp_path, cases)


def test_numbers_that_make_no_sense(harness: Harness, tmp_path: Path) -> None:
    seconds, whole = "a number from 0.01 to 86400", "a whole number from 1 to"
    percentage = "a percentage from 0.01% to 100%"
    cases = [
        *((f"--duration {text}", f"--duration is '{text}'", seconds)
          for text in ("-1", "0", "nan", "inf", "abc")),
        ("--batch-size 0", "--batch-size is '0'", whole),
        ("--batch-size 1.5", "--batch-size is '1.5'", whole),
        ("--iterations 0", "--iterations is '0'", whole),
        ("--launches 0", "--launches is '0'", whole),
        ("--threads 0", "--threads is '0'", whole),
        *((f"--precision-goal {text}", f"--precision-goal is '{text}'", percentage)
          for text in ("0%", "200%", "x")),
        ("--cpus 5-2", "--cpus is '5-2'", "such as 0-3,8"),
        ("--cpus 999", "--cpus names 999", "this process may use "),
        ("--concurrency 4", "--concurrency 4 in the latency scenario", "--scenario throughput"),
        ("--duration 5 --max-duration 1", "--max-duration 1 is below --duration 5", "raise"),
    ]  # fmt: skip
    check(harness, tmp_path, cases, "run")


def test_texts_of_the_wrong_form(harness: Harness, tmp_path: Path) -> None:
    cases = [
        ("--input-shape garbage", "--input-shape is 'garbage'", "input=1x3x224x224"),
        ("--input-shape images=axb", "--input-shape images is 'axb'", "1x3x224x224"),
        ("--input-shape photo=1x2", "names 'photo'", "its inputs are images"),
        ("--input-shape images=1x3x8x8", "images=1x3x8x8 does not fit", "1 is fixed in the model"),
        ("--tag nokey", "--tag is 'nokey'", "give key=value"),
        ("--tag a=\udcff", r"--tag is 'a=\udcff'", "UTF-8"),
    ]
    check(harness, tmp_path, cases, "run")


def test_files_that_are_no_model(harness: Harness, tmp_path: Path) -> None:
    whole = (ASSETS / "digits.onnx").read_bytes()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "garbage.onnx").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "notes.txt").write_text("a shopping list\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.onnx").mkdir()
    open_shape = ["batch", "height"]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, open_shape) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "open.onnx")
    cases = [
        ("missing.onnx", "cannot read missing.onnx: No such file", "check the path"),
        ("empty.onnx", "empty.onnx is empty", "export or copy it again"),
        ("cut.onnx", "cut.onnx is no ONNX file, or is cut short", "check where it came from"),
        ("garbage.onnx", "garbage.onnx is no ONNX file", "check where it came from"),
        ("notes.txt", "notes.txt is no ONNX file", "check where it came from"),
        ("folder", "folder is a folder", "name the .onnx, .pt2 or .pt file in it"),
        ("folder.onnx", "folder.onnx is a folder", "name the file in it"),
        ("open.onnx", "input 'x' leaves dimension 1 (height) open", "--input-shape x=1xSIZE"),
    ]
    check(harness, tmp_path, cases, "run", "--model")


def test_data_that_does_not_fit_the_model(harness: Harness, tmp_path: Path) -> None:
    images = np.zeros((4, 1, 8, 8), np.float32)
    labels = np.arange(4)
    spoilt = images.copy()
    spoilt[0, 0, 0, 0] = np.nan
    objects = np.array([{"code": "runs on unpickling"}] * 4, object)
    files = {
        "shape": {"images": images[:, :, :4], "labels": labels},
        "type": {"images": images.astype(np.float64), "labels": labels},
        "names": {"photos": images, "labels": labels},
        "unlabelled": {"images": images},
        "lengths": {"images": images, "labels": labels[:3]},
        "classes": {"images": images, "labels": labels + 100},
        "nothing": {"images": images[:0], "labels": labels[:0]},
        "spoilt": {"images": spoilt, "labels": labels},
        "pickled": {"images": objects, "labels": labels},
    }
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "plain.npz").write_text("no archive")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "shape.npz").read_bytes()[:400])
    cases = [
        ("missing.npz", "missing.npz: No such file", "check the path"),
        ("shape.npz", "shape.npz: 'images' is float32 4x1x4x8, expected", "first axis"),
        ("type.npz", "'images' is float64", ".astype('float32')"),
        ("names.npz", "names.npz has no array 'images', only labels, photos", "name arrays"),
        ("unlabelled.npz", "unlabelled.npz has no array 'labels'", "add the class"),
        ("lengths.npz", "images 4, labels 3", "as many of each"),
        ("classes.npz", "'labels' holds 103, the model has 10 classes", "count from 0"),
        ("nothing.npz", "'images' is float32 0x1x8x8, which is empty", "at least one sample"),
        ("spoilt.npz", "'images' holds NaN", "clean the data"),
        ("pickled.npz", "pickled.npz: it holds Python objects", "numpy.savez"),
        ("plain.npz", "plain.npz: it holds Python objects, or is no .npz", "numpy.savez"),
        ("cut.npz", "cut.npz: it is damaged", "numpy.savez"),
    ]
    check(harness, tmp_path, cases, "run", "--dataset")
    check(harness, tmp_path, cases[1:2], "run", "--precision", "int8", "--calibration")


def test_results_folders_that_cannot_be_written(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    elsewhere = "with --results"
    cases = [
        ("--out file", "'file' cannot be written: a file is in its place", elsewhere),
        ("--out file/in", "'file/in' cannot be written: Not a directory", elsewhere),
        ("--out no/parent", "'no/parent' cannot be written: No such file", elsewhere),
    ]
    if os.geteuid() != 0:  # root writes anywhere
        cases.append(("--out locked", "'locked' cannot be written: Permission denied", elsewhere))
    check(harness, tmp_path, cases, "run")


def test_results_that_cannot_be_read(harness: Harness, tmp_path: Path) -> None:
    contents = {
        "20260101T000000Z-cut-000001": '{"schema": "harness.resu',
        "20260102T000000Z-future-000002": '{"schema": "harness.result/999"}',
        "20260103T000000Z-other-000003": '{"schema": "somebody.else/1"}',
        "20260104T000000Z-hollow-000004": '{"schema": "harness.result/1"}',
    }
    for name, content in contents.items():
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "result.json").write_text(content)
    (tmp_path / "results" / "20260105T000000Z-killed-000005").mkdir()
    give = "give a run folder, a result file, a run id"
    cases = [
        ("show nothing", "no run 'nothing' in 'results'", give),
        ("compare a b", "no run 'a' in 'results'", give),
        ("compare latest b --results empty", "no run 'latest' in 'empty'", give),
        ("show 20260101", "result.json' is no JSON, or cut short", "measure again"),
        ("show 20260102", "has schema harness.result/999, and this Harness", "pip install -U"),
        ("show 20260103", "is no Harness result: its schema is 'somebody.else/1'", give),
        ("show 20260104", "is no valid harness.result/1", "measure again"),
        ("show 20260105", "holds no result.json", "still going, or was killed"),
        ("show 2026", "'2026' begins the ids of 5 runs", "give more of the id"),
    ]
    check(harness, tmp_path, cases)


def test_a_device_that_is_not_here(harness: Harness, tmp_path: Path) -> None:
    """Known only once a worker has imported the runtime; nothing was measured, nothing is left."""
    ran = harness("run", "--device", "cuda:99", "--quiet")

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("harness: onnxruntime on cuda:99: ")
    assert len(ran.err.splitlines()) == 1 and "; " in ran.err
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("no_such_module:Backend", "No module named 'no_such_module'"),
        ("json:Nothing", "has no attribute 'Nothing'"),
        ("builtins:dict", "dict lacks name, availability, wants, prepare"),
        ("sys:exit", "SystemExit"),
    ],
)
def test_a_class_that_is_no_backend(
    harness: Harness, tmp_path: Path, backend: str, reason: str
) -> None:
    ran = harness("run", "--backend", backend)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"harness: backend '{backend}' cannot be used: it ")
    assert reason in ran.err and len(ran.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()
