"""Drawn inputs, and users' .npz files: what is taken and what is refused, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.errors import DataError
from harness.models import data
from harness.protocols import TensorSpec

IMAGES = TensorSpec("images", "float32", (2, 1, 4, 4))
IDS = TensorSpec("ids", "int64", (2, 5))
TYPES = st.sampled_from(
    ["float16", "float32", "float64", "int8", "int16", "int32", "int64",
     "uint8", "uint16", "uint32", "uint64", "bool"]
)  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)
FOLDER = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def images(count: int = 3, dtype: str = "float32") -> Any:
    return np.linspace(0, 1, count * 16).reshape(count, 1, 4, 4).astype(dtype)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "file.npz", **arrays)
    return folder / "file.npz"


def read(path: Path, *specs: TensorSpec, batch_size: int = 2, labelled: bool = True) -> Any:
    return data.read_samples(path, "--dataset", specs or (IMAGES,), batch_size, labelled).arrays


# drawing


@given(dtype=TYPES, shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_drawn_arrays_have_the_type_and_shape_and_are_repeatable(
    dtype: str, shape: tuple[int, ...], seed: int
) -> None:
    spec = TensorSpec("x", dtype, shape)
    first, second = (data.draw([spec], {}, seed)["x"] for _ in range(2))
    assert first.dtype == np.dtype(dtype)
    assert first.shape == shape
    assert np.array_equal(first, second)
    assert np.isfinite(first.astype(np.float64)).all()


@given(
    dtype=TYPES,
    shape=SHAPES,
    low=st.integers(0, 3),
    rows=st.integers(1, 100_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_bounded_values_stay_in_their_range(
    dtype: str, shape: tuple[int, ...], low: int, rows: int, seed: int
) -> None:
    if dtype == "bool":
        low = 0
    drawn = data.draw([TensorSpec("x", dtype, shape)], {"x": (low, low + rows)}, seed)["x"]
    whole = drawn.astype(np.float64)
    assert np.array_equal(whole, np.floor(whole))
    assert whole.min() >= low
    assert whole.max() < low + rows


def test_an_input_does_not_depend_on_its_neighbours() -> None:
    alone = data.draw([IMAGES], {}, 3)["images"]
    together = data.draw([IDS, IMAGES], {"ids": (0, 9)}, 3)["images"]
    assert np.array_equal(alone, together)


def test_masks_are_ones_and_unbounded_integers_zero_or_one() -> None:
    specs = [TensorSpec("attention_mask", "int64", (2, 5)), TensorSpec("kinds", "int32", (50,))]
    drawn = data.draw(specs, {}, 0)
    assert (drawn["attention_mask"] == 1).all()
    assert set(drawn["kinds"].tolist()) == {0, 1}


def test_images_in_bytes_take_the_full_range() -> None:
    drawn = data.draw([TensorSpec("x", "uint8", (1, 3, 64, 64))], {}, 0)["x"]
    assert (drawn.min(), drawn.max()) == (0, 255)


def test_samples_for_calibration_are_stacked_along_axis_0() -> None:
    specs = [IMAGES, TensorSpec("scale", "float32", ())]
    drawn = data.draw_samples(specs, {}, 0, batch_size=2, count=7)
    assert drawn["images"].shape == (7, 1, 4, 4)
    assert drawn["scale"].shape == (7,)


@given(count=st.integers(1, 9), batch=st.integers(1, 20), start=st.integers(0, 30))
def test_batches_wrap_around(count: int, batch: int, start: int) -> None:
    spec = TensorSpec("x", "int64", (batch, 2))
    samples = np.arange(2 * count).reshape(count, 2)
    taken = data.take({"x": samples}, [spec], batch, start)["x"]
    assert taken.tolist() == [samples[(start + i) % count].tolist() for i in range(batch)]


# users' files


def test_a_good_file_comes_back_as_it_was(tmp_path: Path) -> None:
    found = read(saved(tmp_path, images=images(), labels=np.array([1, 0, 2])))
    assert np.array_equal(found["images"], images())
    assert found["labels"].tolist() == [1, 0, 2]


@pytest.mark.parametrize("alias", ["inputs", "x"])
def test_a_single_input_may_go_by_an_alias(tmp_path: Path, alias: str) -> None:
    path = saved(tmp_path, **{alias: images()})
    assert np.array_equal(read(path, labelled=False)["images"], images())


def test_two_inputs_need_their_names(tmp_path: Path) -> None:
    path = saved(tmp_path, inputs=images(), ids=np.zeros((3, 5), np.int64))
    with pytest.raises(DataError, match="has no array 'images', only ids, inputs"):
        read(path, IMAGES, IDS, labelled=False)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"labels": [0]}, "has no array 'images', only labels"),
        ({"images": images()}, "has no array 'labels'"),
        (
            {"images": images(dtype="float64"), "labels": [0, 1, 2]},
            r"'images' is float64 3x1x4x4, expected float32 samplesx1x4x4; "
            r"convert it with .astype\('float32'\)",
        ),
        ({"images": images()[..., :3], "labels": [0, 1, 2]}, "is float32 3x1x4x3, expected"),
        ({"images": np.float32(1), "labels": [0]}, "is float32 scalar, expected"),
        ({"images": images(0), "labels": np.zeros(0, int)}, "which is empty"),
        ({"images": images() * np.nan, "labels": [0, 1, 2]}, "'images' holds NaN; clean the data"),
        ({"images": images() - np.inf, "labels": [0, 1, 2]}, "'images' holds infinity"),
        ({"images": images(), "labels": [0, 1]}, "different lengths: images 3, labels 2"),
        ({"images": images(), "labels": [0.0, 1.0, 2.0]}, "'labels' is float64 3, expected integ"),
        ({"images": images(), "labels": [[0], [1], [2]]}, "'labels' is int64 3x1, expected integ"),
        ({"images": images(), "labels": [0, -1, 2]}, "'labels' holds -1; classes count from 0"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(DataError, match=text) as raised:
        read(path)
    assert str(raised.value).startswith(f"--dataset {path}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("outputs", "scores", "label", "classes"),
    [
        ([("logits", 2, 10)], None, 10, 10),
        ([("boxes", 2, 5, 4), ("logits", 2, 10), ("p", 2, 1)], None, 10, 10),
        ([("features", 2, 64), ("logits", 2, 10)], "logits", 10, 10),
        ([("p", 2, 1)], "p", 2, 2),
        ([("p", 2)], "p", 2, 2),
    ],
)
def test_labels_beyond_the_classes_are_refused(
    outputs: list[Any], scores: str | None, label: int, classes: int
) -> None:
    specs = [TensorSpec(name, "float32", tuple(shape)) for name, *shape in outputs]
    data.check_classes("file.npz", np.array([0, label - 1]), specs, scores)
    with pytest.raises(DataError, match=f"holds {label}, the model has {classes} classes"):
        data.check_classes("file.npz", np.array([0, label]), specs, scores)


def test_no_label_is_refused_while_two_outputs_could_hold_the_scores() -> None:
    outputs = [TensorSpec(name, "float32", (2, size)) for name, size in (("a", 3), ("b", 8))]
    data.check_classes("file.npz", np.array([5]), outputs, None)
    data.check_classes("file.npz", np.array([1]), [TensorSpec("p", "float32", (2, 1))], None)


def test_what_has_no_batch_may_be_given_once_for_all_samples(tmp_path: Path) -> None:
    scale, size = TensorSpec("scale", "float32", (3,)), TensorSpec("size", "int64", ())
    path = saved(tmp_path, images=images(), scale=np.arange(3, dtype=np.float32), size=np.int64(7))
    found = data.read_samples(path, "--inputs", (IMAGES, scale, size), 2, labelled=False)
    assert (found.samples, found.changed) == (3, True)
    assert found.arrays["scale"].tolist() == [[0, 1, 2]] * 3
    assert found.arrays["size"].tolist() == [7, 7, 7]
    batch = data.take(found.arrays, (IMAGES, scale, size), 2)
    assert [batch[name].shape for name in ("images", "scale", "size")] == [(2, 1, 4, 4), (3,), ()]


def test_infinity_is_taken_where_it_belongs(tmp_path: Path) -> None:
    mask = TensorSpec("mask", "float32", (1, 2))
    path = saved(tmp_path, mask=np.array([[0, -np.inf]], np.float32))
    taken = data.read_samples(path, "--inputs", (mask,), 1, labelled=False, infinite=True)
    assert taken.arrays["mask"].tolist() == [[0, -np.inf]]
    with pytest.raises(DataError, match=r"'mask' holds infinity; .* --allow-infinite"):
        data.read_samples(path, "--inputs", (mask,), 1, labelled=False)


def test_an_input_called_labels_cannot_be_told_from_the_labels(tmp_path: Path) -> None:
    ids = TensorSpec("labels", "int64", (1,))
    path = saved(tmp_path, labels=np.array([0, 1]))
    assert data.read_samples(path, "--inputs", (ids,), 1, labelled=False).samples == 2
    with pytest.raises(DataError, match=r"'labels' is an input of the model and .*; rename"):
        data.read_samples(path, "--dataset", (ids,), 1, labelled=True)


NAMES = ("file", "allow_pickle", "args", "a=b", "a/b:0", "/x", "../x", "Größe 你好", "n" * 5000)


def test_inputs_are_kept_under_any_name(tmp_path: Path) -> None:
    arrays = {name: np.array(i) for i, name in enumerate(NAMES)}
    data.save(tmp_path / "inputs.npz", arrays)
    assert data.arrays(str(tmp_path / "inputs.npz")) == arrays
    data.save(tmp_path / "none.npz", {})
    assert data.arrays(str(tmp_path / "none.npz")) == {}


def test_an_input_without_a_batch_needs_batch_size_1(tmp_path: Path) -> None:
    scale = TensorSpec("scale", "float32", (3,))
    path = saved(tmp_path, scale=np.ones((5, 3), np.float32))
    assert read(path, scale, batch_size=1, labelled=False)["scale"].shape == (5, 3)
    with pytest.raises(DataError, match="input 'scale' has no batch dimension of 2"):
        read(path, scale, batch_size=2, labelled=False)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, images=np.array([print, 1], dtype=object))
    with pytest.raises(DataError, match="it holds Python objects"):
        read(path)


def test_bare_arrays_missing_files_and_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", images())
    with pytest.raises(DataError, match=r"is one bare array; save it with numpy\.savez"):
        read(tmp_path / "bare.npy")
    with pytest.raises(DataError, match="No such file or directory"):
        read(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="Is a directory"):
        read(tmp_path)


@FOLDER
@given(st.data())
def test_damaged_files_are_refused_or_read_whole(tmp_path: Path, drawn: st.DataObject) -> None:
    whole = bytearray(saved(tmp_path, images=images(), labels=np.array([1, 0, 2])).read_bytes())
    if drawn.draw(st.booleans(), "cut"):
        whole = whole[: drawn.draw(st.integers(0, len(whole) - 1), "length")]
    else:
        place = drawn.draw(st.integers(0, len(whole) - 1), "place")
        whole[place] ^= drawn.draw(st.integers(1, 255), "flip")
    path = tmp_path / "damaged.npz"
    path.write_bytes(whole)
    try:
        found = read(path)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert np.array_equal(found["images"], images())
