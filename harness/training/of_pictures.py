"""What a training logs to be looked at: images, predictions, embeddings and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import ResultError
from harness.training import arrays, insight, pictures
from harness.training.log import VALIDATION, Log


class PictureLog(Log):
    """The part of `TrainingLogger` that makes pictures."""

    def log_image(self, tag: str, image: Any, step: int | None = None) -> None:
        """[H, W], [channels, H, W] or [H, W, channels]; floats in [0, 1], or scaled into it."""
        self.log_images(tag, [image], 1, step)

    def log_images(
        self, tag: str, images: Any, columns: int | None = None, step: int | None = None
    ) -> None:
        """A grid of the first 64 of ``images``."""
        tiles = [arrays.to_numpy(image) for image in images[: insight.MAX_IMAGES]]
        at = self._at(step, ("image", tag))
        self._to.image(f"training/images/{tag}", pictures.grid(tiles, columns), at)

    def log_predictions(
        self,
        inputs: Any,
        predictions: Any,
        targets: Any,
        class_names: Sequence[str] | None = None,
        step: int | None = None,
    ) -> None:
        """The first 64 inputs in green or red frames, and a table of what was said of each.

        ``predictions``: [samples, classes] scores or [samples] labels. Inputs that are no images
        have the table alone.
        """
        at = self._at(step, "predictions")
        insight.predictions(self._to, inputs, predictions, targets, class_names, at)

    def log_confusion(
        self,
        predictions: Any,
        targets: Any,
        class_names: Sequence[str] | None = None,
        prefix: str = VALIDATION,
        step: int | None = None,
    ) -> None:
        """Which class is taken for which: a picture (up to 40 classes) and a table.

        ``predictions``: [samples, classes] scores or [samples] labels.
        """
        at = self._at(step, f"{prefix}/confusion")
        insight.confusion(self._to, prefix, predictions, targets, class_names, at)

    def log_embedding(
        self,
        tag: str,
        embeddings: Any,
        labels: Any = None,
        images: Any = None,
        step: int | None = None,
    ) -> None:
        """[samples, dimensions] for TensorBoard's projector, with labels and square thumbnails."""
        at = self._at(step, ("embedding", tag))
        vectors = self._to.finite(f"training/embedding/{tag}", embeddings, at)
        if vectors is None or self.problem is not None:
            return
        texts = (
            None
            if labels is None
            else [*(labels.tolist() if hasattr(labels, "tolist") else labels)]
        )
        tiles = None if images is None else [arrays.to_numpy(image) for image in images]
        try:
            self._projector.add(f"{self._to.model}/{tag}", at, vectors, texts, tiles)
        except (OSError, ResultError) as error:
            self._to.events.fail(f"the log ends here: {error}")

    def log_figure(self, tag: str, figure: Any, step: int | None = None) -> None:
        """A matplotlib figure, or anything else with ``savefig``: a loss landscape, collapse plots.

        Raises `DataError` for anything else. The figure stays open.
        """
        png, height, width = pictures.drawn(figure)
        at = self._at(step, ("figure", tag))
        self._to.png(f"training/figures/{tag}", png, height, width, at)
