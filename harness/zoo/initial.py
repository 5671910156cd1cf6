"""Seeded random weights that keep activations near unit size, as training would."""

from __future__ import annotations

from torch import nn


def initialise(model: nn.Module, std: float | None = None) -> None:
    """Draw every weight of ``model`` from torch's global generator.

    Convolutions and linear layers keep the variance of what passes through a ReLU (He et al., 2015)
    or take ``std``; batch norms get the spread of gains and running statistics seen after training.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if std is None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.1)
            nn.init.normal_(module.bias, std=0.1)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.7, 1.3)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std or 1.0)


def damp(branch: nn.Sequential, factor: float) -> None:
    """Shrink a residual branch's last gain, so that a deep sum of branches stays near unit size."""
    norm = branch[-1]
    if not isinstance(norm, nn.BatchNorm2d):
        raise TypeError(f"the branch ends with {type(norm).__name__}")
    norm.weight.data.mul_(factor)
