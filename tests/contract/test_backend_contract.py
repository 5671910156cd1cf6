"""Every registered backend on every kind of device, and the shipped fake, against the contract.

What is not here, hardware or library, is skipped with the adapter's own reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.errors import BackendUnavailable
from harness.maybe import explain
from harness.protocols import SessionOptions, Unavailable
from harness.testing.contract_backend import BackendContract, Subject
from harness.testing.fake_backend import FakeBackend

FRAMEWORKS = {"pytorch": "torch", "onnxruntime": "onnxruntime", "tensorrt": "tensorrt"}
# backend, device, options beyond the defaults
ON_THE_CPU = [(name, "cpu", {}) for name in (*registry.backend_names(), "fake")]
ON_A_GPU = [
    *((name, "cuda:0", {}) for name in registry.backend_names()),
    *((name, "cuda:0", {"cuda_graph": "on"}) for name in registry.BACKENDS),
    ("onnxruntime", "cuda:0", {"provider": "tensorrt"}),
    ("fake", "cpu", {"device_us": "100", "asynchronous": "on"}),
]
SUBJECTS = [
    *((*subject, boundary) for subject in ON_THE_CPU for boundary in ("compute",)),
    *((*subject, boundary) for subject in ON_A_GPU for boundary in ("compute", "transfer")),
]


def _name(subject: tuple[str, str, dict[str, str], str]) -> str:
    name, device, options, boundary = subject
    return "-".join([name, device, *(f"{k}={v}" for k, v in options.items()), boundary])


class TestBackends(BackendContract):
    @pytest.fixture(params=SUBJECTS, ids=_name)
    def subject(
        self,
        request: pytest.FixtureRequest,
        artifacts: dict[str, Callable[[Path], Any]],
        tmp_path: Path,
    ) -> Subject:
        name, device, given, boundary = request.param
        kind = FakeBackend if name == "fake" else self._registered(name)
        found = kind().availability(device)
        if isinstance(found, Unavailable):
            pytest.skip(f"{name} on {device}: {explain(found)}")
        if name == "onnxruntime" and device != "cpu":  # a search by time ends differently each time
            given = {"conv_search": "heuristic", **given}
        options = SessionOptions(device=device, boundary=boundary, options=given)
        wanted = kind().wants("fp32", options).format
        if wanted not in artifacts:
            pytest.skip(f"no test artifact of format {wanted!r}")
        framework = FRAMEWORKS.get(name, "")
        made = Subject(kind, *artifacts[wanted](tmp_path), framework=framework, options=options)
        if "provider" in given:  # its libraries are looked for only when a model is loaded
            try:
                made.prepare().close()
            except BackendUnavailable as error:
                pytest.skip(str(error))
        return made

    @staticmethod
    def _registered(name: str) -> type:
        found = registry.find_backend(name)
        if isinstance(found, registry.Broken):
            pytest.skip(f"{name}: {found.cause.reason}")
        return type(found)
