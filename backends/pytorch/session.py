"""A module of PyTorch on the CPU: inputs bound once, outputs as they come."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.backends.common import (
    nothing,
    refuse_closed,
)
from harness.backends.pytorch.module import (
    Loaded,
    bound,
    check,
    line,
    mapped,
    set_threads,
    unseen_in,
)
from harness.backends.pytorch.operators import operators_of
from harness.backends.session import SessionBase
from harness.errors import MeasurementFailed, ModelError
from harness.maybe import Maybe, Unavailable
from harness.protocols import (
    Description,
    ProfiledInferences,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

# TorchScript rewrites a program during its first calls, with operators that later ones do not run.
_SETTLING_RUNS = 3


class PyTorchSession(SessionBase[Loaded]):
    """One stream: its own input tensors over a shared module.

    After the first inference ``enqueue`` raises foreign exceptions: mapping them would cost a
    Python frame inside the timed interval.
    """

    def __init__(self, loaded: Loaded, inputs: Arrays) -> None:
        self._loaded: Loaded | None = loaded
        self._specs = loaded.artifact.inputs
        check(self._specs, inputs)
        self._results: list[Any] = [None]
        self._pristine: list[Any] | None = None  # the inputs of a model that works in place
        self._guard = _inference_guard()
        with mapped("PyTorch cannot take the inputs", ModelError):
            self._take(inputs)
        self.enqueue = self._first
        self.synchronize = nothing
        if loaded.settings["compile"] == "inductor":
            self._compile()

    def _tensors(self, inputs: Arrays) -> list[Any]:
        loaded = self._open()
        made = [bound(spec, inputs[spec.name]) for spec in self._specs]
        transfer = loaded.options.boundary == "transfer"
        return made if transfer else [loaded.tensor(tensor) for tensor in made]

    def _compile(self) -> None:
        from torch._inductor import config

        # Freezing packs weights for oneDNN; as an option of torch.compile it has no effect (torch
        # 2.13). Precompiled headers go to the system's temporary folder, whatever the cache's is.
        with config.patch(freezing=True, cpp_cache_precompile_headers=False):
            self._first()

    def _take(self, inputs: Arrays) -> None:
        loaded = self._open()
        with self._guard(True):
            self._bound = self._tensors(inputs)
        self._run = _runner(loaded, self._bound, self._results, self._guard)

    def _first(self) -> None:
        """The first inference, which shows what a model does beside computing its outputs."""
        loaded = self._open()
        pristine = [tensor.clone() for tensor in self._bound]
        with mapped("PyTorch failed to run the model", MeasurementFailed):
            try:
                self._run()
            except RuntimeError as error:
                if re.search("require grad|[Ii]nference tensor", str(error)):
                    self._admit_gradients(pristine)
                elif loaded.may_be_contiguous() and re.search("view size is not comp", str(error)):
                    pristine = self._lay_out_contiguously(pristine)
                else:
                    raise
            set_threads(loaded.options)
            if any(not _equal(a, b) for a, b in zip(pristine, self._bound, strict=True)):
                self._renew_inputs(pristine)
        self.enqueue = self._run

    def _admit_gradients(self, pristine: list[Any]) -> None:
        """For a forward that differentiates, which inference mode does not let it."""
        self._guard = _no_gradients
        # tensors made in inference mode stay so; their copies elsewhere do not
        self._bound = [tensor.clone() for tensor in pristine]
        self._run = _runner(self._open(), self._bound, self._results, self._guard)
        self._run()

    def _lay_out_contiguously(self, pristine: list[Any]) -> list[Any]:
        """For a forward that calls ``view`` on what a convolution gives: the inputs as they are."""
        loaded = self._open()
        loaded.be_contiguous()
        with self._guard(True):
            pristine = [tensor.contiguous() for tensor in pristine]
            self._bound = [tensor.clone() for tensor in pristine]
        self._run = _runner(loaded, self._bound, self._results, self._guard)
        self._run()
        return pristine

    def _renew_inputs(self, pristine: list[Any]) -> None:
        """For a forward that changes its inputs: each inference is to have the same ones."""
        self._pristine = pristine
        bound, run, guard = self._bound, self._run, self._guard

        def renewed() -> None:
            with guard(True):
                for tensor, given in zip(bound, pristine, strict=True):
                    tensor.copy_(given)
            run()

        self._run = renewed
        renewed()

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        self._open()
        check(self._specs, inputs)
        with self._guard(True):
            targets = self._bound if self._pristine is None else self._pristine
            for target, fresh in zip(targets, self._tensors(inputs), strict=True):
                target.copy_(fresh)

    def outputs(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        loaded = self._open()
        named = loaded.outputs(self._results[0])
        return {name: np.array(tensor.detach().numpy()) for name, tensor in named.items()}

    def unseen(self) -> dict[str, str]:
        return unseen_in(self._results[0])

    def describe(self) -> Description:
        import torch

        loaded = self._open()
        operators: Maybe[dict[str, dict[str, int]]]
        kept = self._results[0]
        try:
            for _ in range(_SETTLING_RUNS):
                self._run()
            operators = operators_of(self._run)
        except (RuntimeError, AttributeError, TypeError) as error:
            operators = Unavailable(f"a profiled inference failed: {line(error)}")
        self._results[0] = kept
        habits = self._habits()
        return Description(
            {**_runtime_facts(loaded), **habits},
            operators,
            threads=torch.get_num_threads(),
            inputs=habits.get("inputs", ""),
        )

    def profile_operators(self, inferences: int) -> Maybe[ProfiledInferences]:
        """Where the time goes, by torch's profiler around the timed call itself."""
        from harness.backends.pytorch.profile import profile_operators

        loaded = self._open()
        kept = self._results[0]
        compiled = loaded.settings["compile"] == "inductor"
        try:
            return profile_operators(self._run, loaded.module, inferences, compiled=compiled)
        except Exception as error:  # torch's, and whatever the model's own code raises
            return Unavailable(f"the profiled inferences failed: {line(error)}")
        finally:
            self._results[0] = kept

    def _habits(self) -> dict[str, str]:
        """What the model does that a reader of its figures has to know."""
        import torch

        asked, found = self._open().options.threads, torch.get_num_threads()
        habits = {}
        if found != asked:
            habits["threads"] = f"{found}: the model sets them as it runs; asked for {asked}"
        if self._pristine is not None:
            habits["inputs"] = "changed in place by the model; copied anew inside each timed run"
        if self._guard is _no_gradients:
            habits["gradients"] = "the model differentiates: run without inference mode"
        return habits

    def close(self) -> None:
        if self._loaded is None:
            return
        self._loaded = None
        self.enqueue = self.synchronize = self._run = refuse_closed
        self._bound.clear()
        self._results.clear()


def _inference_guard() -> Any:
    """Inference mode belongs to a thread, and threads come and go: so every call enters it, through
    the guard itself, which costs half of what its Python wrapper does."""
    import torch

    return getattr(torch._C, "_InferenceMode", torch.inference_mode)


def _no_gradients(_: bool) -> Any:
    import torch

    return torch.no_grad()


def _equal(before: Any, after: Any) -> bool:
    import torch

    if torch.equal(before, after):
        return True
    nan = before.isnan() & after.isnan()
    same: bool = torch.equal(before.masked_fill(nan, 0), after.masked_fill(nan, 0))
    return same


def _runner(
    loaded: Loaded, bound: Sequence[Any], results: list[Any], guard: Any
) -> Callable[[], None]:
    """The timed call."""
    module = loaded.call

    def compute() -> None:
        with guard(True):
            results[0] = module(*bound)

    def transfer() -> None:
        with guard(True):
            results[0] = loaded.outputs(module(*map(loaded.tensor, bound)))

    return transfer if loaded.options.boundary == "transfer" else compute


def _runtime_facts(loaded: Loaded) -> dict[str, str]:
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
        "channels_last": loaded.layout(),
        "dtype": str(loaded.dtype or "as the model").removeprefix("torch."),
        "boundary": loaded.options.boundary,
    }
    if loaded.artifact.format == "torch-int8":
        facts["quantized_engine"] = torch.backends.quantized.engine
    if chosen["compile"] == "inductor":
        facts["fused_kernels"] = "run as C++ of inductor's own, not among the operators"
    return facts
