"""The command's frame: help, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import harness
from harness.cli.main import COMMANDS, cli, main
from harness.errors import BackendUnavailable, HarnessError, NothingComparable, UsageError, one_line


def test_help_lists_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, (_, text) in COMMANDS.items():
        assert f"  {name}" in out and text in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    out, _ = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    assert f"Usage: harness {name}" in out
    assert "--json" in out or name in ("board", "export", "report")  # these print no table


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"harness {harness.__version__}\n"


def test_help_loads_click_and_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from harness.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'numpy', 'msgspec', 'rich', 'tensorboardX', 'torch', 'onnxruntime'}"
        "\nassert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["fly"], "harness: No such command 'fly'; see harness --help"),
        (["lst"], "harness: No such command 'lst'. Did you mean 'list'? See harness --help"),
        (["show"], "harness: Missing argument 'RUN'; see harness show --help"),
        (["show", "x", "--loud"], "harness: No such option '--loud'; see harness show --help"),
        (
            ["list", "cats"],
            "harness: Invalid value for '[models|backends|profilers|runs|results]':",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    args: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """A command that raises what it is given."""

    def install(error: BaseException) -> None:
        @click.command("fail")
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli, "get_command", lambda ctx, name: fail)

    return install


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("x is 3", "give 4"), 2, "harness: x is 3; give 4\n"),
        (BackendUnavailable("no\n  such\tthing"), 3, "harness: no such thing\n"),
        (NothingComparable("nothing"), 4, "harness: nothing\n"),
        (HarnessError("m"), 2, "harness: m\n"),
        (KeyboardInterrupt(), 130, "harness: interrupted\n"),
    ],
)
def test_expected_failures_are_one_line_and_a_code(
    failing, error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert main(["fail"]) == code
    assert capsys.readouterr() == ("", line)


def test_a_long_text_keeps_both_ends() -> None:
    assert one_line("a\n b\t c") == "a b c"
    text = "begin " + "x" * 5000 + " end"
    assert one_line(text) == text  # a runtime's message, say, with its cause at the end
    assert one_line(text, 20) == "begin xxxx [...] xxxxxx end"


def test_a_bug_keeps_its_traceback(failing) -> None:
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["fail"])


def test_a_bug_is_no_verdict_of_a_gate() -> None:
    code = (
        "import sys; from unittest import mock; from harness.cli import entry, main\n"
        "sys.argv = ['harness', 'check']\n"
        "with mock.patch.object(main, 'main', side_effect=ZeroDivisionError('ours')):\n"
        "    entry.console()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    assert ran.stderr.startswith("Traceback") and ran.stderr.endswith("ZeroDivisionError: ours\n")


def test_ctrl_c_while_it_starts_shows_no_traceback() -> None:
    """At the first import after the interpreter's own."""
    code = (
        "import os, signal, sys; from importlib.abc import MetaPathFinder\n"
        "class Impatient(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'harness.cli.main':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "sys.argv = ['harness', 'list']\n"
        "from harness.cli import entry; entry.console()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (130, "harness: interrupted\n")


@pytest.mark.parametrize("command", ["list runs", "compare a b", "check --baseline x"])
def test_a_folder_that_was_deleted_is_named(tmp_path: Path, command: str) -> None:
    script = f'rmdir "$PWD" && exec {sys.executable} -m harness {command}'
    ran = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (
        2, "harness: the current folder was deleted; go to another\n",
    )  # fmt: skip


def test_a_reader_that_leaves_is_no_error() -> None:
    script = "{ " + sys.executable + " -m harness list models; echo code $? >&2; } | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr in ("code 141\n", "code 0\n")  # 0: it had all been written before


def test_a_file_name_that_fits_no_encoding_can_be_named(tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "harness", "show", b"\xff\xc3\xa9"],
        capture_output=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(b"harness: no run ") and done.stderr.count(b"\n") == 1
