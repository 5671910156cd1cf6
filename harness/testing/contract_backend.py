"""The contract of `harness.protocols.Backend` as a test class: subclass it, supply ``subject``.

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def subject(self, tmp_path):
            return Subject(MyBackend, artifact, inputs, other_inputs, framework="myruntime")

Needs pytest. Nothing here is about speed; the timed loop has tests of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from harness.errors import BackendUnavailable, DataError, UsageError
from harness.maybe import decode
from harness.protocols import (
    Artifact,
    ArtifactMaker,
    Asynchronous,
    Available,
    Backend,
    Description,
    OperatorProfiled,
    ProfiledInferences,
    Session,
    SessionOptions,
    Unavailable,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays


@dataclass(frozen=True)
class Subject:
    """What is tested, and with what.

    ``make`` returns a new backend object. ``other_inputs`` fit like ``inputs`` and lead to other
    outputs. ``framework`` is the module that only `availability` and `prepare` may import.
    """

    make: Callable[[], Backend]
    artifact: Artifact
    inputs: Arrays
    other_inputs: Arrays
    framework: str = ""
    options: SessionOptions = field(default_factory=SessionOptions)

    def prepare(self, inputs: Arrays | None = None) -> Session:
        return self.make().prepare(self.artifact, inputs or self.inputs, self.options)


def infer(session: Session) -> Mapping[str, NDArray[Any]]:
    """One inference and its outputs."""
    session.enqueue()
    session.synchronize()
    return session.outputs()


def same(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> bool:
    """Bit for bit, by name; NaN equals NaN."""
    return left.keys() == right.keys() and all(
        array.dtype == right[name].dtype and array.tobytes() == right[name].tobytes()
        for name, array in left.items()
    )


def infer_at_once(sessions: Sequence[Session], count: int) -> list[list[Mapping[str, Any]]]:
    """The outputs of ``count`` inferences of each session, driven as the worker drives them."""
    if not all(isinstance(one, Asynchronous) and one.asynchronous for one in sessions):
        with ThreadPoolExecutor(len(sessions)) as pool:
            return list(pool.map(lambda one: [infer(one) for _ in range(count)], sessions))
    got: list[list[Mapping[str, Any]]] = [[] for _ in sessions]
    for _ in range(count):
        for session in sessions:
            session.enqueue()
        for session, outputs in zip(sessions, got, strict=True):
            session.synchronize()
            outputs.append(session.outputs())
    return got


class BackendContract:
    """What every backend must do, whatever runs inside."""

    @pytest.fixture
    def subject(self) -> Subject:
        raise NotImplementedError("override the fixture `subject`")

    def test_it_is_a_backend(self, subject: Subject) -> None:
        backend = subject.make()
        assert isinstance(backend, Backend)
        assert backend.name

    @pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:999", "abacus:1"])
    def test_availability_is_an_answer(self, subject: Subject, device: str) -> None:
        found = subject.make().availability(device)
        assert isinstance(found, Available) or (isinstance(found, Unavailable) and found.reason)

    def test_the_artifact_wanted_is_the_one_it_runs(self, subject: Subject) -> None:
        wanted = subject.make().wants(subject.artifact.precision, subject.options)
        assert wanted.format == subject.artifact.format

    def test_an_artifact_of_its_own_format_is_made_by_it(self, subject: Subject) -> None:
        backend = subject.make()
        wanted = backend.wants(subject.artifact.precision, subject.options)
        assert wanted.of is None or isinstance(backend, ArtifactMaker)

    def test_the_options_that_it_declares_are_taken(self, subject: Subject) -> None:
        backend = subject.make()
        for option in getattr(backend, "options", ()):
            if option.device in ("", subject.options.device.partition(":")[0]) and option.default:
                chosen = {**subject.options.options, option.name: option.default}
                options = msgspec.structs.replace(subject.options, options=chosen)
                assert backend.wants(subject.artifact.precision, options)
                assert not option.values or option.default in option.values

    def test_an_unknown_option_is_refused_by_name(self, subject: Subject) -> None:
        options = msgspec.structs.replace(subject.options, options={"no_such_option": "1"})
        with pytest.raises(UsageError, match="no_such_option") as caught:
            subject.make().wants(subject.artifact.precision, options)
        assert caught.value.remedy

    def test_an_unknown_precision_is_refused_with_what_there_is(self, subject: Subject) -> None:
        with pytest.raises(UsageError, match=r"int3.*fp32"):
            subject.make().wants("int3", subject.options)

    def test_what_is_wanted_needs_no_framework(self, subject: Subject) -> None:
        if not subject.framework:
            pytest.skip("the subject names no framework to stay away from")
        kind = type(subject.make())
        script = (
            f"import sys; from {kind.__module__} import {kind.__qualname__} as Kind\n"
            "from harness.protocols import SessionOptions\n"
            f"Kind().wants({subject.artifact.precision!r}, SessionOptions())\n"
            f"sys.exit({subject.framework!r} in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()

    def test_an_absent_device_is_refused(self, subject: Subject) -> None:
        options = msgspec.structs.replace(subject.options, device="cuda:999")
        with pytest.raises(BackendUnavailable):
            subject.make().prepare(subject.artifact, subject.inputs, options)

    def test_inference_repeats_exactly(self, subject: Subject) -> None:
        session = subject.prepare()
        first = infer(session)
        assert first
        assert all(isinstance(array, np.ndarray) for array in first.values())
        assert same(first, infer(session))
        session.close()

    def test_synchronize_may_be_repeated(self, subject: Subject) -> None:
        session = subject.prepare()
        first = infer(session)
        session.synchronize()
        assert same(first, session.outputs())
        session.close()

    def test_outputs_are_copies(self, subject: Subject) -> None:
        session = subject.prepare()
        kept = infer(session)
        expected = {name: array.copy() for name, array in kept.items()}
        session.bind(subject.other_inputs)
        infer(session)
        assert same(kept, expected)
        session.bind(subject.inputs)
        for array in kept.values():
            array.fill(0)
        assert same(infer(session), expected)
        session.close()

    def test_bind_changes_the_outputs(self, subject: Subject) -> None:
        session = subject.prepare()
        first = infer(session)
        session.bind(subject.other_inputs)
        assert not same(first, infer(session))
        session.bind(subject.inputs)
        assert same(first, infer(session))
        session.close()

    def test_bind_refuses_what_does_not_fit(self, subject: Subject) -> None:
        session = subject.prepare()
        first = infer(session)
        name, array = next(iter(subject.inputs.items()))
        other = "float64" if array.dtype != np.float64 else "float32"
        for unfit in (
            {**subject.inputs, "no_such_input": array},
            {key: value for key, value in subject.inputs.items() if key != name},
            {**subject.inputs, name: array[np.newaxis]},
            {**subject.inputs, name: array.astype(other)},
        ):
            with pytest.raises(DataError, match=r"input"):
                session.bind(unfit)
        assert same(first, infer(session))
        session.close()

    def test_sessions_run_at_once_without_mixing(self, subject: Subject) -> None:
        backend = subject.make()
        both = (subject.inputs, subject.other_inputs)
        expected = [infer(subject.prepare(inputs)) for inputs in both]
        sessions = [backend.prepare(subject.artifact, inputs, subject.options) for inputs in both]
        got = infer_at_once(sessions, 20)
        for outputs, alone in zip(got, expected, strict=True):
            assert all(same(one, alone) for one in outputs)
        for session in sessions:
            session.close()

    def test_description_is_plain_data(self, subject: Subject) -> None:
        session = subject.prepare()
        first = infer(session)
        description = session.describe()
        assert description.runtime
        assert decode(msgspec.json.encode(description), Description) == description
        if isinstance(description.operators, Unavailable):
            assert description.operators.reason
        else:
            counts = [n for by in description.operators.values() for n in by.values()]
            assert counts
            assert min(counts) > 0
        assert same(first, infer(session))
        session.close()

    def test_operators_are_those_that_it_describes(self, subject: Subject) -> None:
        session = subject.prepare()
        first = infer(session)
        if not isinstance(session, OperatorProfiled):
            pytest.skip("this session does not tell its operators")
        described = session.describe().operators
        found = session.profile_operators(6)
        assert same(first, infer(session))
        session.close()
        if isinstance(found, Unavailable):
            assert found.reason
            return
        assert decode(msgspec.json.encode(found), ProfiledInferences) == found
        assert found.profiler
        assert len({one.name for one in found.operators}) == len(found.operators)
        for one in found.operators:
            assert len(one.ms) == len(found.latency_ms) > 0
            assert one.calls > 0
            assert min(one.ms) >= 0
        if subject.options.device == "cpu" and not found.overlapping:
            sums = [sum(one.ms[i] for one in found.operators) for i in range(len(found.latency_ms))]
            assert all(a <= b for a, b in zip(sums, found.latency_ms, strict=True))
        if not isinstance(described, Unavailable):
            counted: dict[str, dict[str, int]] = {}
            for one in found.operators:
                kinds = counted.setdefault(one.type, {})
                kinds[one.precision] = kinds.get(one.precision, 0) + 1
            assert counted == described

    def test_close_is_idempotent_and_leaves_the_others(self, subject: Subject) -> None:
        backend = subject.make()
        gone, kept = (
            backend.prepare(subject.artifact, subject.inputs, subject.options) for _ in range(2)
        )
        infer(gone)
        gone.close()
        gone.close()
        assert infer(kept)
        kept.close()
        again = backend.prepare(subject.artifact, subject.inputs, subject.options)
        assert infer(again)
        again.close()
