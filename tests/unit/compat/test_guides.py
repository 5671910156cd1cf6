"""What the five guides name, row by row: their own code, read back by TensorBoard's own reader.

Guides 0 and 1 plan a compression engine's board, 2 is its users' guide, 3 logs a trainer of joint
embeddings, 4 a Bayesian transformer. A row is done when the guide's name works with one changed
import (`harness.compat`), or when a command of ours does what it asks for.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from board_runs import put, swept, tab
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.cli.main import main
from harness.compat import (
    BayesianTransformerLogger,
    CheckpointManager,
    CompressionWriter,
    MetricsLogger,
    TrainingLogger,
    log_benchmark_results,
)
from harness.records.result import Result

torch = pytest.importorskip("torch", reason="the guides train with torch")

ROOT = Path(__file__).parents[3]
FP32 = {"accuracy": 0.9, "f1_score": 0.89, "latency_ms": 9.0, "model_size_mb": 40.0,
        "memory_mb": 200.0, "energy_j": 5.0}  # fmt: skip
INT8 = {"accuracy": 0.891, "f1_score": 0.88, "latency_ms": 3.0, "model_size_mb": 10.0,
        "memory_mb": 150.0, "energy_j": 2.0}  # fmt: skip
_SIDE = {"accuracy": 0.9, "latency_mean_ms": 9.0, "model_size_mb": 40.0, "memory_usage_mb": 200.0,
         "energy_consumption_mw": 5000}  # fmt: skip
ENGINE = {
    "resnet18": {
        "fp32": _SIDE,
        "int8": {**_SIDE, "latency_mean_ms": 3.0, "model_size_mb": 10.0},
        "model_info": {"library": "torchvision", "category": "vision"},
        "benchmark_time_seconds": 12.5,
    }
}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.act = torch.nn.ReLU()
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        return self.last(self.act(self.first(x)))


def trained() -> Net:
    torch.manual_seed(0)
    net = Net()
    net(torch.ones(2, 4)).sum().backward()
    return net


class Figure:
    """What of a matplotlib figure is used."""

    def savefig(self, to: Any, format: str) -> None:
        from harness.training.pictures import png

        assert format == "png"
        to.write(png(np.zeros((3, 5, 3), np.uint8)))


def served(w: World) -> set[str]:
    """The models that ``compression-board`` serves of the guides' logs; asked once."""
    if not w.served:
        start = "import sys; from harness.cli.board import console; console()"
        command = [sys.executable, "-c", start, "--logdir", str(w.logs), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                found = re.search(r"http://[^#]*/", process.stdout.readline())
                assert found is not None
                address = f"{found[0]}data/plugin/compression/board"
                end = time.monotonic() + 120
                # TensorBoard reads its files while it answers
                while not w.served >= {"net", "drawn", "resnet18"} and time.monotonic() < end:
                    with urlopen(address, timeout=60) as answer:
                        entries = json.load(answer)["board"]["entries"]
                    w.served = {one["model"] for one in entries}
            finally:
                process.send_signal(signal.SIGINT)
    return w.served


class World:
    """Everything that the guides' scripts log, in one folder, once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.served: set[str] = set()
        self.logs = root / "logs"
        self.engine = root / "bench.json"
        self.engine.write_text(json.dumps(ENGINE))
        self.runs: list[Result] = swept("ours", {"fp32": 2.0, "int8": 1.0})
        put(root / "results", self.runs)
        self._compression()
        self._board_training()
        self._embeddings()
        self._bayesian()

    def _compression(self) -> None:
        with CompressionWriter(self.logs) as writer:
            writer.log_compression_comparison("net", FP32, INT8, step=1)
            self.ratios = writer.log_compression_ratios("other", FP32, INT8)
            writer.log_energy_comparison("net", 5.0, 2.0)
            writer.log_latency_distribution("net", [8.9, 9.0, 9.1], [2.9, 3.0, 3.1])
            writer.log_model_metadata("net", {"library": "torchvision"})
            self.aurora = writer.log_aurora("net")
            writer.log_hparams("net", {"bits": 8, "pruning_ratio": 0.5})
            writer.add_scalar("plain/loss", 0.5, 3)
            writer.add_scalars("drawn/latency", {"fp32": 9.0, "int8": 3.0}, 0)
            writer.add_scalars("drawn/accuracy", {"fp32": 0.75, "int8": 0.5}, 0)
            writer.add_histogram("plain/weights", np.arange(100.0), 0)
            writer.add_text("plain/note", "a *note*", 0)
            writer.add_hparams({"bits": 8}, {"hparam/accuracy": 0.75})
            writer.flush()
        with log_benchmark_results(self.engine, logdir=self.logs) as imported:
            self.imported: Any = imported.board
        log_benchmark_results(self.engine, logdir=self.logs).close()

    def _board_training(self) -> None:
        with TrainingLogger("bt", self.logs) as log:
            self.training = log.folder
            log.log_epoch(
                0, train_loss=0.5, train_acc=0.7, val_loss=0.6, val_acc=0.65, val_f1=0.6,
                learning_rate=1e-3,
            )  # fmt: skip
            log.log_early_stopping(3, "no progress", best_epoch=1)
            log.log_config({"lr": 1e-3})
            log.log_hparams({"lr": 1e-3, "layers": 2}, {"val_loss": 0.6})
            log.log_layout()
        with TrainingLogger("bt", self.logs) as log:
            log.log_hparams({"lr": 1e-1, "layers": 2}, {"val_loss": 0.9})

    def _embeddings(self) -> None:
        net, opt = trained(), torch.optim.SGD(trained().parameters(), lr=0.5)
        with MetricsLogger("hjepa", log_dir=self.logs) as log:
            self.metrics = log.folder
            log.log_metrics({"custom_metric": 1.5}, step=0, prefix="train/")
            log.log_metrics({"loss": 1.0, "ema_momentum": 0.99}, step=1)
            log.log_image("picture", np.zeros((4, 4)), step=0)
            log.log_images("pictures", np.zeros((3, 4, 4)), step=0)
            log.log_histogram("latents", np.arange(50.0), 0)
            log.log_model_gradients(net, 0)
            log.log_model_weights(net, 0)
            for value in (1.0, 3.0):
                log.accumulate_metrics({"mean_me": value})
            self.means = log.log_accumulated_metrics(step=2, prefix="epoch")
            log.log_system_metrics(step=0)
            log.log_representation("encoder", np.random.default_rng(0).normal(size=(32, 4)), 0)
            log.log_learning_rate(opt, 0)
            log.log_graph(net, torch.ones(1, 4))
            log.log_embedding("latent", np.zeros((3, 2)), ["a", "b", "c"], step=0)
            log.log_text("note", "hello", 0)
            log.log_predictions(np.zeros((2, 4, 4)), np.eye(2), np.array([0, 0]), step=0)
            self.outputs = log.log_activations(net, torch.ones(3, 4), ["first", "act"], 0)
            log.log_figure("loss_landscape", Figure(), 0)
        with MetricsLogger("off", log_dir=self.root / "off", enabled=False) as off:
            off.log_metrics({"loss": 1.0}, step=0)
            off.log_model_gradients(net, 0)
            off.log_image("picture", np.zeros((4, 4)))

    def _bayesian(self) -> None:
        net = trained()
        opt = torch.optim.SGD(
            [{"params": net.first.parameters(), "lr": 0.1},
             {"params": net.last.parameters(), "lr": 0.2}]
        )  # fmt: skip
        self.alerts: list[Any] = []
        with BayesianTransformerLogger(
            log_dir=self.logs, experiment_name="bayes", log_gradients_every=2,
            log_histograms_every=2, on_alert=self.alerts.append,
        ) as log:  # fmt: skip
            self.bayes, self.log_dir = log.folder, log.log_dir
            for step in range(4):
                log.log_metrics({"loss": 1.0 / (step + 1)}, prefix="train")
                log.log_gradients(net)
                log.log_model_histograms(net)
                log.increment_step()
            self.steps = log.global_step
            log.log_learning_rate(opt)
            log.log_attention_stats(np.full((1, 2, 3, 3), 1 / 3), layer_name="enc0")
            log.log_attention_stats(np.eye(3)[None, None], layer_name="collapsed")
            log.log_uncertainty_metrics(np.full(8, 0.3), np.full(8, 0.1))
            probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
            log.log_calibration(probabilities, np.array([0, 1]))
            log.log_epoch(1, val_loss=0.5, val_acc=0.75)
            log.log_gradients({"w": np.full(4, 1e6)}, step=10)
            log.log_metrics({"loss": float("nan")}, prefix="train", step=11)
            log.log_metrics({"my_metric": 4.0}, prefix="custom", step=0)
            log.log_figure("interactive", Figure(), 0)
        checkpoints = CheckpointManager(self.root / "checkpoints", max_keep=1)
        for epoch, best in enumerate((False, True, False)):
            checkpoints.save_checkpoint(
                net, opt, None, epoch, 10 * epoch, {"val_loss": 1.0}, is_best=best
            )
        self.checkpoints: Any = checkpoints


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("guides"))


EVERYTHING = dict.fromkeys(("scalars", "histograms", "images", "tensors"), 0)
_READ: dict[Path, EventAccumulator] = {}


def events(folder: Path) -> EventAccumulator:
    if folder not in _READ:
        _READ[folder] = EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()
    return _READ[folder]


def scalar(folder: Path, tag: str) -> float:
    return float(events(folder).Scalars(tag)[-1].value)


def tags(folder: Path, kind: str) -> list[str]:
    found: list[str] = events(folder).Tags()[kind]
    return found


def text(folder: Path, tag: str) -> str:
    (said,) = events(folder).Tensors(tag)[-1].tensor_proto.string_val
    return str(said.decode())


def board(w: World, model: str) -> dict[str, Any]:
    return {e.precision: e for e in tab(w.logs).entries if e.model == model}


ROWS: list[tuple[str, str, Callable[[World], Any]]] = []


def row(guide: str, feature: str) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    def add(check: Callable[[World], Any]) -> Callable[[World], Any]:
        ROWS.append((guide, feature, check))
        return check

    return add


def simple(guide: str, feature: str, check: Callable[[World], bool]) -> None:
    ROWS.append((guide, feature, check))


# -- guides 0 and 1 -------------------------------------------------------------------------------

simple("01", "read engine JSON", lambda w: {e.precision for e in w.imported.entries}
       == {"fp32", "int8"})  # fmt: skip
simple("0", "accuracy, F1, latency, size, memory, energy", lambda w: all(
    scalar(w.logs / "net", f"net/{step}/int8") == pytest.approx(value)
    for step, value in (("accuracy", 0.891), ("f1_score", 0.88), ("latency", 3.0),
                        ("model_size", 10.0), ("memory", 150.0), ("energy", 2.0))))  # fmt: skip
simple("0", "energy_consumption_mw", lambda w: board(w, "resnet18")["fp32"]
       .figures["power_mw"].value == 5000 and "energy_j"
       in board(w, "resnet18")["fp32"].derived)  # fmt: skip
simple("01", "CompressionWriter by one import", lambda w: CompressionWriter.__module__
       == "harness.compat")  # fmt: skip


@row("0", "a CompressionWriter is a SummaryWriter too")
def _(w: World) -> bool:
    assert scalar(w.logs, "plain/loss") == 0.5
    assert events(w.logs).Histograms("plain/weights")[-1].histogram_value.num == 100
    assert text(w.logs, "plain/note") == "a *note*"
    return "_hparams_/session_start_info" in events(w.logs).summary_metadata


simple("01", "compression ratios, speedup", lambda w: (w.ratios["size_ratio"],
       w.ratios["speedup"]) == (4.0, 3.0))  # fmt: skip
simple("0", "models side by side", lambda w: len({e.model for e in tab(w.logs).entries}) >= 3)


@row("02", "FP32 over INT8 in one SCALARS chart")
def _(w: World) -> bool:
    runs = {p: scalar(w.logs / f"drawn_latency_{p}", "drawn/latency") for p in ("fp32", "int8")}
    return runs == {"fp32": 9.0, "int8": 3.0}  # one tag in two runs is one chart


@row("1", "the quick start's logs show in the tab")
def _(w: World) -> bool:
    drawn = board(w, "drawn")
    return drawn["int8"].figures["latency_ms"].value == 3.0 and drawn["int8"].ratios["speedup"] == 3


@row("2", "scripts/visualize_benchmark.py FILE is harness import")
def _(w: World) -> bool:
    return main(["import", str(w.engine), "--results", str(w.root / "visualized")]) == 0


simple("0", "AURORA score", lambda w: w.aurora is not None and w.aurora.score
       == pytest.approx(scalar(w.logs / "net", "net/compression/aurora")))  # fmt: skip


@row("0", "custom AURORA plots")
def _(w: World) -> bool:
    charts = (ROOT / "harness/board/static/charts.js").read_text()
    return "export function aurora" in charts and board(w, "net")["int8"].aurora.components != {}


@row("0", "metrics across techniques")
def _(w: World) -> bool:
    from harness.compression.from_results import board_from

    dynamic = swept("ours", {"int8": 1.5}, "dynamic", quantization="dynamic")
    entries = board_from([*w.runs, *dynamic]).entries
    return [e.setting for e in entries if e.precision == "int8"] == ["dynamic", "static, minmax"]


simple("0", "accuracy against latency and size", lambda w: {"latency_ms", "model_size_mb"}
       <= board(w, "net")["int8"].figures.keys())  # fmt: skip
simple("02", "latency histograms before and after", lambda w: {
    f"net/latency_distribution/{p}" for p in ("fp32", "int8")
} <= set(tags(w.logs / "net", "histograms")))  # fmt: skip
simple("0", "size reduction, accuracy degradation", lambda w:
       scalar(w.logs / "net", "net/compression/size_ratio") == 4.0
       and scalar(w.logs / "net", "net/compression/accuracy_drop")
       == pytest.approx(0.009))  # fmt: skip


@row("0", "processor, memory and time during compression")
def _(w: World) -> bool:
    from harness.protocols import Quantization
    from harness.quantize.cost import metered

    def make() -> Quantization:
        held = np.ones(8_000_000)  # 64 MB
        assert held.sum() == 8e6
        return Quantization("r", "m", "s", "none", "", 0)

    cost = metered(make).cost
    assert cost is not None and cost.duration_s > 0 and cost.cpu_s >= 0
    return not isinstance(cost.peak_rss_bytes, int) or cost.peak_rss_bytes > 64_000_000


simple("0", "processor and memory during the benchmark", lambda w: "worker_cpu"
       in getattr(w.runs[0].profiles, "channels", {}))  # fmt: skip
simple("0", "power, if available", lambda w: board_missing(w).startswith("no meter"))


def board_missing(w: World) -> str:
    (entry,) = (e for e in tab(w.root / "results").entries if e.precision == "int8")
    return str(entry.missing["energy_j"])


simple("02", "hparams: bits, pruning", lambda w: {"bits", "pruning_ratio"} <= set(
    hparams(w.logs / "net")))  # fmt: skip


def hparams(folder: Path) -> dict[str, Any]:
    from tensorboard.plugins.hparams import plugin_data_pb2

    pb: Any = plugin_data_pb2

    content = events(folder).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    said = pb.HParamsPluginData.FromString(content)
    return dict(said.session_start_info.hparams.items())


simple("01", "early stopping", lambda w: scalar(w.training, "bt/training/early_stopping/epoch")
       == 3)  # fmt: skip


@row("0", "a dashboard of its own: the plug-in")
def _(w: World) -> bool:
    found = entry_points(group="tensorboard_plugins")
    return any(one.name == "compression" for one in found)


@row("0", "reports exported to TensorBoard")
def _(w: World) -> bool:
    said = text(w.root / "results" / w.runs[0].id, "summary")
    imported = text(w.logs / "resnet18", "resnet18/summary")
    return "|" in said and "| fp32 |" in imported  # Markdown tables, of imports too


@row("0", "benchmark runner: harness sweep")
def _(w: World) -> bool:
    plan = w.root / "nightly.toml"
    plan.write_text('name = "n"\n[matrix]\nmodel = ["digits"]\nprecision = ["fp32", "int8"]\n')
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["sweep", str(plan), "--dry-run", "--out", str(w.root / "sweeps")]) == 0
    cells = [line for line in said.getvalue().splitlines() if "digits/" in line]
    return len(cells) == 2 and len(tab(w.root / "results").entries) == 2


@row("0", "CI/CD")
def _(w: World) -> bool:
    results = str(w.root / "results")
    ids = ",".join(run.id for run in w.runs if run.spec.precision == "fp32")
    assert main(["baseline", "promote", ids, "--name", "r", "--results", results]) == 0
    gate = w.root / "gate"
    main(["check", ids, "--baseline", "r", "--results", results, "--report-dir", str(gate)])
    return {".xml", ".md", ".json"} <= {path.suffix for path in gate.iterdir()}


@row("0", "example notebooks")  # which tests/e2e/test_training_example.py runs
def _(w: World) -> bool:
    cells = json.loads((ROOT / "examples/train_digits.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for source in code:
        compile(source, "cell", "exec")
    return any("harness" in source for source in code)


@row("0", "logging is not in the way")
def _(w: World) -> bool:
    """The process that measures knows of no TensorBoard."""
    code = ("import sys, harness.engine.worker.main;"
            "print(sorted(m for m in sys.modules if 'tensorboard' in m.lower()))")  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return ran.stdout.strip() == "[]"


# -- guide 2 --------------------------------------------------------------------------------------


@row("2", "compression-board --logdir D")
def _(w: World) -> bool:
    (script,) = entry_points(group="console_scripts", name="compression-board")
    assert script.value == "harness.cli.board:console"
    return {"net", "drawn", "resnet18"} <= served(w)


simple("2", "tags {m}/accuracy, /latency, /model_size", lambda w: all(
    f"net/{step}/fp32" in tags(w.logs / "net", "scalars")
    for step in ("accuracy", "latency", "model_size")))  # fmt: skip
simple("2", "tags {m}/compression/...", lambda w: {
    f"net/compression/{name}" for name in ("size_ratio", "speedup", "accuracy_drop")
} <= set(tags(w.logs / "net", "scalars")))  # fmt: skip
simple("2", "tags {m}/training, {m}/validation", lambda w: {
    "bt/training/loss", "bt/validation/loss"} <= set(tags(w.training, "scalars")))  # fmt: skip
simple("2", "size reduction %, retention %, memory reduction", lambda w: (
    w.ratios["size_reduction_pct"], w.ratios["memory_reduction_mb"]) == (75.0, 50.0)
    and w.ratios["accuracy_retention_pct"] == pytest.approx(99.0))  # fmt: skip
simple("2", "energy reduction is a difference", lambda w:
       scalar(w.logs / "net", "net/compression/energy_reduction") == 3.0
       and w.ratios["energy_saving_share"] == pytest.approx(0.6))  # fmt: skip
simple("2", "tags {m}/latency_distribution", lambda w: events(w.logs / "net").Histograms(
    "net/latency_distribution/fp32")[-1].histogram_value.num == 3)  # fmt: skip
simple("2", "log_compression_comparison, _ratios", lambda w: "other/compression/speedup"
       in tags(w.logs / "other", "scalars"))  # fmt: skip
simple("2", "log_benchmark_results(p, logdir=).close()", lambda w: w.imported is not None)
simple("2", "TrainingLogger(model, logdir)", lambda w: w.training.parent == w.logs.absolute())
simple("2", "log_epoch", lambda w: scalar(w.training, "bt/validation/f1_score")
       == pytest.approx(0.6))  # fmt: skip
simple("2", "several models in one logdir", lambda w: {"net", "drawn", "resnet18"} <= {
    e.model for e in tab(w.logs).entries})  # fmt: skip


@row("2", "examples/compression_benchmark_example.py")
def _(w: World) -> bool:
    target = w.root / "example"
    command = [
        sys.executable,
        str(ROOT / "examples/compression_writer.py"),
        "--logdir",
        str(target),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=600, cwd=w.root)
    return len(tab(target).entries) >= 4


@row("2", "a port in use is said")
def _(w: World) -> bool:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        return main(["board", "--logdir", str(w.logs), "--port", port]) == 2


# -- guide 3 --------------------------------------------------------------------------------------

simple("3", "MetricsLogger", lambda w: w.metrics.name.startswith("training-hjepa"))
simple("3", "log_metrics(prefix='train/')", lambda w: scalar(
    w.metrics, "hjepa/train/custom_metric") == 1.5)  # fmt: skip
simple("3", "log_image, log_images", lambda w: {
    "hjepa/training/images/picture", "hjepa/training/images/pictures"
} <= set(tags(w.metrics, "images")))  # fmt: skip
simple("3", "log_histogram(tag, values, step)", lambda w: events(w.metrics).Histograms(
    "hjepa/latents")[-1].histogram_value.num == 50)  # fmt: skip
simple("3", "log_model_gradients", lambda w: scalar(
    w.metrics, "hjepa/training/gradients/total_norm") > 0)  # fmt: skip
simple("3", "log_model_weights", lambda w: "hjepa/training/histograms/weights/first.weight"
       in tags(w.metrics, "histograms")
       and scalar(w.metrics, "hjepa/training/weights/total_norm") > 0)  # fmt: skip
simple("3", "metric aggregation", lambda w: w.means == {"mean_me": 2.0}
       and scalar(w.metrics, "hjepa/epoch/mean_me") == 2.0)  # fmt: skip
simple("3", "system metrics", lambda w: any(
    tag.startswith("hjepa/training/system/memory/") for tag in tags(w.metrics, "scalars")
))  # fmt: skip


@row("3", "torch's allocated and reserved GPU memory")
def _(w: World) -> bool:
    from harness.training import system

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        for at, name in enumerate(("memory_allocated", "memory_reserved",
                                   "max_memory_allocated", "max_memory_reserved")):  # fmt: skip
            patch.setattr(torch.cuda, name, lambda at=at: 1000 + at)
        found = system.torch_memory()
    assert system.torch_memory() == {}
    return found == {
        "memory/torch_allocated_bytes": 1000, "memory/torch_reserved_bytes": 1001,
        "memory/torch_allocated_peak_bytes": 1002, "memory/torch_reserved_peak_bytes": 1003,
    }  # fmt: skip


simple("3", "collapse: std, norm, rank", lambda w: all(
    f"hjepa/training/representation/encoder/{name}" in tags(w.metrics, "scalars")
    for name in ("std_mean", "norm_mean", "effective_rank")))  # fmt: skip
simple("3", "loss, lr, ema_momentum by step", lambda w: events(w.metrics).Scalars(
    "hjepa/ema_momentum")[0].step == 1)  # fmt: skip
simple("3", "graph", lambda w: events(w.metrics).Tags()["graph"] is True)
simple("3", "embedding projector", lambda w: any(w.metrics.rglob("projector_config.pbtxt")))
simple("3", "text; training configuration", lambda w: text(
    w.metrics, "hjepa/training/text/note") == "hello" and "lr" in text(
    w.training, "bt/training/config"))  # fmt: skip
simple("3", "sample predictions", lambda w: "hjepa/training/predictions"
       in tags(w.metrics, "images") and "wrong" in text(
           w.metrics, "hjepa/training/predictions/table"))  # fmt: skip


@row("3", "custom dashboard configuration")
def _(w: World) -> bool:
    from tensorboard.plugins.custom_scalar import layout_pb2

    pb: Any = layout_pb2

    def charts(folder: Path) -> dict[str, list[str]]:
        (said,) = events(folder).Tensors("custom_scalars__config__")[-1].tensor_proto.string_val
        layout = pb.Layout.FromString(said)
        return {c.title: [*c.multiline.tag] for one in layout.category for c in one.chart}

    (loss,) = charts(w.training)["loss"]
    assert all(re.search(loss, f"bt/{part}/loss") for part in ("training", "validation"))
    assert not re.search(loss, "bt/training/loss_scale")
    (latency,) = charts(w.logs / "net")["net: latency [ms]"]
    ours = charts(w.root / "results" / w.runs[0].id)
    assert "ours: latency [ms]" in ours and "median latency [ms]" in ours
    return all(re.search(latency, f"net/latency/{p}") for p in ("fp32", "int8"))


@row("3", "activations of chosen layers")
def _(w: World) -> bool:
    assert set(w.outputs) == {"first", "act"} and tuple(w.outputs["act"].shape) == (3, 8)
    share = scalar(w.metrics, "hjepa/training/activations/act/zeros_share")
    return share == pytest.approx(float((w.outputs["act"] == 0).float().mean()))


@row("3", "loss landscape, collapse plots")
def _(w: World) -> bool:
    found = events(w.metrics).Images("hjepa/training/figures/loss_landscape")[-1]
    return (found.height, found.width) == (3, 5)


simple("3", "LR schedule", lambda w: scalar(w.metrics, "hjepa/training/learning_rate/group0")
       == 0.5)  # fmt: skip
simple("3", "automated collapse alerts", lambda w: any(
    alert.rule == "attention_entropy" for alert in w.alerts))  # fmt: skip
simple("3", "tensorboard.enabled: false", lambda w: not (w.root / "off").exists())
simple("3", "launch_tensorboard.sh is harness board", lambda w: {"net", "drawn"} <= served(w))


@row("3", "logging never ends training")
def _(w: World) -> bool:
    import shutil

    with MetricsLogger("gone", log_dir=w.root / "gone") as log:
        shutil.rmtree(w.root / "gone")
        log.log_metrics({"loss": 1.0}, step=0)
        log._to.events.flush()
        log.log_metrics({"loss": 2.0}, step=1)
        return log.problem is not None


# -- guide 4 --------------------------------------------------------------------------------------

simple("4", "BayesianTransformerLogger(log_dir, experiment_name)", lambda w:
       w.bayes.name.startswith("training-bayes"))  # fmt: skip
simple("4", "log_metrics(prefix='train')", lambda w: len(events(w.bayes).Scalars(
    "bayes/train/loss")) == 4)  # fmt: skip
simple("4", "gradient flow every N", lambda w: [
    point.step for point in events(w.bayes).Scalars("bayes/training/gradients/total_norm")
] == [0, 2, 10] and "bayes/training/gradients/layer/first"
    in tags(w.bayes, "scalars"))  # fmt: skip
simple("4", "LR of all groups", lambda w: [scalar(
    w.bayes, f"bayes/training/learning_rate/group{i}") for i in (0, 1)
] == pytest.approx([0.1, 0.2]))  # fmt: skip
simple("4", "attention entropy, statistics", lambda w: scalar(
    w.bayes, "bayes/training/attention/enc0/head1/entropy_nats")
    == pytest.approx(np.log(3)))  # fmt: skip
simple("4", "log_uncertainty_metrics", lambda w: scalar(
    w.bayes, "bayes/training/uncertainty/epistemic_share") == pytest.approx(0.75)
    and "bayes/training/uncertainty/aleatoric" in tags(w.bayes, "histograms"))  # fmt: skip
simple("4", "log_model_histograms, every N", lambda w: [
    point.step for point in events(w.bayes).Histograms(
        "bayes/training/histograms/weights/last.weight")] == [0, 2])  # fmt: skip
simple("4", "log_gradients_every, log_histograms_every", lambda w: w.steps == 4)
simple("4", "context manager", lambda w: BayesianTransformerLogger.__enter__ is not None
       and len(events(w.bayes).Tags()["scalars"]) > 5)  # fmt: skip
simple("4", "global_step, increment_step", lambda w: w.steps == 4)
simple("4", "CheckpointManager(dir, max_keep)", lambda w: len(w.checkpoints.records()) == 2)
simple("4", "save_checkpoint(model, opt, sched, epoch, step, metrics)", lambda w:
       w.checkpoints.load().state["extra"] == {"epoch": 2}
       and w.checkpoints.load().step == 20)  # fmt: skip
simple("4", "is_best=True", lambda w: w.checkpoints.load("best").step == 10)
simple("4", "alerts: explosion, entropy, anomalies", lambda w: {
    "gradient_explosion", "attention_entropy", "non_finite_loss"
} <= {alert.rule for alert in w.alerts})  # fmt: skip
simple("4", "calibration", lambda w: scalar(
    w.bayes, "bayes/validation/calibration/expected_error") == pytest.approx(0.15)
    and "bayes/validation/calibration/reliability" in tags(w.bayes, "images"))  # fmt: skip
simple("4", "validation through the logger", lambda w: scalar(
    w.bayes, "bayes/validation/accuracy") == 0.75)  # fmt: skip
simple("4", "logger.log_dir", lambda w: w.log_dir == w.bayes and w.log_dir.is_dir())


@row("4", "notifications: a webhook by on_alert")
def _(w: World) -> bool:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    heard: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        command = [sys.executable, str(ROOT / "examples/alert_webhook.py"),
                   f"http://127.0.0.1:{server.server_port}/hook", "--logdir",
                   str(w.root / "hook")]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        answering.join(timeout=600)
    return b"non_finite_loss" in heard[0]


simple("4", "custom metrics, plots", lambda w: scalar(w.bayes, "bayes/custom/my_metric") == 4.0
       and "bayes/training/figures/interactive" in tags(w.bayes, "images"))  # fmt: skip


@row("4", "hparams of a training and the best configuration")
def _(w: World) -> bool:
    from harness.training import best_configuration

    best = best_configuration(w.logs, "val_loss")
    assert best.folder == w.training and best.hparams["lr"] == pytest.approx(1e-3)
    worst = best_configuration(w.logs, "val_loss", "max")
    return {"lr", "layers", "model"} <= hparams(w.training).keys() and worst.folder != best.folder


simple("4", "view_tensorboard.sh is harness board", lambda w: {"net", "drawn"} <= served(w))


@row("4", "a Bayesian transformer's example")
def _(w: World) -> bool:
    target = w.root / "transformer"
    command = [sys.executable, str(ROOT / "examples/train_transformer.py"), "--steps", "20",
               "--logdir", str(target)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    (folder,) = target.glob("training-transformer-*")
    found = set(tags(folder, "scalars"))
    assert len(list((target / "checkpoints-transformer").glob("*.pt"))) == 1
    return {
        "transformer/training/attention/attend/head0/entropy_nats",
        "transformer/training/uncertainty/epistemic_share",
        "transformer/validation/calibration/expected_error",
    } <= found


@row("4", "--samples_per_plugin")
def _(w: World) -> bool:
    from harness.cli import board as command

    tensorboard = command._tensorboard()
    asked = ["--logdir", str(w.logs), "--samples_per_plugin", "images=7"]
    command._configure(tensorboard, asked)
    assert tensorboard.flags.samples_per_plugin == {"images": 7}
    return main(["board", "--logdir", str(w.logs), "--nonsense", "1"]) == 2


simple("4", "tensorboard --logdir=runs", lambda w: len(tab(w.logs).entries) > 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "check", [check for *_, check in ROWS], ids=[f"{guide}: {what}" for guide, what, _ in ROWS]
)
def test_what_the_guides_name_works(world: World, check: Callable[[World], Any]) -> None:
    assert check(world)


def test_the_rows_are_all_there() -> None:
    assert len(ROWS) == 88
