"""What does logging cost a training step? Ours at its default frequencies, beside our peers.

    python benchmarks/training_overhead.py [--rounds 10] [--batch 64]

A small CNN (`digits`, 96,000 parameters) trains on one thread. Each step logs its loss; every 100th
the norm of each gradient, every 500th the histogram of each weight and gradient. The peers are
given the same to log. Blocks of 100 steps under each condition follow each other, beginning with
another one each time; five make a round of 500 steps, in which everything falls due once.

* ``whole step``: the time of a round over that of the round without logging beside it, the median
  over rounds and its 95 % interval. It sees everything, threads of the logger included, and the
  noise of the machine.
* ``inside calls``: processor time spent in logging calls over that of the rest of the step. Little
  noise even where others use the machine, but blind to what a thread does meanwhile.

Last, the histogram of one tensor of ten million elements.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from interleaved import counted, interval, ratio
from torch import nn

from harness.training import TrainingLogger
from harness.zoo.digits import Digits

BLOCK, BLOCKS = 100, 5
LARGE = 10_000_000


class Ours:
    """`TrainingLogger` with its defaults."""

    def __init__(self, folder: str) -> None:
        self._logger = TrainingLogger("digits", folder)

    def log(self, model: nn.Module, loss: torch.Tensor) -> None:
        self._logger.log_metrics({"loss": loss})
        self._logger.log_gradients(model)
        self._logger.log_histograms(model)
        self._logger.next_step()

    def histogram(self, values: torch.Tensor) -> None:
        self._logger.log_histograms({"large": values}, step=0)

    def close(self) -> None:
        self._logger.close()


class Peer:
    """A ``SummaryWriter``, of torch or of tensorboardX, told to log the same."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._step = 0

    def log(self, model: nn.Module, loss: torch.Tensor) -> None:
        self._writer.add_scalar("loss", loss.item(), self._step)
        if self._step % 100 == 0:
            self._norms(model)
        if self._step % 500 == 0:
            for name, parameter in model.named_parameters():
                self._writer.add_histogram(f"weights/{name}", parameter, self._step)
                self._writer.add_histogram(f"gradients/{name}", parameter.grad, self._step)
        self._step += 1

    def _norms(self, model: nn.Module) -> None:
        total = 0.0
        for name, parameter in model.named_parameters():
            norm = parameter.grad.norm().item()
            total += norm * norm
            self._writer.add_scalar(f"gradients/{name}", norm, self._step)
        self._writer.add_scalar("gradients/total", total**0.5, self._step)

    def histogram(self, values: torch.Tensor) -> None:
        self._writer.add_histogram("large", values, 0)

    def close(self) -> None:
        self._writer.close()


def contestants(folder: str) -> dict[str, Any]:
    import tensorboardX
    from torch.utils import tensorboard

    return {
        "harness": Ours(f"{folder}/harness"),
        "torch.utils.tensorboard": Peer(tensorboard.SummaryWriter(f"{folder}/torch")),
        "tensorboardX": Peer(tensorboardX.SummaryWriter(f"{folder}/tensorboardX")),
    }


class Training:
    """The steps that are being watched."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.model = Digits()
        self.inside_s = self.cpu_s = 0.0
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self._images, self._labels = torch.rand(batch, 1, 8, 8), torch.randint(0, 10, (batch,))

    def block(self, log: Callable[[nn.Module, torch.Tensor], None] | None) -> float:
        """Seconds for `BLOCK` steps. Leaves ``cpu_s``, and ``inside_s`` of it in ``log``."""
        self.inside_s, cpu_s, began_s = 0.0, time.thread_time(), time.perf_counter()
        for _ in range(BLOCK):
            self._optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(self._images), self._labels)
            loss.backward()
            if log is not None:
                before_s = time.thread_time()
                log(self.model, loss)
                self.inside_s += time.thread_time() - before_s
            self._optimizer.step()
        self.cpu_s = time.thread_time() - cpu_s
        return time.perf_counter() - began_s


def compare(training: Training, loggers: dict[str, Any], rounds: int) -> None:
    conditions: dict[str, Any] = {"none": None, **{n: one.log for n, one in loggers.items()}}
    names = list(conditions)
    whole: dict[str, list[float]] = {name: [] for name in names}
    inside: dict[str, list[float]] = {name: [] for name in names}
    training.block(None)  # warm up
    for number in counted(rounds, "training"):
        times_s, inside_s, cpu_s = (dict.fromkeys(names, 0.0) for _ in range(3))
        for block in range(BLOCKS):
            shift = (number + block) % len(names)
            for name in names[shift:] + names[:shift]:
                times_s[name] += training.block(conditions[name])
                inside_s[name] += training.inside_s
                cpu_s[name] += training.cpu_s
        for name in names:
            whole[name].append(times_s[name])
            inside[name].append(inside_s[name] / (cpu_s[name] - inside_s[name]))
    step_ms = statistics.median(whole["none"]) / (BLOCK * BLOCKS) * 1e3
    print(f"{rounds} rounds, a step without logging takes {step_ms:.2f} ms")
    for name in names[1:]:
        low, high = interval(inside[name])
        share = f"{statistics.median(inside[name]):.3%} [{low:.3%}, {high:.3%}]"
        print(f"  {name:24} inside calls {share}   whole step {ratio(whole[name], whole['none'])}")


def idle_call_us(folder: str, model: nn.Module) -> float:
    """Microseconds for a step in which nothing is due."""
    with TrainingLogger("digits", folder, 0, 0) as logger:
        began_s = time.perf_counter()
        for _ in range(10_000):
            logger.log_gradients(model)
            logger.log_histograms(model)
            logger.next_step()
        return (time.perf_counter() - began_s) / 10_000 * 1e6


def large_histogram_ms(logger: Any) -> float:
    values = torch.randn(LARGE)
    began_s = time.perf_counter()
    logger.histogram(values)
    return (time.perf_counter() - began_s) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    training = Training(asked.batch)
    with tempfile.TemporaryDirectory() as folder:
        loggers = contestants(folder)
        compare(training, loggers, asked.rounds)
        print(f"a step in which nothing is due: {idle_call_us(folder, training.model):.2f} µs")
        print(f"the histogram of {LARGE:,} elements:")
        for name, logger in loggers.items():
            print(f"  {name:24} {large_histogram_ms(logger):.1f} ms")
            logger.close()


if __name__ == "__main__":
    main()
