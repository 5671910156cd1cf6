"""A model's whole life in one log folder: train it, watch it, quantize it, measure both.

    python examples/train_digits.py [--logdir results] [--epochs 12] [--duration 1]

Needs `pip install 'hw-harness[torch,onnxruntime,board]' scikit-learn`. About half a minute.
Afterwards the folder holds the training curves (`training-digits-...`), one run per precision
with latency, accuracy and every sensor, and the checkpoints.

`train_digits.ipynb` beside this file takes the same steps, calling these functions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

try:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from harness.models.onnx_export import export_onnx
    from harness.models.train_digits import CALIBRATION, shifted, split
except ModuleNotFoundError as error:
    needs = "pip install 'hw-harness[torch,onnxruntime,board]' scikit-learn"
    sys.exit(f"train_digits: {error.name} is not installed; {needs}")

from harness.engine import driver
from harness.engine.driver.conductor import Outcome
from harness.spec import parse
from harness.tensorboard.live import TensorBoardSink, headline_values
from harness.training import CheckpointManager, TrainingLogger
from harness.zoo.digits import Digits

NAME = "digits-trained"
BATCH = 64
LEARNING_RATE = 6e-3


class Data(NamedTuple):
    """Images [N, 1, 8, 8] in [0, 1] and labels [N]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class Files(NamedTuple):
    """What a benchmark run needs."""

    model: Path
    calibration: Path
    test: Path


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load() -> Data:
    return Data(*split())


# -- training ------------------------------------------------------------------------------------


def train(data: Data, logdir: Path, epochs: int) -> Digits:
    """The best of ``epochs`` epochs by validation loss. Curves and checkpoints go to ``logdir``."""
    torch.set_num_threads(1)  # a net this small gains nothing from a second one
    torch.manual_seed(0)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    steps = epochs * (len(data.train_x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    checkpoints = CheckpointManager(logdir / f"checkpoints-{NAME}", max_keep=2)
    with TrainingLogger(NAME, logdir, log_gradients_every=10, log_histograms_every=50) as logger:
        logger.log_config({"epochs": epochs, "batch": BATCH, "peak_learning_rate": LEARNING_RATE})
        logger.log_graph(model, data.test_x[:2])
        logger.log_images("train", data.train_x[:16])
        say(f"training {NAME} for {epochs} epochs; watch it: tensorboard --logdir {logdir}")
        for epoch in range(epochs):
            train_epoch(model, optimizer, schedule, data, logger)
            val_loss = validate(model, data, logger, epoch)
            checkpoints.save(logger.step, model, optimizer, schedule, {"val_loss": val_loss})
        best = checkpoints.resume(model, which="best")
        look_closer(model, data, logger)
        logger.log_training_summary(
            best_step=best and best.step, best_metrics=best and best.metrics
        )
    return model


def train_epoch(
    model: Digits,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: Data,
    logger: TrainingLogger,
) -> None:
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    generator = torch.Generator().manual_seed(logger.step)
    model.train()
    for batch in torch.randperm(len(data.train_x), generator=generator).split(BATCH)[:-1]:
        logits = model(shifted(data.train_x[batch], generator))
        loss = loss_of(logits, data.train_y[batch])
        optimizer.zero_grad()
        loss.backward()
        logger.log_gradients(model)
        logger.log_histograms(model)
        logger.log_learning_rate(optimizer)
        optimizer.step()
        schedule.step()
        correct = (logits.argmax(1) == data.train_y[batch]).float().mean()
        logger.log_metrics({"loss": loss.detach()})
        logger.accumulate({"loss": loss, "accuracy": correct})
        logger.next_step()


def validate(model: Digits, data: Data, logger: TrainingLogger, epoch: int) -> float:
    """The curves of the epoch; returns the validation loss."""
    means = logger.flush()
    model.eval()
    with torch.no_grad():
        logits = model(data.test_x)
    loss: float = nn.functional.cross_entropy(logits, data.test_y).item()
    accuracy = (logits.argmax(1) == data.test_y).float().mean().item()
    logger.log_epoch(epoch, means["loss"], means["accuracy"], val_loss=loss, val_acc=accuracy)
    say(f"  epoch {epoch + 1}: loss {means['loss']:.3f}, validation {loss:.3f} ({accuracy:.1%})")
    logger.log_calibration(logits.softmax(1), data.test_y)
    logger.log_system()
    return loss


def look_closer(model: Digits, data: Data, logger: TrainingLogger) -> None:
    """What the trained model sees."""
    model.eval()
    features = nn.Sequential(model.stem, model.stem_relu, model.blocks, model.pool, model.flatten)
    with torch.no_grad():
        embeddings = features(data.test_x)
        logits = model.head(embeddings)
    logger.log_representation("features", embeddings)
    logger.log_embedding("features", embeddings, data.test_y, data.test_x)
    logger.log_predictions(data.test_x, logits, data.test_y)


# -- compressing and measuring -------------------------------------------------------------------


def export(model: Digits, data: Data, folder: Path) -> Files:
    """The ONNX file, inputs to calibrate INT8 on, and labelled data."""
    say(f"exporting it to {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder / f"{NAME}.onnx", folder / "calibration.npz", folder / "test.npz")
    model.eval()
    export_onnx(model, (data.test_x[:2],), files.model, ["images"], ["logits"], batched=True)
    np.savez(files.calibration, images=data.train_x[:CALIBRATION].numpy())
    np.savez(files.test, images=data.test_x.numpy(), labels=data.test_y.numpy())
    return files


def measure(files: Files, precision: str, logdir: Path, duration_s: float) -> Outcome:
    """What the model costs at ``precision``: ``harness run --precision ...`` from Python."""
    how = "quantizing it, then measuring it" if precision == "int8" else "measuring it"
    say(f"{how} in {precision} on this machine, {duration_s:g} s after the warm-up")
    spec = parse({
        "model": str(files.model),
        "precision": precision,
        "dataset": str(files.test),
        "calibration": str(files.calibration) if precision == "int8" else None,
        "duration_s": duration_s,
        "out": str(logdir),
    })  # fmt: skip
    return driver.run(spec, lambda folder: [TensorBoardSink(folder, spec)])


def headline(outcome: Outcome) -> str:
    """One line: whatever of it was measured."""
    wanted = ("latency/median_ms", "accuracy/top1", "model/size_bytes")
    values = headline_values(outcome.result)
    found = ", ".join(f"{name} {values[name]:.4g}" for name in wanted if name in values)
    return f"{outcome.result.spec.precision}, {outcome.result.status}: {found}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", type=Path, default=Path("results"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--duration", type=float, default=1.0, help="seconds of each benchmark")
    asked = parser.parse_args(arguments)
    data = load()
    model = train(data, asked.logdir, asked.epochs)
    files = export(model, data, asked.logdir / f"export-{NAME}")
    for precision in ("fp32", "int8"):
        print(headline(measure(files, precision, asked.logdir, asked.duration)))
    print(f"harness board --results {asked.logdir}")


if __name__ == "__main__":
    main()
