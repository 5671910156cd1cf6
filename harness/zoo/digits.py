"""A small residual CNN for 8x8 grayscale digits: real weights, hence a real accuracy."""

from __future__ import annotations

from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm, same padding."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which projects where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.first = _conv(inputs, outputs, 3, stride)
        self.first_relu = nn.ReLU()
        self.second = _conv(outputs, outputs, 3)
        self.shortcut = nn.Identity() if same else _conv(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.second(self.first_relu(self.first(x)))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class Digits(nn.Module):
    """``images`` (batch, 1, 8, 8) in [0, 1] to ``logits`` (batch, 10). About 96,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(1, 32, 3)
        self.stem_relu = nn.ReLU()
        self.blocks = nn.Sequential(Block(32, 32, 1), Block(32, 48, 2), Block(48, 48, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem_relu(self.stem(images)))
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits
