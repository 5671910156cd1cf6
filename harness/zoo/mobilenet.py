"""MobileNetV2 (Sandler et al., 2018): depthwise convolutions, little arithmetic per byte."""

from __future__ import annotations

from torch import Tensor, nn

from harness.zoo.initial import damp, initialise

# expansion, channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _inverted(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Sequential:
    """Widen, filter each channel, narrow again without an activation."""
    hidden = inputs * expansion
    widen = [] if expansion == 1 else [*_conv(inputs, hidden, 1)]
    return nn.Sequential(
        *widen,
        *_conv(hidden, hidden, 3, stride, groups=hidden),
        nn.Conv2d(hidden, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Residual(nn.Module):
    """``x + branch(x)``."""

    def __init__(self, branch: nn.Sequential) -> None:
        super().__init__()
        self.branch: nn.Sequential = branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class MobileNetV2(nn.Module):
    """``images`` (batch, 3, 224, 224) to ``logits`` (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 32
        for expansion, outputs, depth, first_stride in STAGES:
            for index in range(depth):
                stride = 1 if index else first_stride
                branch = _inverted(inputs, outputs, stride, expansion)
                same = stride == 1 and inputs == outputs
                blocks.append(Residual(branch) if same else branch)
                inputs = outputs
        self.features = nn.Sequential(_conv(3, 32, 3, 2), *blocks, _conv(inputs, 1280, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(1280, 1000)
        initialise(self)
        for block in blocks:
            if isinstance(block, Residual):
                damp(block.branch, 0.3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flatten(self.pool(self.features(images))))
        return logits
