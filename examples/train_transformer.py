"""A small Bayesian transformer, watched: attention, uncertainty, calibration, checkpoints.

    python examples/train_transformer.py [--logdir results] [--steps 60]

It learns whether a sequence of symbols holds more of one than of another. Dropout stays on when
it predicts (Gal & Ghahramani 2016): the spread of several predictions is the epistemic uncertainty,
the mean entropy of each the aleatoric.
Needs `pip install 'hw-harness[torch,board]'`; a few seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.compat import BayesianTransformerLogger, CheckpointManager

SYMBOLS, LENGTH, WIDTH, HEADS, BATCH = 4, 12, 16, 2, 64
PREDICTIONS = 8  # with dropout, of which the uncertainty is taken


class Transformer(nn.Module):  # type: ignore[misc]
    """One layer of attention, whose weights come out as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, WIDTH)
        self.place = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.1, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, 2], and attention [N, heads, length, length]."""
        x = self.embed(symbols) + self.place
        attended, weights = self.attend(x, x, x, average_attn_weights=False)
        return self.out(self.dropout(x + attended).mean(dim=1)), weights


def batch(seed: int, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Symbols [N, length], and whether there are more of 0 than of 1."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(SYMBOLS, (size, LENGTH), generator=generator)
    return symbols, ((symbols == 0).sum(1) > (symbols == 1).sum(1)).long()


def uncertain(model: Transformer, symbols: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean probabilities [N, 2]; epistemic and aleatoric uncertainty [N], nats."""
    model.train()  # so that dropout draws another network each time
    with torch.no_grad():
        drawn = torch.stack([model(symbols)[0].softmax(1) for _ in range(PREDICTIONS)])
    mean = drawn.mean(0)
    aleatoric = entropy(drawn).mean(0)
    return mean, entropy(mean) - aleatoric, aleatoric


def entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)


def train(logdir: Path, steps: int) -> float:
    """The accuracy on sequences not seen before."""
    torch.manual_seed(0)
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    checkpoints = CheckpointManager(logdir / "checkpoints-transformer", max_keep=2)
    held_out, truth = batch(10_000, 256)
    accuracy = best = 0.0
    with BayesianTransformerLogger(logdir, "transformer", log_gradients_every=10) as logger:
        logger.log_layout()
        for step in range(steps):
            symbols, labels = batch(step)
            logits, weights = model(symbols)
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            logger.log_gradients(model)
            optimizer.step()
            scheduler.step()
            logger.log_metrics({"loss": loss}, prefix="train")
            logger.log_learning_rate(optimizer)
            if step % 20 == 19 or step == steps - 1:
                probabilities, epistemic, aleatoric = uncertain(model, held_out)
                accuracy = float((probabilities.argmax(1) == truth).float().mean())
                logger.log_attention_stats(weights.detach(), layer_name="attend")
                logger.log_uncertainty_metrics(epistemic, aleatoric)
                logger.log_calibration(probabilities, truth)
                logger.log_metrics({"accuracy": accuracy}, prefix="validation")
                checkpoints.save_checkpoint(
                    model, optimizer, scheduler, 0, step, {"accuracy": accuracy},
                    is_best=accuracy > best,
                )  # fmt: skip
                best = max(best, accuracy)
            logger.increment_step()
        logger.log_model_histograms(model, step=0)
        logger.log_hparams({"width": WIDTH, "heads": HEADS, "lr": 1e-2}, {"accuracy": accuracy})
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--logdir", type=Path, default=Path("results"))
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    print(f"accuracy {train(asked.logdir, asked.steps):.3f}")
    print(f"harness board --results {asked.logdir}")


if __name__ == "__main__":
    main()
