r"""Nothing from a result, a model or a file controls the terminal, on stdout or stderr."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.cli.main import main
from harness.cli.output import print_json
from harness.testing.results import fake_result
from harness.text import plain, visible

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"


def test_what_stays_and_what_is_shown() -> None:
    assert visible("a  b/ü.onnx") == "a  b/ü.onnx"
    assert visible("a\nb\tc") == "a b c"
    assert visible("\x1b[2J\x9b\x7f\u202e\udcff") == r"\x1b[2J\x9b\x7f\u202e\udcff"
    assert plain("a \x1b b\n") == "a b"


def test_json_is_lossless_and_holds_none(capsys: Any) -> None:
    print_json({"name": EVIL})
    out = capsys.readouterr().out
    assert is_tame(out)
    assert msgspec.json.decode(out) == {"name": EVIL}


def is_tame(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of a run and one that is no result, whose every name is evil."""
    monkeypatch.chdir(tmp_path)
    result = fake_result()
    spec = msgspec.structs.replace(result.spec, model=EVIL, tags={"sweep": EVIL, "launch": "1"})
    tags = {"sweep": EVIL, "launch": "1"}
    for number, id in enumerate((f"1{EVIL}", f"1{EVIL}", f"2{EVIL}")):
        evil = msgspec.structs.replace(result, id=id, spec=spec, tags=tags)
        folder = tmp_path / "results" / f"{number}-{EVIL}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_bytes(msgspec.json.encode(evil))
    broken = tmp_path / "results" / f"broken-{EVIL}"
    broken.mkdir()
    (broken / "result.json").write_bytes(msgspec.json.encode({"schema": EVIL}))
    sweep = tmp_path / "results" / "nightly"
    sweep.mkdir()
    (sweep / "sweep.json").write_bytes(msgspec.json.encode({"schema": EVIL}))
    (tmp_path / "evil.toml").write_text('[matrix]\nmodel = ["digits"]\n"\\u001b[2J" = 1\n')
    (tmp_path / "model.onnx").write_text(EVIL)
    (tmp_path / f"{EVIL}.csv").write_text(EVIL)
    return tmp_path / "results"


COMMANDS = [
    ("show", "results"), ("show", EVIL), ("list", "runs"), ("compare", "results", "results"),
    ("compare", "results/0-*", "results/2-*"), ("report", "results", "-o", "-"),
    ("export", "--format", "csv", "results"), ("export", "--format", "markdown", "results"),
    ("check", "results", "--baseline", "results"), ("check", "nightly", "--baseline", EVIL),
    ("baseline", "promote", "results", "--name", "x"), ("baseline", "promote", EVIL, "--name", "x"),
    ("baseline", "promote", "results", "--name", EVIL), ("baseline", "show", EVIL),
    ("history",), ("history", EVIL), ("bisect", EVIL), ("bisect", EVIL, "--run"),
    ("index", "rebuild"), ("sweep", "evil.toml"), ("sweep", EVIL), ("import", EVIL),
    ("run", "--model", EVIL), ("run", "--backend", EVIL), ("run", "--model", "model.onnx"),
    ("run", "--power-source", f"external:{EVIL}.csv"), ("run", "--tag", EVIL),
    (EVIL,), ("run", EVIL),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=itertools.count())
def test_no_command_lets_a_control_character_through(
    results: Path, capsys: Any, words: tuple[str, ...]
) -> None:
    paths = {f"results/{n}-*": str(next(results.glob(f"{n}-*"))) for n in (0, 2)}
    main([paths.get(word, word) for word in words])
    said = capsys.readouterr()
    assert said.out + said.err
    assert is_tame(said.err), said.err
    assert "report" in words or is_tame(said.out), said.out
