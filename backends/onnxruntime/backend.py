"""ONNX Runtime on the CPU.

Inputs and outputs are bound, so that a timed call neither allocates nor copies at the border:

    prepare ── inputs copied into buffers of the runtime's own allocator, outputs bound unallocated
    1st enqueue ── the runtime allocates the outputs and leaves them in the binding
    every other enqueue ── the same buffers again, through the runtime's own method and nothing else
                           (what cannot stay bound is unbound first: an output whose length is drawn
                           anew, or is not the one declared; a sequence, which would go on growing)
    bind ── inputs copied over, outputs unbound, since other data may have outputs of other shapes
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.backends.common import (
    cuda_version,
    find_cuda,
    import_framework,
    is_cuda,
    nothing,
    refuse_closed,
    unavailable,
)
from harness.backends.onnxruntime.module import (
    Loaded,
    bindable,
    check_declared,
    fits,
    line,
    optionals,
    raise_mapped,
    run_mapped,
)
from harness.backends.onnxruntime.options import CUDA, OPTIONS
from harness.backends.onnxruntime.options import artifact as wanted_artifact
from harness.backends.session import SessionBase, Shared, check_same, types_of
from harness.errors import HarnessError, ModelError
from harness.maybe import Maybe, Unavailable
from harness.protocols import (
    Artifact,
    Available,
    Description,
    IdleLoad,
    ProfiledInferences,
    RoofLoad,
    SessionOptions,
    Wanted,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.backends.onnxruntime.cuda import CudaSession
    from harness.protocols import Arrays

_PIP = "pip install 'hw-harness[onnxruntime]'"
_PIP_GPU = "pip uninstall onnxruntime && pip install 'hw-harness[onnxruntime-gpu]'"


class OnnxRuntimeBackend:
    """Sessions of one backend object share the loaded model, each with buffers of its own."""

    name = "onnxruntime"
    options = OPTIONS
    distributions = ("onnxruntime", "onnxruntime-gpu")

    def __init__(self) -> None:
        self._shared: Shared[Loaded] = Shared()

    def availability(self, device: str) -> Available | Unavailable:
        if device != "cpu":
            return _cuda_availability(device)
        ort: Any = import_framework("onnxruntime", "onnxruntime", _PIP)
        if isinstance(ort, Unavailable):
            return ort
        providers = ort.get_available_providers()
        return Available({"version": ort.__version__, "providers": ", ".join(providers)})

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        return wanted_artifact(precision, options)

    def prepare(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions
    ) -> OnnxRuntimeSession | CudaSession:
        available = self.availability(options.device)
        if isinstance(available, Unavailable):
            raise unavailable(available)
        if artifact.format != "onnx":
            raise ModelError(f"onnxruntime runs onnx files, not {artifact.format!r}")
        if is_cuda(options):
            from harness.backends.onnxruntime.cuda import CudaSession

            return CudaSession(artifact, inputs, options, available.details["device"])
        made_of = (artifact.path, artifact.sha256, options)
        loaded = self._shared.get(made_of, lambda: Loaded(artifact, options))
        return OnnxRuntimeSession(loaded, inputs)

    def roof_loads(self, precision: str, options: SessionOptions) -> Sequence[RoofLoad]:
        from harness.backends.onnxruntime.roofs import roof_loads

        return roof_loads(OnnxRuntimeBackend, precision, options)

    def idle_load(self, options: SessionOptions) -> IdleLoad:
        from harness.backends.onnxruntime.roofs import idle_load

        return idle_load(OnnxRuntimeBackend, options)


def _cuda_availability(device: str) -> Available | Unavailable:
    """The device before the runtime: without one there is nothing to import."""
    found = find_cuda("onnxruntime", device)
    if isinstance(found, Unavailable):
        return found
    ort: Any = import_framework("onnxruntime", "onnxruntime-gpu", _PIP_GPU)
    if isinstance(ort, Unavailable):
        return ort
    providers = ort.get_available_providers()
    if CUDA not in providers:
        return Unavailable(f"onnxruntime {ort.__version__} is built without CUDA", _PIP_GPU)
    found = find_cuda("onnxruntime", device, cuda_version(getattr(ort, "cuda_version", "")))
    if isinstance(found, Unavailable):
        return found
    return Available(
        {
            "version": ort.__version__,
            "providers": ", ".join(providers),
            "device": found.name,
            "compute_capability": found.compute_capability,
        }
    )


class _Binding:
    """Input buffers of the runtime's own allocator (aligned alike in every run), bound once."""

    def __init__(self, session: Any, inputs: Mapping[str, Any]) -> None:
        import numpy as np
        import onnxruntime as ort

        self.native = session.io_binding()
        self.declared = bindable(session)
        self.values: dict[str, Any] = {}
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(
                array.shape, array.dtype.type, "cpu", 0
            )
            value.update_inplace(np.asarray(array, order="C"))
            self.native.bind_ortvalue_input(name, value)
            self.values[name] = value
        self.release_outputs()
        # The public method, as a user's own loop would call it: what it costs is part of the call.
        self.run = partial(session.run_with_iobinding, self.native)

    def release_outputs(self) -> None:
        """Have the next run allocate the outputs; the runs after it reuse them."""
        for name in self.declared:
            self.native.bind_output(name, "cpu")

    def outputs(self) -> dict[str, Any]:
        """The last inference's, by name."""
        return dict(zip(self.declared, self.native.get_outputs(), strict=True))

    def anew(self, varying: Collection[str]) -> Callable[[], None]:
        """`run`, with the outputs that cannot stay bound allocated anew, as a caller would have it.

        To be asked for after an inference.
        """
        unfit = [
            partial(self.native.bind_output, name, "cpu")
            for name, value in self.outputs().items()
            if name in varying or not fits(self.declared[name], value)
        ]
        if not unfit:
            return self.run
        run = self.run

        def run_anew() -> None:
            for release in unfit:
                release()
            run()

        return run_anew


class OnnxRuntimeSession(SessionBase[Loaded]):
    """One stream: its own buffers over a shared `onnxruntime.InferenceSession`.

    After the first inference ``enqueue`` is the runtime's own method. It raises foreign
    exceptions then: mapping them would cost a Python frame inside the timed interval.
    """

    def __init__(self, loaded: Loaded, inputs: Arrays) -> None:
        self._loaded: Loaded | None = loaded
        self._shapes = types_of(inputs)
        check_declared(loaded.session.get_inputs(), inputs)
        try:
            self._binding = _Binding(loaded.session, inputs)
        except HarnessError:
            raise
        except Exception as error:
            raise_mapped(error, "onnxruntime cannot bind the inputs", ModelError)
        self.enqueue = self._first
        self.synchronize = nothing

    def _first(self) -> None:
        run_mapped(self._binding.run)
        self.enqueue = self._binding.anew(self._open().varying)

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        import numpy as np

        self._open()
        check_same(self._shapes, inputs)
        for name, array in inputs.items():
            self._binding.values[name].update_inplace(np.asarray(array, order="C"))
        self._binding.release_outputs()

    def outputs(self) -> dict[str, NDArray[Any]]:
        from harness.backends.onnxruntime_values import read

        self._open()
        found = {name: read(value) for name, value in self._binding.outputs().items()}
        return {name: array for name, array in found.items() if array is not None}

    def unseen(self) -> dict[str, str]:
        from harness.backends.onnxruntime_values import read, unseen

        loaded, values = self._open(), self._binding.outputs()
        found = {n: unseen(v.data_type()) for n, v in values.items() if read(v) is None}
        return {**found, **optionals(loaded.session)}

    def describe(self) -> Description:
        loaded = self._open()
        inputs = {name: value.numpy() for name, value in self._binding.values.items()}
        runtime = _runtime_facts(loaded)
        if self.enqueue is not self._binding.run:
            runtime["binding"] += "; outputs whose size changes are allocated anew"
        operators: Maybe[dict[str, dict[str, int]]]
        try:
            ran = loaded.profile(lambda session: _Binding(session, inputs).run())
            operators, runtime["nodes_by_provider"] = ran.operators, ran.nodes_by_provider
        except (HarnessError, OSError, ValueError, KeyError) as error:
            operators = Unavailable(f"a profiled inference failed: {line(error)}")
        threads = int(runtime["intra_op_threads"])
        return Description(runtime, operators, threads=threads)

    def profile_operators(self, inferences: int) -> Maybe[ProfiledInferences]:
        """Where the time goes, by the runtime's profiler in a session of its own."""
        from harness.backends.onnxruntime.profile import profile_operators

        inputs = {name: value.numpy() for name, value in self._binding.values.items()}
        loaded = self._open()

        def bind(session: Any) -> Callable[[], None]:
            binding = _Binding(session, inputs)
            binding.run()
            return binding.anew(loaded.varying)

        try:
            return profile_operators(loaded, bind, inputs, inferences)
        except Exception as error:  # the runtime's own among them
            return Unavailable(f"the profiled inferences failed: {line(error)}")

    def close(self) -> None:
        if self._loaded is None:
            return
        self._loaded = None
        self.enqueue = self.synchronize = refuse_closed
        del self._binding


def _runtime_facts(loaded: Loaded) -> dict[str, str]:
    import onnxruntime as ort

    session = loaded.session
    read = session.get_session_options()
    spinning = read.get_session_config_entry("session.intra_op.allow_spinning")
    return {
        "version": ort.__version__,
        "build": ort.get_build_info().removeprefix("ORT Build Info: "),
        "providers": ", ".join(session.get_providers()),
        "intra_op_threads": str(read.intra_op_num_threads),
        "inter_op_threads": str(read.inter_op_num_threads),
        "graph_optimization_level": read.graph_optimization_level.name,
        "execution_mode": read.execution_mode.name,
        "allow_spinning": "on" if spinning == "1" else "off",
        "arena": "on" if read.enable_cpu_mem_arena else "off",
        "memory_pattern": "on" if read.enable_mem_pattern else "off",
        "deterministic": "on" if read.use_deterministic_compute else "off",
        "binding": "inputs and outputs bound to preallocated host memory",
        "boundary": f"{loaded.options.boundary}; on a CPU both are the same",
    }
