"""A runtime that adds up each input: it reads no model, yet keeps the whole contract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BackendUnavailable, DataError, ModelError, UsageError
from harness.protocols import (
    Artifact,
    Available,
    Description,
    Option,
    Session,
    SessionOptions,
    Unavailable,
    Wanted,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays


MAGIC = b"tally\n"


class TallyBackend:
    """Options: ``times`` (1), how often to add up."""

    name = "tally"
    options = (Option("times", default="1", help="how often to add up"),)
    distributions = ("harness-tally",)

    def availability(self, device: str) -> Available | Unavailable:
        if device != "cpu":
            return Unavailable(f"tally cannot count on {device}", "use --device cpu")
        return Available({"version": "1.2.3"})

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        if precision != "fp32":
            raise UsageError(f"tally has no {precision}", "use fp32")
        _times(options)
        return Wanted("onnx")

    def prepare(self, artifact: Artifact, inputs: Arrays, options: SessionOptions) -> Session:
        found = self.availability(options.device)
        if isinstance(found, Unavailable):
            raise BackendUnavailable(found.reason, found.remedy)
        return _TallySession(inputs, _times(options))


class TallyCardBackend(TallyBackend):
    """The same on a card of its own, which loads a format of its own, made of symmetric INT8."""

    name = "tally-card"
    default_device = "cuda"

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        if precision not in ("fp32", "int8"):
            raise UsageError(f"tally-card has no {precision}", "use fp32 or int8")
        _times(options)
        return Wanted("tally", of=Wanted("onnx", symmetric=True))

    def make_artifact(self, source: Artifact, target: Path, options: SessionOptions) -> None:
        target.write_bytes(MAGIC + Path(source.path).read_bytes())

    def prepare(self, artifact: Artifact, inputs: Arrays, options: SessionOptions) -> Session:
        if artifact.format != "tally" or not Path(artifact.path).read_bytes().startswith(MAGIC):
            raise ModelError("this is no file of tally's", "let tally make it")
        return super().prepare(artifact, inputs, options)


def _times(options: SessionOptions) -> int:
    for key in options.options:
        if key != "times":
            raise UsageError(f"tally has no option {key!r}", "choose times")
    text = options.options.get("times", "1")
    if not (text.isdecimal() and 1 <= int(text) <= 1000):
        raise UsageError(f"--option times is {text!r}", "give a whole number from 1 to 1000")
    return int(text)


class _TallySession:
    def __init__(self, inputs: Arrays, times: int) -> None:
        self._inputs = dict(inputs)
        self._times = times
        self._sums: dict[str, NDArray[Any]] = {}

    def bind(self, inputs: Arrays) -> None:
        if inputs.keys() != self._inputs.keys():
            raise DataError(f"the inputs are {', '.join(inputs)}", "bind the same as before")
        for name, old in self._inputs.items():
            new = inputs[name]
            if (new.dtype, new.shape) != (old.dtype, old.shape):
                raise DataError(f"input {name!r} is {new.dtype} {new.shape}", "bind what fits")
        self._inputs = dict(inputs)

    def enqueue(self) -> None:
        for _ in range(self._times):
            self._sums = {f"sum of {name}": np.sum(a) for name, a in self._inputs.items()}

    def synchronize(self) -> None:
        pass

    def outputs(self) -> Mapping[str, NDArray[Any]]:
        return {name: np.array(total) for name, total in self._sums.items()}

    def describe(self) -> Description:
        return Description({"version": "1.2.3"}, {"Sum": {"fp32": len(self._inputs)}})

    def close(self) -> None:
        self._inputs = {}
