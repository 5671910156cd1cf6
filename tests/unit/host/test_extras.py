"""Which extra a missing module is told to come from."""

from __future__ import annotations

import pytest

from harness.host.extras import extra_for, smallest


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "torch"),
        ("torchao", "torch"),
        ("onnxscript", "torch"),
        ("onnx", "onnxruntime"),
        ("onnxruntime", "onnxruntime"),
        ("nobody_knows_it", None),
    ],
)
def test_the_smallest_extra_of_ours_is_named(module: str, extra: str | None) -> None:
    assert extra_for(module) == extra


def test_markers_and_extras_of_extras_are_read() -> None:
    requirements = ["numpy>=1", "big[a,b]>=2; sys_platform == 'linux' and extra == 'two'"]
    assert smallest("big", requirements) == "two"
    assert smallest("numpy", requirements) is None  # it is always there
