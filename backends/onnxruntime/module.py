"""An ONNX model loaded with every setting stated, on whichever provider, and its errors mapped."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.backends.common import is_cuda
from harness.backends.onnxruntime.operators import Profile, read_profile
from harness.backends.onnxruntime.options import (
    CPU,
    CUDA,
    LEVELS,
    TENSORRT,
    engines_folder,
    providers,
    settings,
    wanted,
)
from harness.errors import (
    BackendUnavailable,
    HarnessError,
    MeasurementFailed,
    ModelError,
    one_line,
)
from harness.host.cuda_errors import cuda_failure
from harness.protocols import Artifact, SessionOptions

if TYPE_CHECKING:
    from harness.protocols import Arrays

_LIBRARIES = {CUDA: "cuda", TENSORRT: "tensorrt"}
_INSTALL = {
    CUDA: "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    TENSORRT: "it is built for TensorRT 10: "
    "pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt-cu13==10.*'",
}
# It makes int32 of the fp32 biases of a Q/DQ graph, for kernels that the CPU alone has: the CUDA
# provider has none that reads them, and TensorRT's parser refuses them.
_NOT_ON_A_DEVICE = ["WeightBiasQuantization"]


class Loaded:
    """One loaded model and how it was loaded; lives as long as a session holds it."""

    def __init__(
        self, artifact: Artifact, options: SessionOptions, gpu: str = "", stream: int | None = None
    ) -> None:
        """``gpu`` names the device for TensorRT's engines; ``stream`` is a CUDA stream to run on.

        Raises `BackendUnavailable` where the provider that was asked for does not come up.
        """
        import onnxruntime as ort

        ort.disable_telemetry_events()
        ort.set_default_logger_severity(4)  # errors come as exceptions; this leaves fatal ones
        self.path = artifact.path
        self.varying = artifact.varying
        self.options = options
        self.settings = settings(options)
        self.wanted = wanted(options)
        if not Path(self.path).is_file():
            raise ModelError(f"no such model file: {self.path}", "check the path")
        engines = Path()
        if self.wanted == TENSORRT:
            built_by = (ort.__version__, gpu, _tensorrt_packages(), options)
            engines = engines_folder(artifact.sha256, artifact.precision, *built_by)
            engines.mkdir(parents=True, exist_ok=True)
        self.providers = providers(options, artifact.precision, stream, engines)
        self.session = self.create(ort, self.session_options(ort))

    def session_options(self, ort: Any) -> Any:
        """Everything that steers speed is set here, so that no default is left unrecorded."""
        chosen = self.settings
        made = ort.SessionOptions()
        made.log_severity_level = 4
        made.intra_op_num_threads = self.options.threads
        made.inter_op_num_threads = self.options.inter_threads
        level = LEVELS[chosen["graph_optimization_level"]]
        made.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        mode = f"ORT_{chosen['execution_mode'].upper()}"
        made.execution_mode = getattr(ort.ExecutionMode, mode)
        made.enable_cpu_mem_arena = chosen["arena"] == "on"
        made.use_deterministic_compute = chosen["deterministic"] == "on"
        spinning = "1" if chosen["allow_spinning"] == "on" else "0"
        made.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        made.add_session_config_entry("session.inter_op.allow_spinning", spinning)
        for library in filter(None, chosen["custom_ops"].split(os.pathsep)):
            register_library(made, library)
        if is_cuda(self.options):
            made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return made

    def create(self, ort: Any, made: Any) -> Any:
        """A session of this model with the options ``made``. Raises a `HarnessError`."""
        try:
            session = ort.InferenceSession(
                self.path, made, providers=self.providers,
                # else a provider that fails is replaced by the CPU, with a word on stdout
                enable_fallback=0,
                disabled_optimizers=_NOT_ON_A_DEVICE if is_cuda(self.options) else None,
            )  # fmt: skip
        except Exception as error:
            if self.wanted == TENSORRT and "TensorRT libraries" in str(error):
                raise self._absent(ort, line(error)) from error
            unknown = "is not a registered function/op" in str(error)
            remedy = "give the library that has it: --option custom_ops=FILE.so" * unknown
            raise_mapped(error, f"onnxruntime cannot load {self.path}", ModelError, remedy)
        if self.wanted not in session.get_providers():
            raise self._absent(ort, "it was left out without a reason")
        return session

    def _absent(self, ort: Any, otherwise: str) -> BackendUnavailable:
        """The provider did not come up; mostly because a library of NVIDIA's is missing."""
        why = _missing_library(ort, self.wanted) or otherwise
        return BackendUnavailable(
            f"onnxruntime {ort.__version__} cannot use {self.wanted}: {why}", _INSTALL[self.wanted]
        )

    def on_cpu(self) -> list[str] | None:
        """The nodes that were given to the CPU provider; None where this version does not tell."""
        tell = getattr(self.session, "get_provider_graph_assignment_info", None)
        if tell is None:
            return None
        parts = [part for part in tell() if part.ep_name == CPU]
        return [f"{node.name} ({node.op_type})" for part in parts for node in part.get_nodes()]

    def profile(self, run: Callable[[Any], object]) -> Profile:
        """What ran: kernels by operator and precision, by provider, and those left to the CPU.

        ``run`` is given a second session with the same options and the runtime's profiler on, which
        writes down each kernel that executed with the types of its inputs.
        """
        import tempfile  # after the window: a start does without

        import onnxruntime as ort

        with tempfile.TemporaryDirectory(prefix="harness-ort-") as folder:
            made = self.session_options(ort)
            made.enable_profiling = True
            made.profile_file_prefix = str(Path(folder, "profile"))
            session = self.create(ort, made)
            run_mapped(lambda: run(session))
            return read_profile(Path(session.end_profiling()).read_bytes())


def load_libraries(ort: Any, provider: str) -> None:
    """Load what pip installed of NVIDIA's libraries, which no search path leads to."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()
    if provider == TENSORRT:
        for name in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
            for path in _tensorrt_libraries(name):
                with contextlib.suppress(OSError):  # another release's: creating a session tells
                    ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def cudnn_version() -> str:
    """Of the cuDNN in this process. From 1.28 on the provider comes up without one."""
    with contextlib.suppress(OSError):
        return str(ctypes.CDLL("libcudnn.so.9", os.RTLD_NOLOAD).cudnnGetVersion())
    return "not loaded: convolutions run in kernels of the provider's own, or fail"


def _tensorrt_libraries(pattern: str) -> list[Path]:
    import importlib.util

    spec = importlib.util.find_spec("tensorrt_libs")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(path for folder in folders for path in Path(folder).glob(pattern))


def _tensorrt_packages() -> dict[str, str]:
    """Installed distributions of TensorRT and their versions."""
    from importlib.metadata import distributions  # slow, and seldom needed

    named = ((found.name or "", found.version) for found in distributions())
    return {name: version for name, version in sorted(named) if name.startswith("tensorrt")}


def _missing_library(ort: Any, provider: str) -> str:
    """Which library the provider's own one lacks, as the loader says; empty if none."""
    path = (
        Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{_LIBRARIES[provider]}.so"
    )
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        name, _, why = str(error).partition(":")
        return f"{name} cannot be loaded" if "cannot open shared object" in why else ""
    return ""


def check_declared(declared: Any, inputs: Arrays) -> None:
    """The model's own inputs, by name, against what was handed over. Raises `ModelError`."""
    names = [argument.name for argument in declared]
    if sorted(names) != sorted(inputs):
        raise ModelError(
            f"the model takes the inputs {_list(names)} and was given {_list(inputs)}",
            "give every input once, under its own name",
        )
    for argument in declared:
        if argument.type == "tensor(string)" or not argument.type.startswith("tensor("):
            raise ModelError(
                f"input {argument.name!r} is a {argument.type}",
                "only models with numeric and boolean tensor inputs can be measured",
            )


def register_library(made: Any, library: str) -> None:
    """Have sessions of these options know a library's operators. Raises `ModelError`."""
    path = Path(library).absolute()
    if not path.is_file():
        raise ModelError(
            f"--option custom_ops names {library!r}, which is no file", "check the path"
        )
    try:
        made.register_custom_ops_library(str(path))
    except Exception as error:
        raise_mapped(error, f"onnxruntime cannot take the operators of {library}", ModelError)


def bindable(session: Any) -> dict[str, Any]:
    """The outputs by name, without optionals: one without a value ends the process when it is
    looked at. A graph may list an output twice; a binding holds it once. Raises `ModelError`."""
    found = {o.name: o for o in session.get_outputs() if not o.type.startswith("optional(")}
    if not found:
        raise ModelError(
            "every output of the model is optional, and ONNX Runtime binds none of these",
            "give the model an output that is a tensor",
        )
    return found


def optionals(session: Any) -> dict[str, str]:
    """What `bindable` leaves out, and what it is."""
    found = {o.name: o.type for o in session.get_outputs() if o.type.startswith("optional(")}
    return {name: f"an {kind}" for name, kind in found.items()}


def fits(declared: Any, value: Any) -> bool:
    """Whether an output that was allocated may be the buffer of the next inference: a tensor of the
    size that the model declares, which the runtime checks only of what it is given."""
    if not declared.type.startswith("tensor("):
        return False
    if declared.shape and len(declared.shape) != len(value.shape()):  # [] is any rank, too
        return False
    pairs = zip(declared.shape, value.shape(), strict=False)
    return all(size == now for size, now in pairs if isinstance(size, int) and size >= 0)


def _list(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"


def run_mapped(run: Callable[[], object]) -> None:
    try:
        run()
    except Exception as error:
        raise_mapped(error, "onnxruntime failed to run the model", MeasurementFailed)


def line(error: Exception) -> str:
    """The first lines of a runtime's message as one, without its numeric code prefix."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", str(error).strip())
    return one_line(text) or type(error).__name__


def raise_mapped(
    error: Exception, what: str, kind: type[HarnessError], remedy: str = ""
) -> NoReturn:
    text = line(error)
    if (known := cuda_failure(text, what)) is not None and "cuda" in text.lower():
        raise known from error
    if re.search(r"bad.?alloc|failed to allocate|out of memory", text, re.IGNORECASE):
        raise MeasurementFailed(
            f"{what}: out of memory: {text}", "use a smaller batch or model"
        ) from error
    raise kind(f"{what}: {text}", remedy) from error
