"""Whole outputs over results that an earlier version stored: whoever changes one sees all of it.

``make goldens`` writes the files in ``tests/data/goldens`` anew; the diff is part of the change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_board_import import FILE
from test_stored_results import results  # noqa: F401  (a fixture)
from test_tensorboard_sink import feed, read

from harness.cli.main import main
from harness.tensorboard.importer import log_benchmark_results
from harness.testing.results import fake_result
from harness.training import TrainingLogger

Golden = Callable[[str, str], None]
FP32, INT8 = "20261127T183405Z", "20261127T183410Z"
CELL = "digits/onnxruntime/cpu/fp32/b1/latency"
# file -> the command, and its exit code
PRINTED: dict[str, tuple[str, int]] = {
    "list-runs.json": ("list runs --json", 0),
    "compare-pair.json": (f"compare {FP32} {INT8} --json", 0),
    "compare-sets.json": ("compare stored-first --across precision=fp32,int8 --json", 0),
    "compare-sets.txt": ("compare stored-first --across precision=fp32,int8", 0),
    "check.json": (f"check {INT8} --baseline release --json", 0),
    "check.txt": (f"check {INT8} --baseline release", 0),
    "history.json": (f"history {CELL} --json", 0),
    "history.txt": (f"history {CELL}", 0),
    "verify.json": (f"verify {FP32} --json", 0),
    "baseline-list.json": ("baseline list --json", 0),
    "index.json": ("index rebuild --json", 0),
    "export.csv": (f"export --format csv -o - {FP32}", 0),
    "export.junit.xml": ("export --format junit -o - stored-first", 0),
    "export.md": ("export --format markdown -o - stored-first", 0),
    "export.pytest-benchmark.json": ("export --format pytest-benchmark -o - stored-first", 0),
    "export.compression-engine.json": (f"export --format compression-engine -o - {FP32}", 0),
}
_STORED = re.compile(r"2026-11-27.18:")  # the hour in which all of it was measured
_TIME = re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+]00:00| UTC)?")
_FLOAT = re.compile(r"-?\d+\.\d{7,}(e[+-]\d+)?")


def tamed(text: str, folder: Path) -> str:
    """Without this folder and this moment, and with as many digits as every platform agrees on."""
    text = text.replace(str(folder), "FOLDER")
    text = _FLOAT.sub(lambda found: f"{float(found[0]):.9g}", text)
    return _TIME.sub(lambda found: found[0] if _STORED.match(found[0]) else "NOW", text)


def pretty(text: str) -> str:
    return json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


def keys(value: Any, path: str = "") -> set[str]:
    """Where every value stands, such as ``timing.launches[].median_ms``."""
    if isinstance(value, dict):
        return set().union(*(keys(one, f"{path}.{name}") for name, one in value.items()))
    if isinstance(value, list):
        return set().union(*(keys(one, f"{path}[]") for one in value))
    return {path.lstrip(".")}


@pytest.fixture
def say(
    results: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """What a command prints, in the folder with the stored results."""
    monkeypatch.chdir(results.parent)
    monkeypatch.setenv("COLUMNS", "80")

    def call(line: str, code: int = 0) -> str:
        assert main(line.split()) == code, capsys.readouterr()
        return tamed(capsys.readouterr().out, results.parent)

    return call


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_command_prints(name: str, say: Callable[..., str], golden: Golden) -> None:
    line, code = PRINTED[name]
    said = say(line, code)
    golden(name, pretty(said) if name.endswith(".json") else said)


def test_where_the_figures_of_a_run_stand(say: Callable[..., str], golden: Golden) -> None:
    found = keys(json.loads(say(f"show {FP32} --json")))
    golden("show.keys", "".join(f"{key}\n" for key in sorted(found)))


def test_what_the_gate_leaves(say: Callable[..., str], golden: Golden, results: Path) -> None:  # noqa: F811
    say(f"check {INT8} --baseline release --report-dir gate")
    for path in sorted((results.parent / "gate").iterdir()):
        golden(f"gate.{path.name}", tamed(path.read_text("utf-8"), results.parent))


@pytest.mark.parametrize("ending", ["md", "html"])
def test_a_report(
    ending: str,
    say: Callable[..., str],
    golden: Golden,
    results: Path,  # noqa: F811
) -> None:
    say(f"report {FP32} {INT8} -o report.{ending}")
    text = (results.parent / f"report.{ending}").read_text("utf-8")
    text = re.sub(r"<(script|style)\b([^>]*)>.*?</\1>", r"<\1\2></\1>", text, flags=re.DOTALL)
    text = re.sub(r"sha256-[\w+/=]+", "sha256-HASH", text)  # of scripts, which no golden holds
    golden(f"report.{ending}", tamed(text.replace("><", ">\n<"), results.parent))


def tags(folder: Path) -> str:
    found = read(folder).Tags()
    kinds = {kind: sorted(names) for kind, names in found.items() if isinstance(names, list)}
    return "".join(f"{kind}: {tag}\n" for kind in sorted(kinds) for tag in kinds[kind])


def test_the_tags_of_a_run(tmp_path: Path, golden: Golden) -> None:
    feed(tmp_path, fake_result())
    golden("tags-run.txt", tags(tmp_path))


def test_the_tags_of_an_import(tmp_path: Path, golden: Golden) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(FILE))
    log_benchmark_results(tmp_path / "bench.json", tmp_path)
    folders = sorted({path.parent for path in tmp_path.rglob("events.*")})
    golden("tags-import.txt", "".join(map(tags, folders)))


def test_the_tags_of_a_training(tmp_path: Path, golden: Golden) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_epoch(1, 0.5, 0.8, 0.7, 0.6, 0.75, 0.65, 0.9, 0.95, learning_rate=1e-3)
        logger.log_metrics({"extra": 1.0}, step=1)
        logger.log_calibration([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0])
        logger.log_text("notes", "of the run")
        logger.log_config({"lr": 1e-3})
        logger.log_training_summary({"epochs": 1})
    golden("tags-training.txt", tags(Path(logger.folder)))
