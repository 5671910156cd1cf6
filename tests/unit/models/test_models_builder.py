"""What the builder process answers when a library, or the model's own code, fails in it."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, ModelError
from harness.models import builder, builder_client
from harness.models.builder import answer
from harness.models.builder_client import Failure, Job
from harness.protocols import Wanted
from harness.spec import RunSpec


def failed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, error: BaseException, **spec: Any
) -> Failure:
    """The answer where preparing the model raises ``error``."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(builder, "assemble", fail)
    job = Job(spec=RunSpec(model="net.onnx", **spec), wanted=Wanted("onnx"), root=str(folder))
    failure = answer(job).failure
    assert failure is not None
    assert "\n" not in str(ModelError(failure.message, failure.remedy))
    return failure


class Foreign(Exception):
    """A library's own class of exceptions."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Foreign("first line\n  second"), ": Foreign in test_models_builder.py, line "),
        (KeyError("w"), ": KeyError in "),
        (RecursionError("too deep"), ": RecursionError in "),
        (OSError("cannot load weights of no/such"), "cannot load weights of no/such"),
        (AssertionError(), "no reason given"),
    ],
)
def test_whatever_is_raised_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str
) -> None:
    failure = failed(monkeypatch, tmp_path, error)
    assert failure.kind == "ModelError"
    assert failure.message.startswith("'net.onnx' cannot be prepared: ") and said in failure.message
    assert "died" not in failure.message
    assert failure.remedy
    assert "in fail" in failure.trace and type(error).__name__ in failure.trace


def test_a_reduced_precision_can_be_run_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failure = failed(monkeypatch, tmp_path, Foreign("no"), precision="int8")
    assert failure.remedy.startswith("run it with --precision fp32")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_too_little_memory_is_told_however_a_library_says_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    failure = failed(monkeypatch, tmp_path, error)
    assert failure.message == "there is not enough memory to prepare 'net.onnx'"


def test_a_library_that_is_absent_and_none_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error = ModuleNotFoundError("No module named 'einops.layers'", name="einops.layers")
    failure = failed(monkeypatch, tmp_path, error)
    assert failure.message == "preparing 'net.onnx' needs einops.layers, which is not installed"
    assert failure.remedy == "pip install einops"


def test_code_that_exits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failure = failed(monkeypatch, tmp_path, SystemExit(3))
    assert failure.message == "the code of 'net.onnx' ended the process (exit code 3)"


def test_an_answer_can_be_written_whatever_a_path_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failure = failed(monkeypatch, tmp_path, Foreign(os.fsdecode(b"bad \xff path")))
    assert "bad ? path" in failure.message


@pytest.mark.parametrize(
    ("code", "tail", "how", "remedy"),
    [
        (-signal.SIGKILL, "", "killed by SIGKILL", "memory may have run out; use a smaller "),
        (
            -signal.SIGSEGV,
            "Fatal Python error: Segmentation fault\n\n"
            '  File "/usr/lib/python3/site-packages/onnx/shape_inference.py", line 44 in infer\n'
            '  File "/home/me/other.py", line 3 in main\n',
            "killed by SIGSEGV in onnx",
            "a library crashed in its own code; try another --backend",
        ),
        (
            -signal.SIGABRT,
            '  File "/home/me/net.py", line 12 in make\n',
            "killed by SIGABRT in net.py, line 12 (make)",
            "a library crashed in its own code; ",
        ),
        (-signal.SIGTERM, "", "killed by SIGTERM", "it was ended from outside; run it again"),
        (7, "bye\n", "exit code 7, bye", "the model's own code, or a library's, called exit"),
    ],
)
def test_a_death_has_its_signal_and_its_likely_cause(
    code: int, tail: str, how: str, remedy: str
) -> None:
    with tempfile.TemporaryFile() as errors:
        errors.write(tail.encode())
        with pytest.raises(HarnessError) as raised:
            builder_client._decode(b"", code, "net.onnx", errors)
    assert raised.value.message == f"the process that prepared 'net.onnx' died: {how}"
    assert raised.value.remedy.startswith(remedy)
