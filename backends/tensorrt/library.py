"""Which of NVIDIA's two libraries the adapter works with, and all in which they differ.

TensorRT builds an engine on the GPU that will run it. TensorRT for RTX has the same interface and
builds for a choice of architectures, with no GPU at hand; what is left for the GPU is compiled when
the engine is loaded, and kept in a runtime cache.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.backends.common import import_framework
from harness.backends.tensorrt.options import OPTIONS, PRECISIONS, Settings, settings
from harness.maybe import Unavailable
from harness.protocols import Option, SessionOptions


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two."""

    backend: str  # its name on the command line
    title: str
    module: str
    distribution: str  # as somebody would look for it
    extra: str
    majors: tuple[int, ...]
    options: tuple[Option, ...]
    precisions: tuple[str, ...] = PRECISIONS
    # engines are built without a GPU, ahead of the run, and compiled to an end when loaded
    ahead_of_time: bool = False

    @property
    def pip(self) -> str:
        return f"pip install 'hw-harness[{self.extra}]'"

    @property
    def engine_format(self) -> str:
        """What an artifact that is an engine of this library is called."""
        return f"{self.backend}-engine"

    def settings(self, options: SessionOptions) -> Settings:
        """The options in force. Raises `UsageError` naming the valid ones."""
        return settings(options, self.backend, self.options)

    def load(self) -> Any | Unavailable:
        """The module, or why it is not to be had."""
        trt: Any = import_framework(self.module, self.distribution, self.pip)
        if isinstance(trt, Unavailable):
            return trt
        major = str(trt.__version__).partition(".")[0]
        if not major.isdigit() or int(major) not in self.majors:
            supported = " and ".join(map(str, self.majors))
            verb = "are" if len(self.majors) > 1 else "is"
            return Unavailable(
                f"{self.distribution} {trt.__version__} is not supported, {supported} {verb}",
                self.pip,
            )
        return trt


TENSORRT = Library(
    backend="tensorrt",
    title="TensorRT",
    module="tensorrt",
    distribution="tensorrt",
    extra="tensorrt",
    majors=(10, 11),
    options=OPTIONS,
)
