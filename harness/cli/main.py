"""The ``harness`` command: a table of commands, and the one place where errors meet the user.

A command's module is imported when the command runs, so that ``harness --help`` needs click alone.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from harness.cli.tell import tell
from harness.errors import HarnessError
from harness.version import __version__

# name -> ("module:function", what ``harness --help`` says)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("harness.cli.run:command", "Measure a model on a runtime and leave a result."),
    "duel": ("harness.cli.duel:command", "Let variants take turns: their ratio, to a percent."),
    "profile": (
        "harness.cli.profile:command",
        "Say where an inference's time goes, operator by operator.",
    ),
    "ledger": (
        "harness.cli.ledger:command",
        "Say which layers to leave in FP32, and prove it.",
    ),
    "build": ("harness.cli.build:command", "Make an engine or artifact, and run nothing."),
    "capacity": (
        "harness.cli.capacity:command",
        "Find the highest rate that holds a latency bound.",
    ),
    "sweep": (
        "harness.cli.sweep:command",
        "Measure a matrix of cells, continued where it stopped.",
    ),
    "fleet": ("harness.cli.fleet:command", "Measure a night over several machines, on Ray."),
    "compare": ("harness.cli.compare:command", "Compare two runs, or sets of runs, cell by cell."),
    "check": ("harness.cli.check:command", "Fail if runs are worse than a baseline allows."),
    "export": ("harness.cli.export:command", "Write runs in the format of another tool."),
    "report": ("harness.cli.report:command", "Make one HTML or Markdown file of runs."),
    "import": (
        "harness.cli.import_:command",
        "Bring results of the compression engine into TensorBoard.",
    ),
    "history": ("harness.cli.history:command", "Show cells night by night, and since when."),
    "bisect": ("harness.cli.bisect:command", "Say what changed when a cell got worse."),
    "recover": ("harness.cli.recover:command", "Write the results that killed runs owe."),
    "show": ("harness.cli.show:command", "Show a run that lies in the results folder."),
    "verify": (
        "harness.cli.verify:command",
        "Recompute a run's figures from its samples, and check its files.",
    ),
    "baseline": ("harness.cli.baseline:command", "Promote runs to a baseline; list and show them."),
    "index": ("harness.cli.index:command", "Rebuild the index of a results folder."),
    "list": (
        "harness.cli.list:command",
        "List models, backends and profilers, and what works here.",
    ),
    "board": (
        "harness.cli.board:command",
        "Compare models at several precisions in TensorBoard.",
    ),
    "doctor": (
        "harness.cli.doctor:command",
        "Say what this machine can measure, and what it lacks.",
    ),
}

_HELP = """What does this model really cost on this hardware?

harness measures latency, throughput, energy, memory and accuracy of FP32 and INT8 models, each with
its error bar, and leaves a result file and TensorBoard events in one folder per run.

\b
  harness run                                    a built-in model on this CPU
  harness run --model net.onnx --precision int8  your ONNX file, quantized
  harness show latest                            the newest result again
  harness compare RUN_A RUN_B                    is B faster for certain?
"""

_EPILOG = """Exit codes: 0 fine; 1 worse than the gate allows; 2 bad usage or input; 3 the
measurement failed, or something required is absent; 4 nothing could be compared; 5 undecided,
where --strict asks; 130 interrupted."""


class LazyGroup(click.Group):
    """A group whose commands come from `COMMANDS`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from harness.host.names import nearest

            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean {near!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    help=_HELP,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="harness", message="%(prog)s %(version)s")
def cli() -> None:
    pass


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Expected failures are one line on stderr."""
    try:
        # not cli.main(): it turns a reader who has left into exit code 1, which is a gate's
        with cli.make_context("harness", list(sys.argv[1:] if args is None else args)) as context:
            code = cli.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, so that a reader who has left is noticed here
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:  # --help and --version
        return done.exit_code
    except HarnessError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _fail(_usage(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # as after `| head`: nobody reads on; the interpreter must not flush into the pipe at exit
        _write_no_more()
        return 141
    except OSError as error:
        if error.errno == errno.ENOENT and _deleted_cwd():
            return _fail("the current folder was deleted; go to another", 2)
        if error.errno == errno.EIO and _on_a_terminal():  # which was closed
            _write_no_more()
            return 130
        if error.errno != errno.ENOSPC:
            raise
        _write_no_more()
        return _fail(f"the output cannot be written: {error.strerror}", 2)


def _on_a_terminal() -> bool:
    import stat

    return sys.stdout is not None and stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode)


def _deleted_cwd() -> bool:
    from pathlib import Path

    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _write_no_more() -> None:
    """Point stdout at nothing: what is left in its buffer must not fail again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    end = " See" if text.endswith("?") else "; see"
    return f"{text.rstrip('.')}{end} {context.command_path} --help" if context else text


def _fail(text: str, code: int) -> int:
    tell(text)
    return code
