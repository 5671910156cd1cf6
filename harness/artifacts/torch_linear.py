"""The plan of a torch module's linear layers in INT8, and how a worker follows it on the GPU."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
from torch import nn

from harness.errors import ModelError


class Plan(msgspec.Struct, frozen=True):
    """What `harness.quantize.torch_linear.plan` found.

    ``layers`` go to int8; ``left`` says of the other linear layers why not.
    """

    layers: tuple[str, ...]
    left: dict[str, str]
    size_bytes: int  # of the state with those layers in int8


def read(target: Path) -> Plan:
    """The plan that was saved. Raises `ModelError`."""
    try:
        return msgspec.json.decode(target.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(
            f"{target} is no plan of int8 layers: {error}", "delete it and run again"
        ) from error


def apply(module: nn.Module, target: Path) -> None:
    """Replace the planned layers' weights, where they are. Raises `ModelError`."""
    layers = set(read(target).layers)
    with _quiet():
        try:
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
        except ImportError as error:
            raise ModelError(
                f"int8 on CUDA needs torchao, which cannot be imported: {error}",
                "pip install 'hw-harness[torch]'",
            ) from error
        # its settings for inductor would switch TF32 on
        config = Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        quantize_(module, config, filter_fn=lambda inner, path: path in layers)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torchao tells its developers which of its own kernels were not built for this machine."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
