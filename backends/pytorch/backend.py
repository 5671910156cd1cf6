"""PyTorch, eager, compiled by inductor, or quantized; here on the CPU.

    artifact "torch"              its source rebuilds the module; cast, laid out, compiled as asked
    artifact "torch-int8"         CPU: the integer program that `harness.quantize.torch` saved
    artifact "torch-int8-linear"  CUDA: like "torch", its linear layers as `torch_linear` planned

On a CUDA device `harness.backends.pytorch.cuda` takes over. On the CPU ``enqueue`` computes in the
calling thread, so ``synchronize`` finds nothing to wait for. With ``boundary=transfer`` the casts
and layout changes between the caller's arrays and what the module takes and gives are part of
``enqueue``; with ``compute`` they happen in ``bind`` and ``outputs``. Where there are none, as in
fp32, the two boundaries are the same on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.backends.common import (
    cuda_version,
    find_cuda,
    import_framework,
    is_cuda,
    unavailable,
)
from harness.backends.pytorch.module import (
    Loaded,
    claim_inductor_cache,
    set_threads,
)
from harness.backends.pytorch.options import OPTIONS, runnable, settings
from harness.backends.pytorch.session import PyTorchSession
from harness.backends.session import Shared
from harness.errors import ModelError, UsageError
from harness.maybe import Unavailable
from harness.protocols import (
    Artifact,
    Available,
    IdleLoad,
    RoofLoad,
    SessionOptions,
    Wanted,
)

if TYPE_CHECKING:
    from harness.backends.pytorch.cuda import CudaSession
    from harness.protocols import Arrays

_PIP = "pip install 'hw-harness[torch]'"
_PIP_CUDA = "pip uninstall torch && pip install torch (a CUDA build: pytorch.org/get-started)"


class PyTorchBackend:
    """Sessions of one backend object share the loaded module, each with tensors of its own."""

    name = "pytorch"
    options = OPTIONS
    distributions = ("torch", "torchao")

    def __init__(self) -> None:
        self._shared: Shared[Loaded] = Shared()

    def availability(self, device: str) -> Available | Unavailable:
        if device == "cpu":
            torch: Any = import_framework("torch", "PyTorch", _PIP)
            if isinstance(torch, Unavailable):
                return torch
            capability = torch.backends.cpu.get_cpu_capability()
            return Available({"version": str(torch.__version__), "cpu_capability": capability})
        return _cuda_availability(device)

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        chosen = settings(options)
        precisions = runnable(options.device)
        if precision not in precisions:
            raise UsageError(
                f"pytorch has no {precision} arithmetic on this {options.device}",
                f"use --precision {' or '.join(precisions)}",
            )
        if precision != "int8":
            return Wanted("torch")
        if is_cuda(options):
            return Wanted("torch-int8-linear")
        if chosen["compile"] != "off":
            raise UsageError(
                "--option compile=inductor with --precision int8",
                "leave it out: the int8 program is a graph with its kernels already chosen",
            )
        return Wanted("torch-int8")

    def prepare(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions
    ) -> PyTorchSession | CudaSession:
        available = self.availability(options.device)
        if isinstance(available, Unavailable):
            raise unavailable(available)
        mine = ("torch", "torch-int8-linear" if is_cuda(options) else "torch-int8")
        if artifact.format not in mine:
            raise ModelError(f"pytorch runs torch artifacts, not {artifact.format!r}")
        set_threads(options)
        claim_inductor_cache()
        if not is_cuda(options):
            loaded = self._load(artifact, options)
            set_threads(options)  # a model's own code may have set others
            return PyTorchSession(loaded, inputs)
        from harness.backends.pytorch.cuda import CudaSession, set_up

        set_up(artifact.precision, options)
        return CudaSession(self._load(artifact, options), inputs)

    def roof_loads(self, precision: str, options: SessionOptions) -> Sequence[RoofLoad]:
        from harness.backends.pytorch.module import place
        from harness.backends.pytorch.roofs import roof_loads

        return roof_loads(place(options), precision, options)

    def idle_load(self, options: SessionOptions) -> IdleLoad:
        from harness.backends.pytorch.module import place
        from harness.backends.pytorch.roofs import idle_load

        return idle_load(place(options))

    def _load(self, artifact: Artifact, options: SessionOptions) -> Loaded:
        return self._shared.get((artifact, options), lambda: Loaded(artifact, options))


def _cuda_availability(device: str) -> Available | Unavailable:
    """The device before the framework: without one there is nothing to import seconds for."""
    found = find_cuda("pytorch", device)
    if isinstance(found, Unavailable):
        return found
    torch: Any = import_framework("torch", "PyTorch", _PIP)
    if isinstance(torch, Unavailable):
        return torch
    if not torch.backends.cuda.is_built() or torch.version.cuda is None:
        return Unavailable(f"PyTorch {torch.__version__} is built without CUDA", _PIP_CUDA)
    found = find_cuda("pytorch", device, cuda_version(torch.version.cuda))
    if isinstance(found, Unavailable):
        return found
    return Available(
        {
            "version": str(torch.__version__),
            "cuda": torch.version.cuda,
            "device": found.name,
            "compute_capability": found.compute_capability,
        }
    )
