"""Which dimension is the batch: by its name, by its place, as asked; or nobody can know."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError, ModelError, UsageError
from harness.models.shapes import batch_reading, find_batch, resolve_shapes
from harness.protocols import Declared, Dim

Dims = tuple[Dim, ...]


def declared(*inputs: Dims | None) -> list[Declared]:
    return [Declared(name=n, dtype="float32", dims=d) for n, d in zip("xyz", inputs, strict=False)]


def resolve(
    *inputs: Dims | None,
    given: dict[str, tuple[int, ...]] | None = None,
    batch_size: int = 1,
    asked: str | None = None,
) -> tuple[list[tuple[int, ...]], str]:
    found = declared(*inputs)
    batch = find_batch(found, asked)
    specs = resolve_shapes(found, given or {}, batch_size, batch)
    return [spec.shape for spec in specs], batch_reading(found, specs, batch, batch_size)


@pytest.mark.parametrize(
    "name", ["batch", "Batch_Size", "batchsize", "n_batch", "unk__batch", "N", "b", "bs"]
)
def test_a_batch_by_its_name(name: str) -> None:
    assert resolve((name, 3), batch_size=4) == ([(4, 3)], f"{name} (by name)")


@pytest.mark.parametrize("name", ["n_audio", "unk__12", "s0", "s77", "d0", "dynamic_axes_1", "?"])
def test_a_batch_by_its_place(name: str) -> None:
    assert resolve((name, 3), batch_size=4) == ([(4, 3)], f"{name} (by position)")


@pytest.mark.parametrize(
    "name",
    ["n_ctx", "n_points", "n_features", "b_seq", "num_n", "seq_n", "n1", "n", "b", "n_tokens"],
)
def test_only_the_first_dimension_is_the_batch_by_its_place(name: str) -> None:
    """A second dimension was taken for the batch where its name has an n or a b in it."""
    with pytest.raises(ModelError) as raised:
        resolve(("n_audio", name), batch_size=16)
    assert str(raised.value) == (
        f"input 'x' leaves dimension 1 ({name}) open; "
        "give --input-shape x=16xSIZE, such as x=16x224"
    )
    assert resolve(("n_audio", name), given={"x": (1, 64)}) == ([(1, 64)], "n_audio (by position)")


@pytest.mark.parametrize("name", ["n_points", "seqLen", "T", "tokens", "num_frames", "batch*8"])
def test_a_length_is_no_batch_wherever_it_stands(name: str) -> None:
    with pytest.raises(ModelError, match=r"open; give .*or, if it is the batch, --batch-dim "):
        resolve((name, 3))
    assert resolve((name, 3), given={"x": (1024, 3)}) == ([(1024, 3)], "none")
    assert resolve((name, 3), asked=name, batch_size=4) == ([(4, 3)], f"{name} (--batch-dim)")


@pytest.mark.parametrize("dims", [("x0", "x0"), ("x0",), (None,)])
def test_what_may_be_a_batch_or_not_is_asked_for(dims: Dims) -> None:
    with pytest.raises(ModelError, match=r"leaves dimension 0 .* open; give --input-shape x="):
        resolve(dims)


def test_the_first_reading_can_be_refused() -> None:
    with pytest.raises(ModelError, match=r"batch of 4, .*; if n_audio is no batch, add --batch-d"):
        resolve(("n_audio", 3), given={"x": (4, 3)})
    assert resolve(("n_audio", 3), given={"x": (4, 3)}, asked="none") == ([(4, 3)], "none")
    with pytest.raises(ModelError, match=r"fixed batch of 77, .*or --batch-dim none where that is"):
        resolve((77, 768))
    assert resolve((77, 768), asked="none") == ([(77, 768)], "none")
    with pytest.raises(ModelError, match="has no batch dimension, --batch-size is 2"):
        resolve((77, 768), asked="none", batch_size=2)
    with pytest.raises(
        ModelError, match=r"has a batch of 5, .* add --batch-size 5, or --batch-dim"
    ):
        resolve(None, given={"x": (5, 3)})


def test_a_batch_that_no_input_has() -> None:
    with pytest.raises(UsageError, match=r"'n'.*its open dimensions are batch, time; give none"):
        resolve(("batch", "time"), asked="n")


def test_fixed_and_unnamed_dimensions() -> None:
    assert resolve((2, 3), batch_size=2) == ([(2, 3)], "dimension 0 of x (by position)")
    assert resolve((None, 3), batch_size=2) == ([(2, 3)], "dimension 0 of x (by position)")
    assert resolve((), ("batch", 1)) == ([(), (1, 1)], "batch (by name)")
    assert resolve(("time", "batch"), given={"x": (7, 1)}) == ([(7, 1)], "batch (by name)")


def test_a_cache_may_be_empty() -> None:
    shapes, _ = resolve(("batch", "past", 8), ("batch", 1, 8), given={"x": (1, 0, 8)})
    assert shapes == [(1, 0, 8), (1, 1, 8)]


@pytest.mark.parametrize(
    ("dims", "given", "text"),
    [
        ((0, 8), None, "fixes dimension 0 of its input 'x' at 0, .*; open that dimension with"),
        ((0,), None, "fixes dimension 0 of its input 'x' at 0"),
        (("batch", 8), (0, 8), "x=0x8 has a batch of 0, --batch-size is 1; give 1 or more"),
        (("batch", "past"), (1, 0), "x=1x0 holds no element; give dimension 1 a size of 1"),
    ],
)
def test_nothing_at_all_is_not_measured(
    dims: Dims, given: tuple[int, ...] | None, text: str
) -> None:
    with pytest.raises(HarnessError, match=text):
        resolve(dims, given={"x": given} if given else None)
