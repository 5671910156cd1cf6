"""The shipped fake backend, fed with the artifact that ONNX backends get."""

from __future__ import annotations

from harness.protocols import SessionOptions
from harness.testing.fake_backend import FakeBackend


class Fake(FakeBackend):
    def artifact_format(self, precision: str, options: SessionOptions) -> str:
        super().artifact_format(precision, options)
        return "onnx"
