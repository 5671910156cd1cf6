"""``harness board``: TensorBoard on the results, at the tab where models are compared."""

from __future__ import annotations

import contextlib
import io
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from harness.cli.output import results_folder
from harness.cli.tell import tell
from harness.errors import UsageError
from harness.records.store import owed

_PIP = "pip install 'hw-harness[board]'"


@click.command(
    "board",
    short_help="Compare models at several precisions in TensorBoard.",
    context_settings={"ignore_unknown_options": True},
)
@results_folder("Where the runs lie.", "--logdir", name="logdir")
@click.option(
    "--port", default=6006, show_default=True, metavar="N", type=click.IntRange(0, 65535),
    help="0 takes a free one.",
)  # fmt: skip
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
    help="Anything but loopback lets the network read your results.",
)  # fmt: skip
@click.argument("arguments", metavar="[TENSORBOARD'S OWN]...", nargs=-1, type=click.UNPROCESSED)
def command(logdir: str, port: int, host: str, arguments: tuple[str, ...]) -> None:
    """Start TensorBoard on a folder of runs, and print the address of its COMPRESSION tab.

    The tab compares FP32 with INT8 over many models: a table, Pareto charts, latency distributions
    and a card per model. It follows runs while they go. Ctrl-C ends it.

    Other arguments go to TensorBoard: --samples_per_plugin images=100, --reload_interval 2.
    """
    _check_folder(Path(logdir))
    if killed := owed(logdir):
        tell(f"runs in {logdir!r} that are not shown: {killed}")
    tensorboard = _tensorboard()
    _configure(tensorboard, ["--logdir", logdir, "--port", str(port), "--host", host, *arguments])
    url = _launch(tensorboard, port, host)
    click.echo(f"Compression Board: {url}#compression   (Ctrl-C ends it)")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it, so nothing was interrupted
        signal.pause()


def _configure(tensorboard: Any, arguments: list[str]) -> None:
    """Raises `UsageError` for what TensorBoard does not take."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            tensorboard.configure(argv=[None, *arguments])
    except (SystemExit, ValueError) as error:
        lines = [*said.getvalue().strip().splitlines(), str(error)]
        told = next((line for line in lines if "error:" in line), lines[-1])
        why = told.partition("error: ")[2] or told
        raise UsageError(f"TensorBoard says: {why:.200}", "tensorboard --helpfull") from error


def console() -> None:
    """The command ``compression-board``: ``harness board``."""
    from harness.cli.main import main

    sys.exit(main(["board", *sys.argv[1:]]))


def _check_folder(logdir: Path) -> None:
    if not logdir.exists():
        raise UsageError(
            f"there is no folder {str(logdir)!r}",
            "harness run makes one; or name one with --results",
        )
    if not logdir.is_dir():
        raise UsageError(f"{str(logdir)!r} is a file", "name the folder that holds the runs")


def _tensorboard() -> Any:
    """TensorBoard, not configured yet, with this package's plug-in."""
    try:
        from tensorboard import default, program
    except ImportError as error:
        raise UsageError(f"the board needs TensorBoard, and {error}", _PIP) from error
    from harness.board.plugin import Loader

    plugins = default.get_plugins()
    if Loader not in plugins:  # run from a source tree that is not installed
        plugins.append(Loader)
    return program.TensorBoard(plugins=plugins, server_class=_server)


def _server(app: Any, flags: Any) -> Any:
    """TensorBoard's own server, in front of which nobody gets by another name."""
    from tensorboard import program

    from harness.board.guard import only_by_own_name

    guarded = only_by_own_name(app, flags.host or "localhost")
    return program.create_port_scanning_werkzeug_server(guarded, flags)


def _launch(tensorboard: Any, port: int, host: str) -> str:
    """The address, once it listens. Raises `UsageError` where it cannot."""
    from tensorboard import program

    said = io.StringIO()  # its advice on the fast loader, each time
    try:
        with contextlib.redirect_stderr(said):
            url: str = tensorboard.launch()
    except program.TensorBoardPortInUseError as error:
        raise UsageError(
            f"port {port} on {host} is in use, perhaps by another board",
            f"--port {_free_port(host)} is free; --port 0 takes any",
        ) from error
    except program.TensorBoardServerException as error:
        raise UsageError(f"cannot listen on {host} port {port}: {error.msg}") from error
    except (OSError, SystemExit) as error:  # it ends the process where a socket is refused
        lines = said.getvalue().strip().splitlines() or [str(error)]
        raise UsageError(
            f"cannot listen on {host} port {port}: {lines[-1]:.200}",
            "name an address of this machine",
        ) from error
    return url


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
