"""``harness run``: measure one model on one backend, and leave a result."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import AliasedOption, print_json
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.engine.driver.conductor import Outcome
    from harness.protocols import Sink
    from harness.spec import RunSpec

_FLAGS: tuple[tuple[str, str, str], ...] = (
    (
        "--model",
        "NAME|FILE|MODULE:FACTORY",
        "A zoo model (default: digits), an ONNX file, a .pt2 program or a factory.",
    ),
    ("--backend", "NAME", "onnxruntime (default), pytorch, a plug-in, or module:Class."),
    ("--device", "DEVICE", "cpu (default), cuda or cuda:N."),
    ("--precision", "PRECISION", "fp32 (default), int8, fp16 or bf16."),
    ("--batch-size", "N", "Samples per inference. Default: 1."),
    ("--batch-dim", "NAME", "The open dimension that is the batch; none where there is none."),
    ("--inputs", "FILE.npz", "Inputs by name to measure on. Default: drawn at random."),
    ("--dataset", "FILE.npz", "Inputs by name, and labels: measures accuracy."),
    ("--scores", "OUTPUT", "The output that holds the class scores, where several could."),
    ("--calibration", "FILE.npz", "Inputs by name to calibrate INT8 on."),
    ("--calibration-method", "METHOD", "minmax (default), entropy or percentile."),
    ("--quantization", "MODE", "static (default) or dynamic."),
    ("--scenario", "SCENARIO", "latency (default: one at a time) or throughput."),
    ("--concurrency", "N", "Streams at once in the throughput scenario. Default: 1; on a GPU 2."),
    ("--boundary", "BOUNDARY", "compute (default: on the device) or transfer (host to host)."),
    ("--duration", "SECONDS", "Length of the timed window; with a goal or a cap, its floor."),
    ("--iterations", "N", "Exactly so many timed iterations."),
    (
        "--precision-goal",
        "PERCENT",
        "Stop when the median is known to ± this. Default: 1% in 3 to 30 s.",
    ),
    ("--max-duration", "SECONDS", "Cap of the timed window."),
    (
        "--warmup",
        "SECONDS",
        "Shortest warm-up; it ends when latencies are steady. Default: 0.5.",
    ),
    ("--max-warmup", "SECONDS", "Longest warm-up. Default: 10; on a GPU 30."),
    ("--launches", "K", "Fresh worker processes; a comparison needs five. Default: 1."),
    (
        "--timeout",
        "SECONDS",
        "Give up on a worker without progress for so long. Default: 120; on a GPU 600.",
    ),
    ("--threads", "N", "Threads per inference. Default: one a physical core."),
    ("--inter-threads", "N", "Threads between operators. Default: 1."),
    ("--cpus", "LIST", "Processors for the worker, such as 0-3,8."),
    ("--sample-rate", "HZ", "Rate of the profilers; 0 switches them off. Default: 10 or 20."),
    (
        "--power-source",
        "SOURCE",
        "auto (default), none, powercap, hwmon, jetson, pyrapl, external:FILE.",
    ),
    ("--idle", "SECONDS", "Idle before and after, for net energy. Default: what the meter needs."),
    ("--seed", "N", "Seed of drawn inputs and weights. Default: 0."),
    ("--results", "DIR", "Where the run's folder goes. Default: results."),
)
_REPEATED = (
    ("--input-shape", "input_shapes", "NAME=1x3x224x224", "Fixes an input's symbolic dimensions."),
    ("--option", "options", "KEY=VALUE", "An option of the backend, such as compile=inductor."),
    ("--tag", "tags", "KEY=VALUE", "Kept with the result."),
    (
        "--require",
        "require",
        "QUANTITY",
        "Exit 3 if energy, accuracy, memory or interval is absent.",
    ),
)
_EARLIER = {"--results": ("--out",)}
_FIELDS = {"results": "out", "duration": "duration_s", "max_duration": "max_duration_s",
           "warmup": "warmup_s", "max_warmup": "max_warmup_s", "timeout": "timeout_s",
           "idle": "idle_s", "sample_rate": "sample_rate_hz"}  # fmt: skip


def _with_flags(command: Any) -> Any:
    for name, field, metavar, text in reversed(_REPEATED):
        command = click.option(name, field, metavar=metavar, multiple=True, help=text)(command)
    for name, metavar, text in reversed(_FLAGS):
        field = name[2:].replace("-", "_")
        names = (name, *_EARLIER.get(name, ()), _FIELDS.get(field, field))
        command = click.option(*names, cls=AliasedOption, metavar=metavar, help=text)(command)
    return command


@click.command("run", short_help="Measure one model on one backend.")
@_with_flags
@click.option("--overhead-check", is_flag=True, help="Measure what the measuring itself costs.")
@click.option("--allow-infinite", is_flag=True, help="An infinite output is an answer: no failure.")
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

    \b
    Options of the backends (--option KEY=VALUE):
      onnxruntime   graph_optimization_level=all|extended|basic|disable
                    execution_mode=sequential|parallel   allow_spinning=on|off
                    arena=on|off   deterministic=on|off   custom_ops=FILE.so
      pytorch       compile=off|inductor   channels_last=auto|on|off
    \b
    On a GPU also:
      onnxruntime   provider=cuda|tensorrt   cuda_graph=off|on   tf32=off|on
                    conv_search=exhaustive|heuristic|default
                    arena_extend=next_power_of_two|same_as_requested
      pytorch       cuda_graph=off|on   tf32=off|on
    """
    from harness import spec as specs
    from harness.engine import driver

    spec = specs.parse(values)
    _check_power_source(spec.power_source)
    with ExitStack() as cleared:  # the live line, whatever happens
        outcome = driver.run(
            spec,
            lambda folder: [
                *_live(cleared, progress_fd, wanted=not (quiet or as_json)),
                *_events(folder, spec, wanted=not no_tensorboard),
            ],
        )
    if as_json:
        print_json(outcome.result)
    elif not quiet:
        from harness.views.terminal import print_out, render_result

        print_out(render_result(outcome.result, _near(outcome.folder), whole=verbose))
    told = not (as_json or quiet) and _on_one_screen()  # the headline ends with why it failed
    for text in [*outcome.problems, *outcome.missing, *([] if told else _failure(outcome))]:
        tell(" ".join(text.split()))
    return outcome.exit_code


def _near(folder: Path) -> Path:
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


def _live(cleared: ExitStack, progress_fd: int | None, *, wanted: bool) -> list[Sink]:
    if progress_fd is not None:
        from harness.views.pipe import PipeSink

        return [PipeSink(progress_fd)]
    if not wanted:
        return []
    from harness.views.terminal import TerminalSink

    sink = TerminalSink()
    cleared.callback(sink.close, None)
    return [sink]


def _events(folder: Path, spec: RunSpec, *, wanted: bool) -> list[Sink]:
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
