"""Which linear layers CUDA has integer kernels for, planned and applied without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError, QuantizationError

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("torchao", reason="torchao is not installed")
nn = torch.nn
torch_linear: Any = pytest.importorskip("harness.quantize.torch_linear")
apply: Any = pytest.importorskip("harness.artifacts.torch_linear").apply


class Encoder(nn.Module):  # type: ignore[misc]
    """One layer over every token, one over pooled ones, one of an odd size."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(16, 32)
        self.odd = nn.Linear(32, 9)
        self.head = nn.Linear(32, 8)
        self.unused = nn.Linear(16, 16)

    def forward(self, x: Any) -> Any:
        each = torch.relu(self.each(x))
        return self.head(each.mean(1)), self.odd(each)


def tokens(batch: int = 2) -> Any:
    return torch.randn(batch, 20, 16, generator=torch.Generator().manual_seed(0))


def test_layers_are_chosen_by_their_shapes() -> None:
    found = torch_linear.plan(Encoder().eval(), (tokens(),), "encoder")
    assert found.layers == ("each",)
    assert found.left == {
        "odd": "is 32x9, no multiples of 8",
        "head": "gets 2 rows, at least 17 are needed",
        "unused": "is not called",
    }
    # weights of 16x32 from 4 bytes to 1, with a scale of 4 bytes for each of 32 channels
    whole = sum(t.numel() * 4 for t in Encoder().state_dict().values())
    assert found.size_bytes == whole - 3 * 16 * 32 + 4 * 32


def test_a_larger_batch_has_more_rows() -> None:
    found = torch_linear.plan(Encoder().eval(), (tokens(17),), "encoder")
    assert found.layers == ("each", "head")


def test_the_planned_layers_run_in_integer_kernels(tmp_path: Path) -> None:
    from harness.backends.pytorch.operators import operators_of

    module, x = Encoder().eval().requires_grad_(False), tokens()
    found = torch_linear.plan(module, (x,), "encoder")
    record = torch_linear.write(found, tmp_path / "layers.json")
    expected = module(x)
    tf32 = torch.get_float32_matmul_precision()
    apply(module, tmp_path / "layers.json")

    operators = operators_of(lambda: module(x))
    assert operators["aten::_int_mm"] == {"int8": 1}
    assert operators["aten::linear"] == {"fp32": 2}
    assert torch.get_float32_matmul_precision() == tf32
    for given, wanted in zip(module(x), expected, strict=True):
        noise = (given - wanted).square().sum()
        # a GPU's route: without VNNI the CPU's own kernel may overflow, which no GPU does
        floor = 1000 if _adds_up() else 10  # 30 dB, 10 dB
        assert 0 < noise < wanted.square().sum() / floor
    assert record.route.endswith("1 of 4 linear layers")
    assert record.method == "dynamic"


def _adds_up() -> bool:
    """Whether this CPU's ``_int_mm`` has the right sum of the largest products."""
    left, right = (torch.full(shape, 127, dtype=torch.int8) for shape in ((32, 32), (32, 32)))
    return torch.equal(torch._int_mm(left, right), left.int() @ right.int())


def convolution() -> Any:
    return nn.Sequential(nn.Conv1d(20, 4, 3), nn.Flatten(), nn.Linear(56, 8))


class Functional(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 20, 3))

    def forward(self, x: Any) -> Any:
        return nn.functional.conv1d(x, self.kernel)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (convolution, r"no int8 convolutions on CUDA, and net has 0;.*--backend tensorrt"),
        (Functional, r"called as a function;.*provider=tensorrt"),
        (lambda: nn.Linear(16, 9), r"no layer of net can run.*no multiples of 8"),
        (lambda: nn.ReLU(), r"it has no torch.nn.Linear"),
        (lambda: nn.Linear(15, 8), r"net fails on its inputs"),
    ],
)
def test_what_has_no_integer_kernel_is_refused_by_name(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(QuantizationError, match=words) as caught:
        torch_linear.plan(make().eval(), (tokens(),), "net")
    assert len(str(caught.value).splitlines()) == 1


def test_many_convolutions_are_counted() -> None:
    model = nn.Sequential(*(nn.Conv1d(20, 20, 1) for _ in range(6)))
    with pytest.raises(QuantizationError, match=r"net has 0, 1, 2 and 3 more"):
        torch_linear.plan(model, (tokens(),), "net")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"layers": 3}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no plan of int8 layers"):
        apply(nn.Linear(8, 8), path)
