"""Every registered backend, and the shipped fake, against the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.protocols import SessionOptions, Unavailable
from harness.testing.contract_backend import BackendContract, Subject
from harness.testing.fake_backend import FakeBackend

FRAMEWORKS = {"pytorch": "torch", "onnxruntime": "onnxruntime"}


class TestBackends(BackendContract):
    @pytest.fixture(params=[*registry.backend_names(), "fake"])
    def subject(
        self,
        request: pytest.FixtureRequest,
        artifacts: dict[str, Callable[[Path], Any]],
        tmp_path: Path,
    ) -> Subject:
        name = request.param
        kind = FakeBackend if name == "fake" else self._registered(name)
        found = kind().availability("cpu")
        if isinstance(found, Unavailable):
            pytest.skip(f"{name} on cpu: {found.reason}")
        wanted = kind().artifact_format("fp32", SessionOptions())
        if wanted not in artifacts:
            pytest.skip(f"no test artifact of format {wanted!r}")
        return Subject(kind, *artifacts[wanted](tmp_path), framework=FRAMEWORKS.get(name, ""))

    @staticmethod
    def _registered(name: str) -> type:
        found = registry.find_backend(name)
        if isinstance(found, registry.Broken):
            pytest.skip(f"{name}: {found.cause.reason}")
        return type(found)
