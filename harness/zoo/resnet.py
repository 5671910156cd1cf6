"""ResNet-18 and ResNet-50 (He et al., 2016; the stride in a bottleneck's 3x3 convolution)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from harness.zoo.initial import damp, initialise


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Residual(nn.Module):
    """A branch beside a shortcut, and a ReLU after their sum."""

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch: nn.Sequential = branch
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    same = inputs == outputs and stride == 1
    return nn.Identity() if same else _conv(inputs, outputs, 1, stride)


def _basic(inputs: int, width: int, stride: int) -> Residual:
    branch = nn.Sequential(
        *_conv(inputs, width, 3, stride),
        nn.ReLU(),
        *_conv(width, width, 3),
    )
    return Residual(branch, _shortcut(inputs, width, stride))


def _bottleneck(inputs: int, width: int, stride: int) -> Residual:
    branch = nn.Sequential(
        *_conv(inputs, width, 1),
        nn.ReLU(),
        *_conv(width, width, 3, stride),
        nn.ReLU(),
        *_conv(width, 4 * width, 1),
    )
    return Residual(branch, _shortcut(inputs, 4 * width, stride))


class ResNet(nn.Module):
    """``images`` (batch, 3, 224, 224) to ``logits`` (batch, 1000)."""

    def __init__(
        self,
        block: Callable[[int, int, int], Residual],
        expansion: int,
        depths: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[Residual] = []
        inputs = 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage and not index else 1))
                inputs = width * expansion
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, 1000)
        initialise(self)
        for residual in blocks:
            damp(residual.branch, 0.3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits


class ResNet18(ResNet):
    def __init__(self) -> None:
        super().__init__(_basic, 1, (2, 2, 2, 2))


class ResNet50(ResNet):
    def __init__(self) -> None:
        super().__init__(_bottleneck, 4, (3, 4, 6, 3))
