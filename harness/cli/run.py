"""``harness run``: measure one model on one backend, and leave a result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import AliasedOption, print_json
from harness.cli.tell import tell
from harness.spec import FIELDS

if TYPE_CHECKING:
    from harness.engine.driver.conductor import Outcome
    from harness.engine.driver.sinks import Sink
    from harness.spec import RunSpec


def with_flags(command: Any) -> Any:
    """Give ``command`` the flags of a run."""
    return flags_with({})(command)


def flags_with(
    helps: Mapping[str, str], hidden: Collection[str] = (), only: Collection[str] | None = None
) -> Callable[[Callable[..., int]], Any]:
    """`with_flags`, with other ``helps`` for the fields named, and ``hidden`` ones; ``only`` names
    the fields that there are flags of, if not of all."""

    def decorate(command: Any) -> Any:
        for field in reversed(FIELDS):
            if only is not None and field.name not in only:
                continue
            kind: dict[str, Any] = {"metavar": field.metavar, "multiple": field.many}
            if field.parse is None:
                kind = {"is_flag": True}
            names = (field.flag, *field.aliases, field.name)
            text = helps.get(field.name, field.help)
            kind["hidden"] = field.name in hidden
            command = click.option(*names, cls=AliasedOption, help=text, **kind)(command)
        return command

    return decorate


class _Run(click.Command):
    """Its help ends with the options of the backends that come with Harness, as they declare them.

    A plug-in's are in ``harness list backends``: help runs no stranger's code.
    """

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from harness import registry
        from harness.cli.list import option_help, option_text

        for name in registry.BACKENDS:
            with formatter.section(f"Options of {name} (--option KEY=VALUE)"):
                formatter.write_dl(
                    [
                        (option_text(one), option_help(one))
                        for one in registry.declared(name).options
                    ]
                )
        formatter.write_paragraph()
        formatter.write_text("Those of plug-ins: harness list backends.")


@click.command("run", cls=_Run, short_help="Measure one model on one backend.")
@with_flags
@click.option("--json", "as_json", is_flag=True, help="Print the result alone, as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Print every figure, as harness show does.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--no-tensorboard", is_flag=True, help="Write no TensorBoard events.")
@click.option("--progress-fd", type=int, hidden=True)  # how a sweep sees inside a launch
def command(
    as_json: bool,
    verbose: bool,
    quiet: bool,
    no_tensorboard: bool,
    progress_fd: int | None,
    **values: Any,
) -> int:
    """Measure one model on one backend, and leave a result, its samples and TensorBoard events.

    Without flags: the built-in digits model on ONNX Runtime, FP32, on the CPU, until the median is
    known to 1 %.
    """
    from harness import spec as specs
    from harness.engine import driver

    spec = specs.parse(values)
    _check_power_source(spec.power_source)
    with ExitStack() as cleared:  # the live line, whatever happens
        outcome = driver.run(
            spec,
            lambda folder: [
                *live(cleared, progress_fd, wanted=not (quiet or as_json)),
                *events(folder, spec, wanted=not no_tensorboard),
            ],
        )
    if as_json:
        print_json(outcome.result)
    elif not quiet:
        from harness.views.terminal import print_out, render_result

        print_out(render_result(outcome.result, near(outcome.folder), whole=verbose))
    told = not (as_json or quiet) and _on_one_screen()  # the headline ends with why it failed
    for text in [*outcome.problems, *outcome.missing, *([] if told else _failure(outcome))]:
        tell(" ".join(text.split()))
    return outcome.exit_code


def near(folder: Path) -> Path:
    """As the reader would type it: from here, if it lies below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _on_one_screen() -> bool:
    streams = (sys.stdout, sys.stderr)
    return all(stream is not None and stream.isatty() for stream in streams)


def _check_power_source(name: str) -> None:
    """Raises `UsageError` for one that nobody knows or has; ``auto`` needs no look."""
    if name == "auto":
        return
    from harness.profiles.power.sources import sources_of

    if "external" in sources_of(name):
        from harness.profiles.power.external import require_file

        require_file(name)


def live(cleared: ExitStack, progress_fd: int | None, *, wanted: bool) -> list[Sink]:
    if progress_fd is not None:
        from harness.views.pipe import PipeSink

        return [PipeSink(progress_fd)]
    if not wanted:
        return []
    from harness.views.terminal import TerminalSink

    sink = TerminalSink()
    cleared.callback(sink.close, None)
    return [sink]


def events(folder: Path, spec: RunSpec, *, wanted: bool) -> list[Sink]:
    if not wanted:
        return []
    from harness.tensorboard.live import TensorBoardSink

    return [TensorBoardSink(folder, spec)]


def _failure(outcome: Outcome) -> list[str]:
    """One line for a run that failed."""
    from harness.views.headline import shortened

    result, error = outcome.result, outcome.result.error
    if result.status != "failed":
        return []
    why = next((c.reason for c in result.validity if c.verdict == "fail"), "the run failed")
    return [shortened("; ".join(filter(None, (error.message, error.remedy))) if error else why)]
