"""The zoo's table, read without torch: what there is, its inputs and its outputs.

`digits` is trained. The others are real architectures with seeded random weights, for speed, memory
and energy; nothing can be said about their accuracy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from harness.protocols import Declared


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How to build one architecture. ``module`` is ``module:Class`` within this package.

    ``defaults`` gives symbols other than the batch a size, ``limits`` their largest one, and
    ``index_limits`` the number of rows that an integer input indexes.
    """

    description: str
    module: str
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    random_weights: bool = True
    defaults: dict[str, int] = {}
    limits: dict[str, int] = {}
    index_limits: dict[str, int] = {}


def _declared(name: str, dtype: str, *dims: int | str) -> Declared:
    return Declared(name=name, dtype=dtype, dims=("batch", *dims))


def _classifier(description: str, module: str) -> Recipe:
    """224x224 colour images to 1,000 classes."""
    return Recipe(
        description=f"{description}, 3x224x224 images, random weights",
        module=module,
        inputs=(_declared("images", "float32", 3, 224, 224),),
        outputs=(_declared("logits", "float32", 1000),),
    )


ZOO: Mapping[str, Recipe] = {
    "digits": Recipe(
        description="small residual CNN (97 k parameters), 8x8 digits, trained: real accuracy",
        module="digits:Digits",
        inputs=(_declared("images", "float32", 1, 8, 8),),
        outputs=(_declared("logits", "float32", 10),),
        random_weights=False,
    ),
    "alexnet": _classifier("AlexNet (61 M parameters)", "alexnet:AlexNet"),
    "resnet18": _classifier("ResNet-18 (12 M parameters)", "resnet:ResNet18"),
    "resnet50": _classifier("ResNet-50 (26 M parameters)", "resnet:ResNet50"),
    "mobilenet_v2": _classifier("MobileNetV2 (3.5 M parameters)", "mobilenet:MobileNetV2"),
    "bert_base": Recipe(
        description="BERT-base text encoder (109 M parameters), 128 tokens, random weights",
        module="bert:BertBase",
        inputs=(
            _declared("input_ids", "int64", "sequence"),
            _declared("attention_mask", "int64", "sequence"),
        ),
        outputs=(
            _declared("last_hidden_state", "float32", "sequence", 768),
            _declared("pooler_output", "float32", 768),
        ),
        defaults={"sequence": 128},
        limits={"sequence": 512},
        index_limits={"input_ids": 30522},
    ),
}


def architecture(name: str) -> Callable[[], Any]:
    """What makes the module of ``name``, a `torch.nn.Module`. Imports torch."""
    module, _, attribute = ZOO[name].module.partition(":")
    made: Callable[[], Any] = getattr(importlib.import_module(f".{module}", __name__), attribute)
    return made
