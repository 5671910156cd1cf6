"""What TensorBoard's own reader finds of a training, and what a broken disk does to it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from test_store import file_size_limit

from harness import registry
from harness.errors import DataError, ResultError, UsageError
from harness.protocols import Available, Channel
from harness.tensorboard.events import _Messages
from harness.training import TrainingLogger, arrays, glyphs, measures, pictures, plots
from harness.training.measures import Calibration


def read(logger: TrainingLogger) -> EventAccumulator:
    everything = dict.fromkeys(("scalars", "histograms", "tensors", "images"), 0)
    events = EventAccumulator(str(logger.folder), size_guidance=everything)
    events.Reload()
    return events


def points(logger: TrainingLogger, tag: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in read(logger).Scalars(tag)]


def text_of(logger: TrainingLogger, tag: str) -> str:
    (event,) = read(logger).Tensors(tag)
    return event.tensor_proto.string_val[0].decode()


# -- metrics and steps ---------------------------------------------------------------------------


def test_an_epoch_has_exactly_the_tags_of_the_board(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_epoch(3, 0.5, 0.8, 0.7, 0.6, 0.75, 0.65, 0.9, 0.95, learning_rate=1e-3)
    events = read(logger)
    found = {
        tag: (e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)
    }
    assert found == {
        "net/training/loss": (3, pytest.approx(0.5)),
        "net/training/accuracy": (3, pytest.approx(0.8)),
        "net/training/f1_score": (3, pytest.approx(0.7)),
        "net/training/learning_rate": (3, pytest.approx(1e-3)),
        "net/validation/loss": (3, pytest.approx(0.6)),
        "net/validation/accuracy": (3, pytest.approx(0.75)),
        "net/validation/f1_score": (3, pytest.approx(0.65)),
        "net/validation/sensitivity": (3, pytest.approx(0.9)),
        "net/validation/specificity": (3, pytest.approx(0.95)),
    }


def test_steps_by_the_counter_by_hand_and_by_repetition(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_metrics({"a": 1})
        logger.next_step()
        logger.log_metrics({"a": 2})
        logger.step = 10
        logger.log_metrics({"a": 3})
        logger.log_metrics({"a": 4})  # again: it begins step 11
        logger.log_metrics({"a": 5}, step=100)
        assert logger.step == 11
        logger.log_metrics({"loss": 1}, "validation")
        logger.log_metrics({"loss": 2}, "validation")  # validation makes no steps
        assert logger.step == 11
    assert points(logger, "net/training/step/a") == [(0, 1), (1, 2), (10, 3), (11, 4), (100, 5)]


def test_means_are_taken_since_the_last_flush(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        for loss in (1.0, 2.0, 6.0):
            logger.accumulate({"loss": loss})
        logger.accumulate({"accuracy": np.float32(0.5)})
        assert logger.flush("validation", step=4) == {"loss": 3.0, "accuracy": 0.5}
        assert logger.flush() == {}
    assert points(logger, "net/validation/loss") == [(4, 3.0)]


@pytest.mark.parametrize("value", ["text", [1.0, 2.0], None, object()])
def test_a_metric_that_is_no_number_is_named(tmp_path: Path, value) -> None:
    with TrainingLogger("net", tmp_path) as logger, pytest.raises(DataError, match="loss"):
        logger.log_metrics({"loss": value})


@pytest.mark.parametrize("step", [1.5, "1", 2**63])
def test_a_step_that_is_none_is_refused(tmp_path: Path, step) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        with pytest.raises(DataError, match="step"):
            logger.log_metrics({"loss": 1.0}, step=step)
        with pytest.raises(DataError, match="step"):
            logger.log_epoch(step, 1.0)


def test_texts_say_what_was_asked_and_what_came_out(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_config({"lr": 0.001, "data": {"name": "a|b", "path": "<x>\n"}})
        logger.log_epoch(0, 1.0)
        logger.log_early_stopping(7, "no gain", 4, 0.25, patience=3)
        logger.log_training_summary({"best": 0.25}, note="fine")
        logger.log_text("note", "**bold**")
    assert text_of(logger, "net/training/config").splitlines()[2:] == [
        "| lr | 0.001 |", r"| data.name | a\|b |", r"| data.path | \<x\> |",
    ]  # fmt: skip
    assert "| epochs | 1 |" in text_of(logger, "net/training/summary")
    assert "| reason | no gain |" in text_of(logger, "net/training/early_stopping/text")
    assert points(logger, "net/training/early_stopping/best_value") == [(7, 0.25)]
    assert text_of(logger, "net/training/text/note") == "**bold**"


def test_a_configuration_may_be_a_namespace_or_a_dataclass(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Data:
        name: str

    with TrainingLogger("net", tmp_path) as logger:
        logger.log_config(argparse.Namespace(lr=0.1, data=Data("digits"), none=None))
        for odd in (None, 3, "lr=0.1", [1], Data):
            with pytest.raises(DataError, match="has no names; give a mapping, a dataclass or"):
                logger.log_config(odd)
    assert text_of(logger, "net/training/config").splitlines()[2:] == [
        "| lr | 0.1 |", "| data.name | digits |", "| none | None |",
    ]  # fmt: skip


def test_a_configuration_may_hold_itself(tmp_path: Path) -> None:
    config = argparse.Namespace(lr=0.1)
    config.parent = {"of": config}
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_config(config)
    first, second, last = text_of(logger, "net/training/config").splitlines()[2:]
    assert (first, second) == ("| lr | 0.1 |", "| parent.of.lr | 0.1 |")
    assert last.startswith("| parent.of.parent | ")


def test_an_exception_is_noted_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), TrainingLogger("net", tmp_path) as logger:
        logger.log_metrics({"loss": 1.0})
        raise KeyboardInterrupt
    assert "KeyboardInterrupt" in text_of(logger, "net/training/ended")
    assert points(logger, "net/training/step/loss") == [(0, 1.0)]


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tag", "folder"),
    [
        ("org/net v2", "org/net v2", "training-org-net-v2-"),
        ("../../etc/x", "../../etc/x", "training-etc-x-"),
        ("/a//b/\n", "a/b/_", "training-a-b-"),
        ("n" * 300, "n" * 120, "training-" + "n" * 60 + "-"),
        ("日本", "日本", "training-unnamed-"),
    ],
)
def test_names_stay_readable_and_inside(tmp_path: Path, name: str, tag: str, folder: str) -> None:
    with TrainingLogger(name, tmp_path) as logger:
        logger.log_metrics({"\ud800\n": 1.0})
    assert logger.folder.parent == tmp_path
    assert logger.folder.name.startswith(folder)
    assert read(logger).Tags()["scalars"] == [f"{tag}/training/step/__"]


@pytest.mark.parametrize("name", ["", "//", "\0", "--"])
def test_a_name_without_a_letter_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="names no model"):
        TrainingLogger(name, tmp_path)


def test_two_trainings_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {TrainingLogger("net", tmp_path).folder for _ in range(3)}
    assert len(folders) == 3


def test_a_log_folder_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for logdir in (tmp_path / "file", "\0"):
        with pytest.raises(ResultError, match="cannot be written"):
            TrainingLogger("net", logdir)
    with pytest.raises(UsageError, match="negative"):
        TrainingLogger("net", tmp_path, log_gradients_every=-1)


# -- the model -----------------------------------------------------------------------------------


def test_norms_by_parameter_by_layer_and_in_all(tmp_path: Path) -> None:
    gradients = {"a.weight": np.array([[3.0]]), "a.bias": [4.0], "b": np.array([12.0]), "c": None}
    with TrainingLogger("net", tmp_path, log_gradients_every=2) as logger:
        for _ in range(4):
            logger.log_gradients(gradients)
            logger.next_step()
    steps = [0, 2]
    for name, norm in {
        "parameter/a.weight": 3.0, "parameter/a.bias": 4.0, "parameter/b": 12.0,
        "layer/a": 5.0, "layer/b": 12.0, "total_norm": 13.0,
    }.items():  # fmt: skip
        tag = f"net/training/gradients/{name}"
        assert points(logger, tag) == [(step, norm) for step in steps], name


def test_every_0_is_never_and_calls_alone_count(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path, 0, 3) as logger:
        for _ in range(7):
            logger.log_gradients({"w": np.ones(2)})
            logger.log_histograms({"w": np.ones(2)})
        assert logger.step == 6
    events = read(logger)
    assert events.Tags()["scalars"] == []
    weights = events.Histograms("net/training/histograms/weights/w")
    assert [event.step for event in weights] == [0, 3, 6]


def test_a_torch_model_and_its_optimizer(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1).to(torch.bfloat16))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
        model[0].bias.fill_(12.0)
    model[0].weight.grad = torch.tensor([[6.0, 8.0]])
    groups = [
        {"params": [p], "lr": lr} for p, lr in zip(model.parameters(), (0.1, 0.2), strict=False)
    ]
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_weights(model)
        logger.log_gradients(model)
        logger.log_histograms(model)
        logger.log_learning_rate(torch.optim.SGD(groups))
        logger.log_weights({"q": torch.full((4,), 2, dtype=torch.int8)}, step=100)
        logger.accumulate({"loss": torch.tensor(2.0, requires_grad=True)})
        logger.accumulate({"loss": torch.tensor(4)})
        assert logger.flush() == {"loss": 3.0}
    assert points(logger, "net/training/weights/layer/0") == [(0, 13.0)]
    assert points(logger, "net/training/gradients/total_norm") == [(0, 10.0)]
    assert points(logger, "net/training/weights/parameter/q") == [(100, 4.0)]
    for group, rate in (("group0", 0.1), ("group1", 0.2)):
        assert points(logger, f"net/training/learning_rate/{group}") == [(0, rate)]
    (histogram,) = read(logger).Histograms("net/training/histograms/weights/0.weight")
    value = histogram.histogram_value
    assert (value.min, value.max, value.num, value.sum) == (3.0, 4.0, 2.0, 7.0)


def test_a_sample_misses_no_column_and_copies_no_more() -> None:
    torch = pytest.importorskip("torch", reason="pip install torch")
    rows = np.tile(np.arange(64.0), (4096, 1))
    for values in (rows, torch.from_numpy(rows), torch.from_numpy(rows).T):
        picked = arrays.sample(values, 1000)
        assert len(picked) <= 1000
        assert set(picked.tolist()) == set(range(64))
    image = (
        torch.arange(2 * 3 * 4 * 5)
        .reshape(2, 3, 4, 5)
        .contiguous(memory_format=torch.channels_last)
    )
    assert sorted(arrays.sample(image).tolist()) == list(range(120))
    assert arrays.sample(torch.eye(3).to_sparse()).tolist() == [1.0, 1.0, 1.0]
    assert arrays.sample(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_a_graph_or_why_there_is_none(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install torch")

    class Whimsical(torch.nn.Module):
        def forward(self, x):
            raise ValueError("not today")

    with TrainingLogger("net", tmp_path) as logger:
        logger.log_graph(torch.nn.Linear(2, 3), torch.zeros(1, 2))
        logger.log_graph(Whimsical(), torch.zeros(1, 2))
    graph = GraphDef.FromString(read(logger).Graph().SerializeToString())
    assert any("aten::linear" in node.op for node in graph.node)
    assert text_of(logger, "net/training/graph") == "no graph: ValueError: not today"


# -- what the model does -------------------------------------------------------------------------


def test_attention_by_layer_and_head(tmp_path: Path) -> None:
    even = np.full((1, 2, 3, 4), 0.25)
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_attention([even, even])
        logger.log_attention({"decoder": even[0]}, step=1)
        logger.log_attention([np.full((4, 1024, 1024), 1 / 1024)], step=2)  # thinned, the same
    tags = read(logger).Tags()["scalars"]
    assert "net/training/attention/layer1/head1/concentration" in tags
    assert points(logger, "net/training/attention/decoder/head0/entropy_nats") == [(1, math.log(4))]
    tag = "net/training/attention/layer0/head0/entropy_nats"
    assert points(logger, tag) == [(0, math.log(4)), (2, math.log(1024))]


def test_uncertainty_and_what_more_data_could_remove(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_uncertainty([1.0, 3.0], [5.0, 7.0])
        logger.log_uncertainty([1.0])
    assert points(logger, "net/training/uncertainty/epistemic_mean") == [(0, 2.0), (1, 1.0)]
    assert points(logger, "net/training/uncertainty/epistemic_share") == [(0, 0.25)]


def test_calibration_and_representation(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_calibration([[0.75, 0.25]] * 4, [0, 0, 0, 1])
        logger.log_representation("features", [[-1.0, -1.0], [1.0, 1.0]])
    assert points(logger, "net/validation/calibration/expected_error") == [(0, 0.0)]
    assert points(logger, "net/training/representation/features/effective_rank") == [(0, 1.0)]
    (image,) = read(logger).Images("net/validation/calibration/reliability")
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_predictions_in_green_and_red_frames(tmp_path: Path) -> None:
    inputs = np.zeros((2, 1, 8, 8))
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_predictions(inputs, [[0.9, 0.1], [0.2, 0.8]], [0, 0], ["cat", "d|g"])
        logger.log_predictions(np.zeros((2, 5)), [0, 1], [0, 1], step=1)  # no images
    (image,) = read(logger).Images("net/training/predictions")
    assert (image.width, image.height) == (2 * (96 + 6 + 2), 96 + 6 + 13 + 2)  # and a label
    events = read(logger).Tensors("net/training/predictions/table")
    assert events[0].tensor_proto.string_val[0].decode().splitlines()[2:] == [
        "| 0 | cat | cat |  |", r"| 1 | d\|g | cat | wrong |",
    ]  # fmt: skip
    with TrainingLogger("net", tmp_path) as logger, pytest.raises(DataError, match="do not fit"):
        logger.log_predictions(inputs, [0], [0, 1])


def test_a_picture_is_what_was_given() -> None:
    grey = pictures.picture(np.array([[0.0, 0.5], [1.0, 0.25]]))
    assert grey[..., 0].tolist() == [[0, 128], [255, 64]]
    assert pictures.picture(np.array([[-1.0, 3.0]]))[0, :, 0].tolist() == [0, 255]  # scaled
    last = pictures.picture(np.full((5, 6, 4), 7, np.uint8))
    assert (last.shape, last.max()) == ((5, 6, 3), 7)
    assert np.array_equal(pictures.picture(np.full((3, 5, 6), 7, np.uint8)), last)
    for bad in (np.zeros(4), np.zeros((5, 6, 7)), np.zeros((0, 3))):
        with pytest.raises(DataError, match="no image"):
            pictures.picture(bad)


def test_a_png_holds_every_pixel(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    (tmp_path / "one.png").write_bytes(pictures.png(pixels))
    assert np.array_equal(np.asarray(image.open(tmp_path / "one.png")), pixels)


def test_a_reliability_picture_tells_too_sure_from_not_sure_enough() -> None:
    # twenty samples each: confidence 0.75 and accuracy 0.5, confidence 0.25 and accuracy 0.4
    nan = math.nan
    found = Calibration(0.2, 0.05, (20, 20), (0.25, 0.75), (0.4, 0.5))
    sheet = plots.reliability(found)[plots.TOP :, plots.LEFT :]
    blue, over, under = (66, 133, 244), (229, 115, 115), (129, 199, 132)
    at = {(x, y): tuple(sheet[300 - round(300 * y), round(300 * x)].tolist())
          for x in (0.3, 0.8) for y in (0.1, 0.35, 0.6, 0.9)}  # fmt: skip
    white = (255, 255, 255)
    assert [at[0.3, y] for y in (0.1, 0.35, 0.6)] == [blue, under, white]
    assert [at[0.8, y] for y in (0.1, 0.35, 0.6, 0.9)] == [blue, blue, over, white]
    pale = plots.reliability(Calibration(0.0, 0.0, (0, 1), (nan, 0.9), (nan, 0.9)))
    assert pale[plots.TOP + 250, plots.LEFT + 240].tolist() == [
        194,
        215,
        251,
    ]  # blue, a third of the way


def reads(sheet: pictures.Picture, text: str, left: int, top: int, scale: int = 1) -> bool:
    """Whether ``text`` stands there, and nothing else."""
    mask = glyphs.dots(text, scale)
    spot = sheet[top : top + mask.shape[0], left : left + mask.shape[1]]
    return np.array_equal((spot != 255).any(axis=-1), mask)


def test_letters_by_hand() -> None:
    drawn = ["".join(".#"[dot] for dot in row) for row in glyphs.dots("T1").tolist()]
    assert drawn == [
        "#####...#..", "..#....##..", *["..#.....#.."] * 4, "..#....###.",
    ]  # fmt: skip
    assert glyphs.dots("é").sum() == glyphs.dots("模").sum() == 20  # a box for what it lacks
    assert glyphs.shortened("densenet", 47) == "densenet"
    assert glyphs.shortened("densenet", 46) == "dense.." and glyphs.shortened("ab", 5) == ""
    assert glyphs.width("dense..") <= 46


def test_a_reliability_picture_has_axes_and_its_error() -> None:
    sheet = plots.reliability(Calibration(0.2, 0.05, (20, 20), (0.25, 0.75), (0.4, 0.5)))
    assert reads(sheet, "ECE 0.2000, 40 samples", plots.LEFT, 8, scale=2)
    assert reads(sheet, "confidence - accuracy +0.0500; red: too sure", plots.LEFT, 28)
    half = glyphs.width("0.5")
    across = plots.LEFT + round(0.5 * (plots.PLOT - 1)) - half // 2
    assert reads(sheet, "0.5", across, plots.TOP + plots.PLOT + 6)
    assert reads(sheet, "accuracy", 4, plots.TOP - 12)


def test_a_confusion_matrix_says_what_is_taken_for_what(tmp_path: Path) -> None:
    counts = measures.confusion(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    sheet = plots.confusion(counts, ["cat", "dog", "cow"])
    assert reads(sheet, "3 of 4 right", 8, 8, scale=2)
    white, blue = (255, 255, 255), (66, 133, 244)
    spots = [[tuple(sheet[62 + 48 * row + 2, 104 + 48 * column + 2]) for column in range(3)]
             for row in range(3)]  # fmt: skip
    assert spots[1] == [white, blue, white] and spots[2] == [white] * 3  # no sample of that class
    half_blue, half_red = tuple(spots[0][0]), tuple(spots[0][1])
    assert half_blue == (160, 194, 250) and half_red == (242, 185, 185)
    with TrainingLogger("net", tmp_path) as logger:
        scores = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.1, 0.9]]
        logger.log_confusion(scores, [0, 0, 1, 1], ["cat", "d|g"])
    with TrainingLogger("net", tmp_path) as other, pytest.raises(DataError, match="is no class"):
        other.log_confusion([0, -1], [0, 1])
    assert len(read(logger).Images("net/validation/confusion/matrix")) == 1
    (said,) = read(logger).Tensors("net/validation/confusion/table")[0].tensor_proto.string_val
    assert said.decode().splitlines()[2:] == [r"| cat | 2 | 1 | d\|g (1) |", r"| d\|g | 2 | 2 |  |"]


def test_a_grid_takes_images_of_one_size() -> None:
    sheet = pictures.grid([np.ones((100, 120))] * 5, columns=3)
    assert sheet.shape == (2 * 102, 3 * 122, 3)
    with pytest.raises(DataError, match="one size"):
        pictures.grid([np.ones((2, 2)), np.ones((2, 3))])


def test_embeddings_for_the_projector(tmp_path: Path) -> None:
    with TrainingLogger("org/net", tmp_path) as logger:
        logger.log_embedding('a"b', [[1.0, 2.0], [3.0, 4.0]], ["x\ty", ""], np.ones((2, 1, 4, 4)))
        logger.log_embedding('a"b', [[5.0, 6.0]], step=9)
        with pytest.raises(DataError, match="1 labels for 2"):
            logger.log_embedding("c", [[1.0], [2.0]], ["one"])
    text = (logger.folder / "projector_config.pbtxt").read_text()
    config = text_format.Parse(text, ProjectorConfig())
    first, second = config.embeddings
    assert first.tensor_name == 'org/net/a"b:00000'
    assert (logger.folder / first.tensor_path).read_text() == "1\t2\n3\t4\n"
    assert (logger.folder / first.metadata_path).read_text() == "x y\n \n"
    assert list(first.sprite.single_image_dim) == [4, 4]
    assert (logger.folder / first.sprite.image_path).exists()
    assert (logger.folder / second.tensor_path).read_text() == "5\t6\n"


def test_the_machine_is_read_by_the_profilers(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path, device="cpu") as logger:
        first = logger.log_system()
        second = logger.log_system()
    resident = {tag: value for tag, value in first.items() if tag == "memory/rss_bytes"}
    assert resident["memory/rss_bytes"] > 1e6
    assert "utilization/worker_cpu_percent" in second
    assert "utilization/worker_cpu_percent" not in first  # a rate needs two readings
    assert read(logger).Scalars("net/training/system/memory/rss_bytes")[0].value == pytest.approx(
        first["memory/rss_bytes"]
    )


class Meter:
    """A profiler with one energy counter, which breaks at the third reading."""

    name = "meter"
    channels = (Channel("wall", "J", "counter", "energy/wall_j"),)

    def __init__(self, context: object) -> None:
        self._readings = iter((100.0, 130.0))

    def open(self) -> Available:
        return Available()

    def read(self) -> list[float]:
        return [next(self._readings)]

    def close(self) -> None:
        pass


def test_an_energy_counter_gives_power_and_a_meter_that_breaks_is_named(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(registry, "PROFILERS", {"meter": f"{__name__}:Meter"})
    with TrainingLogger("net", tmp_path) as logger:
        assert logger.log_system() == {}
        second = logger.log_system()
        assert second["energy/wall_j"] == 30.0
        assert second["power/wall_w"] > 0
        assert logger.log_system() == {}
    assert "| meter | it fails: StopIteration" in text_of(logger, "net/training/system/absent")


# -- without torch, and on a bad day -------------------------------------------------------------

PLAIN = """
import sys, json
import numpy as np
from harness.training import TrainingLogger, CheckpointManager
with TrainingLogger("net", sys.argv[1], 1, 1) as logger:
    logger.log_epoch(0, 1.0, val_loss=np.float64(0.5))
    logger.log_gradients({"w": np.ones(3)})
    logger.log_histograms({"w": np.ones(3)})
    logger.log_images("x", np.zeros((2, 4, 4)))
    logger.log_system()
CheckpointManager(sys.argv[1] + "/checkpoints").load()
print(json.dumps([name in sys.modules for name in ("torch", "tensorboard", "PIL")]))
"""


def test_numpy_alone_needs_no_torch_and_no_tensorboard(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, False, False]


def test_checksums_are_those_of_tensorboardx() -> None:
    from tensorboardX.record_writer import masked_crc32c

    ours = _Messages().checksum
    for data in (b"", b"a", b"123456789", bytes(range(256)) * 3):
        assert ours(data) == masked_crc32c(data)


def train_on(logger: TrainingLogger, steps: int) -> None:
    for _ in range(steps):
        logger.log_metrics({"loss": 1.0})
        logger.next_step()


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path: Path, caplog) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        train_on(logger, 10)
        with file_size_limit(5000), caplog.at_level(logging.WARNING):
            train_on(logger, 3000)  # more than is held back
            assert logger.problem is not None
            train_on(logger, 3000)
            logger.log_embedding("x", [[1.0], [2.0]])
            logger.log_images("x", np.zeros((2, 4, 4)))
    assert [r.message for r in caplog.records] == [
        "TensorBoard events end here: File too large; training goes on"
    ]


def test_a_folder_that_vanished_is_told_once_and_not_made_again(tmp_path: Path, caplog) -> None:
    with TrainingLogger("net", tmp_path) as logger, caplog.at_level(logging.WARNING):
        shutil.rmtree(logger.folder)
        logger.log_embedding("x", [[1.0], [2.0]])
        train_on(logger, 3000)
    assert "is gone" in str(logger.problem) or "No such file" in str(logger.problem)
    assert len(caplog.records) == 1
    assert not logger.folder.exists()


def test_a_process_forked_off_writes_nothing(tmp_path: Path) -> None:
    code = f"""
import os
from harness.training import TrainingLogger
logger = TrainingLogger("net", {str(tmp_path)!r})
logger.log_metrics({{"loss": 1.0}})
if not os.fork():
    logger.log_metrics({{"loss": 2.0}})
    logger.close()
    os._exit(0)
os.wait()
logger.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    (folder,) = tmp_path.iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.value for event in events.Scalars("net/training/step/loss")] == [1.0]


def test_a_closed_logger_drops_what_comes_later(tmp_path: Path) -> None:
    logger = TrainingLogger("net", tmp_path)
    logger.log_metrics({"loss": 1.0})
    logger.close()
    logger.close()
    logger.log_metrics({"loss": 2.0})
    assert points(logger, "net/training/step/loss") == [(0, 1.0)]
    assert list(tmp_path.iterdir()) == [logger.folder]
