"""PyTorch on the CPU: eager, compiled by inductor, or a quantized program.

    artifact "torch"       its source rebuilds the module; cast, laid out and compiled as asked
    artifact "torch-int8"  the program with integer kernels that `harness.quantize.torch` saved

``enqueue`` computes in the calling thread, so ``synchronize`` finds nothing to wait for. With
``boundary=transfer`` the casts and layout changes between the caller's arrays and what the module
takes and gives are part of ``enqueue``; with ``compute`` they happen in ``bind`` and ``outputs``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from harness.backends.common import import_framework, nothing
from harness.backends.pytorch_operators import operators_of
from harness.backends.pytorch_options import runnable, settings
from harness.errors import (
    BackendUnavailable,
    DataError,
    HarnessError,
    MeasurementFailed,
    ModelError,
    UsageError,
)
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact, Available, Description, SessionOptions, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

_PIP = "pip install 'hw-harness[torch]'"
_PIP_CUDA = "install a CUDA build of PyTorch (https://pytorch.org/get-started)"

# TorchScript rewrites a program during its first calls, with operators that later ones do not run.
_SETTLING_RUNS = 3


class PyTorchBackend:
    """Sessions of one backend object share the loaded module, each with tensors of its own."""

    name = "pytorch"

    def __init__(self) -> None:
        self._loaded: weakref.WeakValueDictionary[bytes, _Loaded] = weakref.WeakValueDictionary()

    def availability(self, device: str) -> Available | Unavailable:
        torch: Any = import_framework("torch", "PyTorch", _PIP)
        if isinstance(torch, Unavailable):
            return torch
        if device == "cpu":
            capability = torch.backends.cpu.get_cpu_capability()
            return Available({"version": str(torch.__version__), "cpu_capability": capability})
        if not device.startswith("cuda"):
            return Unavailable(f"pytorch has no device {device!r}", "use --device cpu")
        if not torch.backends.cuda.is_built():
            return Unavailable(f"PyTorch {torch.__version__} is built without CUDA", _PIP_CUDA)
        return Unavailable(f"pytorch on {device} is not supported yet", "use --device cpu")

    def artifact_format(self, precision: str, options: SessionOptions) -> str:
        chosen = settings(options)
        precisions = runnable(options.device)
        if precision not in precisions:
            raise UsageError(
                f"pytorch has no {precision} arithmetic on this {options.device}",
                f"use --precision {' or '.join(precisions)}",
            )
        if precision != "int8":
            return "torch"
        if chosen["compile"] != "off":
            raise UsageError(
                "--option compile=inductor with --precision int8",
                "leave it out: the int8 program is a graph with its kernels already chosen",
            )
        return "torch-int8"

    def prepare(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions
    ) -> PyTorchSession:
        available = self.availability(options.device)
        if isinstance(available, Unavailable):
            raise BackendUnavailable(available.reason, available.remedy)
        if artifact.format not in ("torch", "torch-int8"):
            raise ModelError(f"pytorch runs torch artifacts, not {artifact.format!r}")
        _set_threads(options)
        _claim_inductor_cache()
        key = msgspec.json.encode((artifact, options))
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = _Loaded(artifact, options)
        return PyTorchSession(loaded, inputs)


def _set_threads(options: SessionOptions) -> None:
    import torch

    torch.set_num_threads(options.threads)
    if torch.get_num_interop_threads() != options.inter_threads:
        # refused once that pool has started: `describe` tells the number in force
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(options.inter_threads)


class _Loaded:
    """A module ready to be called, and what it wants of its inputs."""

    def __init__(self, artifact: Artifact, options: SessionOptions) -> None:
        import torch

        self.artifact = artifact
        self.options = options
        self.settings = settings(options)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(artifact.precision)
        if self.settings["compile"] == "inductor":
            _prepare_inductor()
        with _mapped("PyTorch cannot load the model", ModelError):
            self.module = self._load(artifact)
            self.channels_last = self._wants_channels_last()
            if self.channels_last and artifact.format == "torch":
                self.module = self.module.to(memory_format=torch.channels_last)
        self.call = self._callable()

    def _load(self, artifact: Artifact) -> Any:
        if artifact.format == "torch-int8":
            from harness.quantize.torch import load

            return load(Path(artifact.path))
        from harness.models.torch_source import load_module

        module: Any = load_module(artifact.source, artifact.seed).requires_grad_(False)
        return module if self.dtype is None else module.to(self.dtype)

    def _wants_channels_last(self) -> bool:
        """Convolutions over 4-D inputs: there the kernels' own layout saves reordering.

        Against the contiguous layout, eager, two threads, batch 1 and 8 (ratio of medians):
        ResNet-18 0.94 and 0.89 in fp32, 0.76 and 0.73 in bf16, 0.98 and 0.97 in int8;
        MobileNetV2 0.84 and 0.74, 0.77 and 0.73, 0.98 and 0.94.
        """
        if self.settings["channels_last"] != "auto":
            return self.settings["channels_last"] == "on"
        if not any(len(spec.shape) == 4 for spec in self.artifact.inputs):
            return False
        if self.artifact.format == "torch-int8":
            return True
        return any(weight.dim() == 4 for weight in self.module.parameters())

    def _callable(self) -> Callable[..., Any]:
        import torch

        if self.settings["compile"] == "inductor":
            compiled: Callable[..., Any] = torch.compile(self.module, dynamic=False)
            return compiled
        # a TorchScript method spares the frames of the hooks that it cannot have
        int8 = self.artifact.format == "torch-int8"
        module: Callable[..., Any] = self.module.forward if int8 else self.module
        return module

    def tensor(self, array: Any) -> Any:
        """A tensor as the module takes it: its float type, its layout."""
        import numpy as np
        import torch

        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))
        dtype = self.dtype if tensor.is_floating_point() else None
        channels_last = self.channels_last and tensor.dim() == 4
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return tensor.to(dtype=dtype or tensor.dtype, memory_format=layout)

    def outputs(self, result: Any) -> dict[str, Any]:
        """Tensors on the host, in the order in which they lie in ``result``, named."""
        import torch
        from torch.utils import _pytree as pytree

        tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        names = [spec.name for spec in self.artifact.outputs]
        if len(names) != len(tensors):
            names = [f"output_{index}" for index in range(len(tensors))]
        return {name: _host(tensor) for name, tensor in zip(names, tensors, strict=True)}


def _host(tensor: Any) -> Any:
    """Dense and contiguous, in a type that numpy knows."""
    import torch

    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.to_dense().contiguous() if tensor.layout != torch.strided else tensor.contiguous()


def _prepare_inductor() -> None:
    """Compile in this very process, without a pool of others beside it.

    Raises `BackendUnavailable` where there is no compiler to call.
    """
    if not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name
    ):
        raise BackendUnavailable(
            "compile=inductor needs a C++ compiler and there is none",
            "install g++, or leave the option out",
        )
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def _claim_inductor_cache() -> None:
    """Keep what inductor compiles among the project's caches, not in the system's temporary folder.

    It settles on a folder and creates it as soon as torch.export is imported, compiling or not.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("HARNESS_CACHE") or Path(base, "harness"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root.absolute() / "inductor")


class PyTorchSession:
    """One stream: its own input tensors over a shared module.

    After the first inference ``enqueue`` raises foreign exceptions: mapping them would cost a
    Python frame inside the timed interval.
    """

    enqueue: Callable[[], None]
    synchronize: Callable[[], None]

    def __init__(self, loaded: _Loaded, inputs: Arrays) -> None:
        self._loaded: _Loaded | None = loaded
        self._specs = loaded.artifact.inputs
        _check(self._specs, inputs)
        self._results: list[Any] = [None]
        with _mapped("PyTorch cannot take the inputs", ModelError), _inference_mode():
            self._bound = self._tensors(inputs)
            self._run = _runner(loaded, self._bound, self._results)
        self.enqueue = self._first
        self.synchronize = nothing
        if loaded.settings["compile"] == "inductor":
            self._compile()

    def _tensors(self, inputs: Arrays) -> list[Any]:
        import numpy as np
        import torch

        loaded = self._open()
        made = [torch.from_numpy(np.array(inputs[spec.name])) for spec in self._specs]
        transfer = loaded.options.boundary == "transfer"
        return made if transfer else [loaded.tensor(tensor) for tensor in made]

    def _compile(self) -> None:
        from torch._inductor import config

        # Freezing packs weights for oneDNN; as an option of torch.compile it has no effect (torch
        # 2.13). Precompiled headers go to the system's temporary folder, whatever the cache's is.
        with config.patch(freezing=True, cpp_cache_precompile_headers=False):
            self._first()

    def _first(self) -> None:
        with _mapped("PyTorch failed to run the model", MeasurementFailed):
            self._run()
        self.enqueue = self._run

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        self._open()
        _check(self._specs, inputs)
        with _inference_mode():
            for bound, fresh in zip(self._bound, self._tensors(inputs), strict=True):
                bound.copy_(fresh)

    def outputs(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        loaded = self._open()
        named = loaded.outputs(self._results[0])
        return {name: np.array(tensor.detach().numpy()) for name, tensor in named.items()}

    def describe(self) -> Description:
        loaded = self._open()
        operators: Maybe[dict[str, dict[str, int]]]
        kept = self._results[0]
        try:
            for _ in range(_SETTLING_RUNS):
                self._run()
            operators = operators_of(self._run)
        except (RuntimeError, AttributeError, TypeError) as error:
            operators = Unavailable(f"a profiled inference failed: {_line(error)}")
        self._results[0] = kept
        return Description(_runtime_facts(loaded), operators)

    def close(self) -> None:
        if self._loaded is None:
            return
        self._loaded = None
        self.enqueue = self.synchronize = self._run = _refuse
        self._bound.clear()
        self._results.clear()

    def _open(self) -> _Loaded:
        if self._loaded is None:
            _refuse()
        return self._loaded


def _inference_mode() -> Any:
    import torch

    return torch.inference_mode()


def _runner(loaded: _Loaded, bound: Sequence[Any], results: list[Any]) -> Callable[[], None]:
    """The timed call. Inference mode belongs to a thread, and threads come and go: so every call
    enters it, through the guard itself, which costs half of what its Python wrapper does."""
    import torch

    guard = getattr(torch._C, "_InferenceMode", torch.inference_mode)
    module = loaded.call

    def compute() -> None:
        with guard(True):
            results[0] = module(*bound)

    def transfer() -> None:
        with guard(True):
            results[0] = loaded.outputs(module(*map(loaded.tensor, bound)))

    return transfer if loaded.options.boundary == "transfer" else compute


def _runtime_facts(loaded: _Loaded) -> dict[str, str]:
    import torch

    chosen = loaded.settings
    facts = {
        "version": str(torch.__version__),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": "on" if torch.backends.mkldnn.is_available() else "off",
        "openmp": "on" if torch.backends.openmp.is_available() else "off",
        "threads": str(torch.get_num_threads()),
        "interop_threads": str(torch.get_num_interop_threads()),
        "compile": chosen["compile"],
        "channels_last": "on" if loaded.channels_last else "off",
        "dtype": str(loaded.dtype or "as the model").removeprefix("torch."),
        "boundary": loaded.options.boundary,
    }
    if loaded.artifact.format == "torch-int8":
        facts["quantized_engine"] = torch.backends.quantized.engine
    if chosen["compile"] == "inductor":
        facts["fused_kernels"] = "run as C++ of inductor's own, not among the operators"
    return facts


def _check(specs: Sequence[TensorSpec], inputs: Arrays) -> None:
    names = [spec.name for spec in specs]
    if sorted(names) != sorted(inputs):
        raise DataError(
            f"the inputs are {', '.join(map(repr, inputs))}, the model takes "
            f"{', '.join(map(repr, names))}",
            "give every input once, under its own name",
        )
    for spec in specs:
        array = inputs[spec.name]
        if (array.dtype.name, tuple(array.shape)) != (spec.dtype, spec.shape):
            raise DataError(
                f"input {spec.name!r} is {array.dtype} {array.shape}, the session has "
                f"{spec.dtype} {spec.shape}",
                "prepare another session for another type or shape",
            )


def _refuse() -> NoReturn:
    raise MeasurementFailed("this session is closed", "prepare another one")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


@contextlib.contextmanager
def _mapped(what: str, kind: type[HarnessError]) -> Any:
    """Foreign exceptions of one step as ``kind``; ours pass."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        text = _line(error)
        if isinstance(error, MemoryError) or re.search("can't allocate|out of memory", text):
            raise MeasurementFailed(
                f"{what}: out of memory: {text}", "use a smaller batch or model"
            ) from error
        raise kind(f"{what}: {text}") from error
