"""What a training logs of its model: gradients, weights, layers, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.training import activations, arrays, graph, insight
from harness.training.log import VALIDATION, Log


class ModelLog(Log):
    """The part of `TrainingLogger` that looks into the model."""

    def log_gradients(self, model: Any, step: int | None = None) -> None:
        """Norms of the gradients, by parameter, by layer and in all; call it after ``backward``.

        ``model`` is a torch module, or gradients by parameter name.
        """
        step = self._due(self.log_gradients_every, step, ("gradients", id(model)))
        if step is not None:
            insight.gradient_norms(self._to, arrays.gradients(model), step)

    def log_weights(self, model: Any, step: int | None = None) -> None:
        """Norms of the weights, by parameter, by layer and in all."""
        step = self._due(self.log_gradients_every, step, ("weights", id(model)))
        if step is not None:
            insight.weight_norms(self._to, arrays.weights(model), step)

    def log_histograms(self, model: Any, step: int | None = None) -> None:
        """Distributions of weights and gradients, each from at most 16,384 of its elements."""
        step = self._due(self.log_histograms_every, step, ("histograms", id(model)))
        if step is None:
            return
        for kind, found in (("weights", arrays.weights), ("gradients", arrays.gradients)):
            for name, values in found(model).items():
                self._to.histogram(f"training/histograms/{kind}/{name}", values, step)

    def log_graph(self, model: Any, inputs: Any) -> None:
        """The model's graph, traced on ``inputs`` (a tensor or a tuple). Needs torch, TensorBoard.

        A model that cannot be traced leaves a text that says so.
        """
        try:
            self._to.events.graph(graph.trace(model, inputs))
        except graph.NoGraph as error:
            self._to.text("training/graph", f"no graph: {error}", self.step)

    def log_histogram(self, tag: str, values: Any, step: int | None = None) -> None:
        """The distribution of any ``values``, ``{model}/{tag}``, from at most 16,384 of them."""
        self._to.histogram(tag, values, self._at(step, ("histogram", tag)))

    def log_activations(
        self, model: Any, inputs: Any, layers: Sequence[str] | None = None, step: int | None = None
    ) -> dict[str, Any]:
        """What ``layers`` (names of modules; by default all that have none below) put out.

        ``inputs`` (a tensor, a tuple or a dict) go through the model once, without gradients and in
        evaluation mode, as which it is left as it was. Each layer's mean, standard deviation, share
        of zeros and distribution; returned are the outputs. Raises `DataError` for a name that is
        no layer.
        """
        found = activations.of(model, inputs, layers)
        insight.activations(self._to, found, self._at(step, "activations"))
        return found

    def log_attention(self, weights: Any, step: int | None = None) -> None:
        """Entropy (nats) and concentration of each head.

        ``weights``: of one layer [batch, heads, queries, keys], of several as a sequence or by
        name. Concentration is the mean weight of the strongest key.
        """
        insight.attention(self._to, weights, self._at(step, "attention"))

    def log_uncertainty(
        self, epistemic: Any, aleatoric: Any = None, step: int | None = None
    ) -> None:
        """Means and distributions; with both, the share of what more data could remove."""
        insight.uncertainty(self._to, epistemic, aleatoric, self._at(step, "uncertainty"))

    def log_calibration(
        self,
        probabilities: Any,
        labels: Any,
        prefix: str = VALIDATION,
        step: int | None = None,
    ) -> None:
        """Expected calibration error in 15 bins, confidence minus accuracy, a reliability picture.

        ``probabilities``: [samples, classes] after softmax, or [samples] of class 1.
        """
        at = self._at(step, f"{prefix}/calibration")
        insight.calibration(self._to, prefix, probabilities, labels, at)

    def log_representation(self, tag: str, embeddings: Any, step: int | None = None) -> None:
        """What tells of a collapse: std per dimension, norm, spread, effective rank.

        ``embeddings``: [..., dimensions].
        """
        insight.representation(self._to, tag, embeddings, self._at(step, ("representation", tag)))
