"""A torch module made ready to be called, on the CPU or a CUDA device, and its errors mapped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artifacts.torch_errors import cause
from harness.backends.common import cuda_index, is_cuda
from harness.backends.pytorch.options import settings
from harness.errors import (
    BackendUnavailable,
    DataError,
    HarnessError,
    MeasurementFailed,
    ModelError,
)
from harness.host.cache_root import default_root
from harness.host.cuda_errors import cuda_failure
from harness.protocols import Artifact, SessionOptions, TensorSpec

if TYPE_CHECKING:
    from harness.protocols import Arrays


class Loaded:
    """A module ready to be called, and what it wants of its inputs."""

    def __init__(self, artifact: Artifact, options: SessionOptions) -> None:
        import torch

        self.artifact = artifact
        self.options = options
        self.settings = settings(options)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(artifact.precision)
        self.on_cuda = is_cuda(options)
        self.device = place(options)
        if self.settings["compile"] == "inductor":
            prepare_inductor(self.on_cuda)
        with mapped("PyTorch cannot load the model", ModelError):
            self.module = self._load(artifact)
            self.channels_last = self._wants_channels_last()
            if self.channels_last and artifact.format == "torch":
                self.module = self.module.to(memory_format=torch.channels_last)
        self.call = self._callable()
        self._refused_layout = False

    def _load(self, artifact: Artifact) -> Any:
        if artifact.format == "torch-int8":
            from harness.artifacts.torch_int8 import load

            return load(Path(artifact.path))
        from harness.artifacts.torch_source import load_module

        module: Any = load_module(artifact.source, artifact.seed, str(self.device))
        for parameter in module.parameters():  # TorchScript modules have no requires_grad_
            parameter.requires_grad_(False)
        module = module.to(device=self.device, dtype=self.dtype)
        if artifact.format == "torch-int8-linear":
            from harness.artifacts.torch_linear import apply

            apply(module, Path(artifact.path))
        return module

    def _wants_channels_last(self) -> bool:
        """Convolutions over 4-D inputs on a CPU: its kernels' own layout saves reordering.

        Against the contiguous layout, eager, two threads, batch 1 and 8 (ratio of medians):
        ResNet-18 0.94 and 0.89 in fp32, 0.76 and 0.73 in bf16, 0.98 and 0.97 in int8;
        MobileNetV2 0.84 and 0.74, 0.77 and 0.73, 0.98 and 0.94. On a GPU ``auto`` is off, as it is
        in PyTorch itself.
        """
        if self.settings["channels_last"] != "auto":
            return self.settings["channels_last"] == "on"
        if self.on_cuda or not any(len(spec.shape) == 4 for spec in self.artifact.inputs):
            return False
        if self.artifact.format == "torch-int8":
            return True
        return any(weight.dim() == 4 for weight in self.module.parameters())

    def may_be_contiguous(self) -> bool:
        """Whether the layout was ours to choose."""
        return self.settings["channels_last"] == "auto" and not self.on_cuda

    def be_contiguous(self) -> None:
        """In the layout that every module can work on, whatever ``auto`` had chosen."""
        import torch

        if self.channels_last:
            self.channels_last, self._refused_layout = False, True
            if self.artifact.format == "torch":
                self.module = self.module.to(memory_format=torch.contiguous_format)
                self.call = self._callable()

    def layout(self) -> str:
        if self._refused_layout:
            return "off: the model takes a view that needs the contiguous layout"
        return "on" if self.channels_last else "off"

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
        """The tensors in ``result``, in their order, named and as numpy takes them."""
        return self.named([plain(tensor) for tensor in tensors_in(result)])

    def named(self, tensors: Sequence[Any]) -> dict[str, Any]:
        names = [spec.name for spec in self.artifact.outputs]
        if len(names) != len(tensors):
            names = [f"output_{index}" for index in range(len(tensors))]
        return dict(zip(names, tensors, strict=True))


def place(options: SessionOptions) -> Any:
    """The device as torch names it."""
    import torch

    return torch.device("cuda", cuda_index(options)) if is_cuda(options) else torch.device("cpu")


def bound(spec: TensorSpec, array: Any) -> Any:
    """A tensor of the input's own type, with a memory of its own."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(array)).to(getattr(torch, spec.dtype))


def tensors_in(result: Any) -> list[Any]:
    """Every tensor in a nest of outputs."""
    from harness.artifacts import torch_values

    return list(torch_values.tensors_in(result))


def unseen_in(result: Any) -> dict[str, str]:
    """What a nest of outputs holds beside tensors and None, by its place."""
    import torch

    from harness.artifacts.torch_values import leaves

    return {
        f"output_{index}": f"a {type(leaf).__name__}"
        for index, leaf in enumerate(leaves(result))
        if leaf is not None and not isinstance(leaf, torch.Tensor)
    }


def plain(tensor: Any) -> Any:
    """Dense and contiguous, in a type that numpy knows, on its own device."""
    import torch

    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype == torch.complex32:
        tensor = tensor.to(torch.complex64)
    elif tensor.is_floating_point() and tensor.element_size() < 4 and tensor.dtype != torch.float16:
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().contiguous()


def prepare_inductor(on_cuda: bool) -> None:
    """Compile in this very process, without a pool of others beside it.

    Raises `BackendUnavailable` where there is no compiler to call.
    """
    if on_cuda and importlib.util.find_spec("triton") is None:
        raise BackendUnavailable(
            "compile=inductor on a GPU needs Triton, which is not installed",
            "pip install triton, or leave the option out",
        )
    if not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name
    ):
        raise BackendUnavailable(
            "compile=inductor needs a C++ compiler and there is none",
            "install g++, or leave the option out",
        )
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def claim_inductor_cache() -> None:
    """Keep what inductor compiles among the project's caches, not in the system's temporary folder.

    It settles on a folder and creates it as soon as torch.export is imported, compiling or not.
    Raises `UsageError` where there is no place for caches.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(default_root() / "inductor")


def check(specs: Sequence[TensorSpec], inputs: Arrays) -> None:
    names = [spec.name for spec in specs]
    if sorted(names) != sorted(inputs):
        raise DataError(
            f"the inputs are {', '.join(map(repr, inputs))}, the model takes "
            f"{', '.join(map(repr, names))}",
            "give every input once, under its own name",
        )
    for spec in specs:
        array = inputs[spec.name]
        if (array.dtype.name, tuple(array.shape)) != (spec.array_dtype, spec.shape):
            raise DataError(
                f"input {spec.name!r} is {array.dtype} {array.shape}, the session has "
                f"{spec.array_dtype} {spec.shape}",
                "prepare another session for another type or shape",
            )


def line(error: BaseException) -> str:
    return cause(error) or type(error).__name__


@contextlib.contextmanager
def mapped(what: str, kind: type[HarnessError]) -> Iterator[None]:
    """Foreign exceptions of one step as ``kind``; ours pass."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        text = line(error)
        if (known := cuda_failure(text, what)) is not None and _of_cuda(text):
            raise known from error
        if isinstance(error, MemoryError) or re.search("can't allocate|out of memory", text):
            raise MeasurementFailed(
                f"{what}: out of memory: {text}", "use a smaller batch or model"
            ) from error
        raise kind(f"{what}: {text}") from error


def _of_cuda(text: str) -> bool:
    """A host that is out of memory says so in words of its own."""
    return re.search("cuda|cublas|cudnn|device", text, re.IGNORECASE) is not None


def set_threads(options: SessionOptions) -> None:
    import torch

    torch.set_num_threads(options.threads)
    if torch.get_num_interop_threads() != options.inter_threads:
        # refused once that pool has started: `describe` tells the number in force
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(options.inter_threads)
