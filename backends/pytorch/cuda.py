"""PyTorch on a CUDA device: one stream a session, inputs at fixed addresses.

    compute    infer(inputs on the device), outputs stay there
    transfer   pinned host -> device | cast | infer | cast | device -> pinned host     one stream

    cuda_graph=on    three runs on the session's stream, then one captured; from then on ``infer``
                     is a replay. With ``transfer`` the copies stand outside of the graph.

``enqueue`` returns when the work is queued; ``synchronize`` waits for the session's own stream. Its
stream is made current at each ``enqueue``, since sessions take turns in one thread. TF32 is off
unless asked for, in matrix products and in convolutions (where PyTorch itself has it on).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.backends.common import cuda_index, refuse_closed
from harness.backends.device_events import EventTimer
from harness.backends.pytorch import module as pytorch_module
from harness.backends.pytorch.module import (
    Loaded,
    bound,
    check,
    line,
    mapped,
    plain,
    tensors_in,
    unseen_in,
)
from harness.backends.pytorch.operators import operators_of
from harness.backends.pytorch.options import settings
from harness.backends.session import SessionBase
from harness.errors import BackendUnavailable, MeasurementFailed, ModelError, UsageError
from harness.host.cuda_errors import cuda_failure
from harness.maybe import Maybe, Unavailable
from harness.protocols import Description, ProfiledInferences, SessionOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.protocols import Arrays

_CAPTURE_AFTER = 3  # runs, in which libraries choose their kernels and take their workspaces
# Below these compute capabilities PyTorch computes the type by way of another one, or not at all.
_NEEDS = {"bf16": (8, 0), "fp16": (5, 3), "int8": (7, 5)}


def set_up(precision: str, options: SessionOptions) -> None:
    """Make the device current, and set what is process-wide.

    Raises `BackendUnavailable` for a device that cannot be had, `UsageError` for a precision that
    it does not compute in.
    """
    import torch

    index = cuda_index(options)
    with mapped("PyTorch cannot use the device", BackendUnavailable):
        torch.cuda.set_device(index)
        torch.zeros(1, device=pytorch_module.place(options))  # one in exclusive use says so here
        capability = torch.cuda.get_device_capability(index)
    if capability < _NEEDS.get(precision, (0, 0)):
        name = torch.cuda.get_device_name(index)
        needs = ".".join(map(str, _NEEDS[precision]))
        raise UsageError(
            f"{name} has no {precision} arithmetic: that needs compute capability {needs}",
            "use --precision fp32",
        )
    set_tf32(settings(options)["tf32"] == "on")


def set_tf32(on: bool) -> None:
    """TF32 in fp32 matrix products, convolutions and recurrent layers, or nowhere.

    torch 2.13 keeps these settings twice, and parts of it (inductor's convolutions) read the older
    ones, which raise where the two differ. So both are set, the older ones first.
    """
    import torch

    torch.set_float32_matmul_precision("high" if on else "highest")
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32 = on
    for part in (cudnn, cudnn.conv, cudnn.rnn):
        part.fp32_precision = "tf32" if on else "ieee"


class CudaSession(SessionBase[Loaded]):
    """One stream over a shared module. After the first inference ``enqueue`` raises foreign
    exceptions, as on the CPU."""

    asynchronous = True

    def __init__(self, loaded: Loaded, inputs: Arrays) -> None:
        import torch

        check(loaded.artifact.inputs, inputs)
        self._loaded: Loaded | None = loaded
        self._results: list[Any] = [None]
        self._graph: Any = None
        with mapped("PyTorch cannot take the inputs", ModelError), torch.inference_mode():
            self._stream: Any = torch.cuda.Stream(device=loaded.device)
            self._feed = Feed(loaded, inputs)
            torch.cuda.synchronize(loaded.device)  # what was uploaded so far, on another stream
        self._timer: EventTimer[Any] = EventTimer(
            lambda: torch.cuda.Event(enable_timing=True),
            lambda event: event.record(self._stream),
            lambda start, end: float(start.elapsed_time(end)),
        )
        self._infer: Callable[[], Any] = lambda: loaded.call(*self._feed.bound)
        if loaded.settings["cuda_graph"] == "on":
            self._infer = self._captured(loaded)
        self._run = self._runner(loaded, self._infer)
        self.enqueue = self._first
        self.synchronize = self._stream.synchronize
        if loaded.settings["compile"] == "inductor":
            self._first()  # compiling is part of loading, as on the CPU

    def _captured(self, loaded: Loaded) -> Callable[[], Any]:
        """A replay of one inference. Raises `ModelError` where it cannot be captured."""
        import torch

        what = "PyTorch failed to run the model"
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            with mapped(what, MeasurementFailed):
                for _ in range(_CAPTURE_AFTER):
                    loaded.call(*self._feed.bound)
                self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(
                    self._graph, stream=self._stream, capture_error_mode="thread_local"
                ):
                    outputs = loaded.call(*self._feed.bound)
            except Exception as error:
                raise _uncapturable(error) from error
        replay = self._graph.replay

        def infer() -> Any:
            replay()
            return outputs

        return infer

    def _runner(self, loaded: Loaded, infer: Callable[[], Any]) -> Callable[[], None]:
        """An inference, with the copies around ``infer`` where they belong to it."""
        import torch

        guard = getattr(torch._C, "_InferenceMode", torch.inference_mode)
        set_stream, stream = torch.cuda.set_stream, self._stream
        results, feed = self._results, self._feed
        landing = Landing()

        def compute() -> None:
            set_stream(stream)
            with guard(True):
                results[0] = infer()

        def transfer() -> None:
            set_stream(stream)
            with guard(True):
                feed.upload()
                results[0] = landing.download(tensors_in(infer()))

        return transfer if loaded.options.boundary == "transfer" else compute

    def _first(self) -> None:
        with mapped("PyTorch failed to run the model", MeasurementFailed):
            self._run()
            self._stream.synchronize()  # what fails on the device is heard of here
        self.enqueue = self._run

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        import torch

        loaded = self._open()
        check(loaded.artifact.inputs, inputs)
        with torch.inference_mode():
            self._feed.replace(inputs)
        torch.cuda.synchronize(loaded.device)

    def outputs(self) -> dict[str, NDArray[Any]]:
        import numpy as np
        import torch

        loaded = self._open()
        self._stream.synchronize()
        with torch.inference_mode():
            tensors = [plain(tensor).cpu() for tensor in tensors_in(self._results[0])]
        arrays = [np.array(tensor.detach().numpy()) for tensor in tensors]
        return loaded.named(arrays)

    def unseen(self) -> dict[str, str]:
        return unseen_in(self._results[0])

    def arm(self, iterations: int) -> None:
        self._open()
        self._timer.arm(iterations)
        self._stream.synchronize()
        self.enqueue = self._timer.timed(self._run) if iterations else self._run

    def device_times_ms(self) -> NDArray[np.float64]:
        self._stream.synchronize()
        return self._timer.times_ms()

    def device_memory(self) -> Mapping[str, Maybe[int]]:
        """Of the whole process, as PyTorch's caching allocator has it: tensors, and what it holds
        to serve them."""
        import torch

        device = self._open().device
        return {
            "allocator_peak_bytes": int(torch.cuda.max_memory_allocated(device)),
            "allocator_reserved_peak_bytes": int(torch.cuda.max_memory_reserved(device)),
        }

    def reset_device_peak(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self._open().device)

    def describe(self) -> Description:
        """The operators are those of an inference without the graph, whose replay names none."""
        import torch

        loaded = self._open()
        operators: Maybe[dict[str, dict[str, int]]]
        try:
            operators = operators_of(self._plainly)
            self._stream.synchronize()
        except (RuntimeError, AttributeError, TypeError) as error:
            operators = Unavailable(f"a profiled inference failed: {line(error)}")
        return Description(_runtime_facts(loaded), operators, threads=torch.get_num_threads())

    def _plainly(self) -> None:
        """An inference without graph and copies."""
        import torch

        torch.cuda.set_stream(self._stream)
        with torch.inference_mode():
            self._open().call(*self._feed.bound)

    def profile_operators(self, inferences: int) -> Maybe[ProfiledInferences]:
        """Where the device's time goes: an operator's is that of the kernels it launched. Copies
        of inputs and outputs are in the remainder."""
        from harness.backends.pytorch.profile import as_model, profile_operators

        loaded = self._open()
        if loaded.settings["cuda_graph"] == "on":
            return Unavailable(
                "a CUDA graph is replayed as one: no operator is called",
                "leave out --option cuda_graph=on",
            )
        compiled = loaded.settings["compile"] == "inductor"
        run = self._runner(loaded, as_model(self._infer))
        try:
            return profile_operators(
                run, loaded.module, inferences,
                wait=self.synchronize, compiled=compiled, model=self._plainly,
            )  # fmt: skip
        except Exception as error:  # torch's, and whatever the model's own code raises
            return Unavailable(f"the profiled inferences failed: {line(error)}")

    def close(self) -> None:
        if self._loaded is None:
            return
        import torch

        self._loaded = None
        self.enqueue = self.synchronize = self._run = refuse_closed
        self._infer = refuse_closed
        self._results.clear()
        with contextlib.suppress(RuntimeError):  # after a failed kernel CUDA answers nothing more
            self._stream.synchronize()
            if self._graph is not None:
                self._graph.reset()
            self._timer.arm(0)
            self._feed.close()
            torch.cuda.empty_cache()


class Feed:
    """A session's inputs: ``bound`` as the module takes them, at addresses that never change."""

    def __init__(self, loaded: Loaded, inputs: Arrays) -> None:
        self._loaded = loaded
        self._transfer = loaded.options.boundary == "transfer"
        made = self._on_host(inputs)
        self._hosts = [tensor.pin_memory() for tensor in made] if self._transfer else []
        # as they arrive; the casts to the module's types and layouts happen on the device
        self._arrived = [tensor.to(loaded.device) for tensor in made]
        self.bound = [loaded.tensor(tensor) for tensor in self._arrived]

    def _on_host(self, inputs: Arrays) -> list[Any]:
        specs = self._loaded.artifact.inputs
        return [bound(spec, inputs[spec.name]) for spec in specs]

    def replace(self, inputs: Arrays) -> None:
        """Copy others in: into pinned memory where each inference uploads them, else upload."""
        made = self._on_host(inputs)
        for to, tensor in zip(self._hosts or self._arrived, made, strict=True):
            to.copy_(tensor)
        if not self._hosts:
            self._cast()

    def upload(self) -> None:
        """Queue the copies from pinned memory, and the casts behind them."""
        for to, host in zip(self._arrived, self._hosts, strict=True):
            to.copy_(host, non_blocking=True)
        self._cast()

    def _cast(self) -> None:
        for taken, arrived in zip(self.bound, self._arrived, strict=True):
            if taken is not arrived:
                taken.copy_(arrived)

    def close(self) -> None:
        for tensors in (self.bound, self._arrived, self._hosts):
            tensors.clear()


class Landing:
    """Pinned host memory that outputs are copied to, made when their shapes are first seen."""

    def __init__(self) -> None:
        self._hosts: list[Any] = []

    def download(self, tensors: Sequence[Any]) -> list[Any]:
        """Queue the copies; what is returned holds the outputs once the stream has been waited
        for."""
        ready = [plain(tensor) for tensor in tensors]
        if [tensor.shape for tensor in ready] != [host.shape for host in self._hosts]:
            self._hosts = [self._make(tensor) for tensor in ready]
        for host, tensor in zip(self._hosts, ready, strict=True):
            host.copy_(tensor, non_blocking=True)
        return self._hosts

    @staticmethod
    def _make(tensor: Any) -> Any:
        import torch

        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


def _uncapturable(error: Exception) -> Exception:
    """The first error counts: leaving a failed capture raises another one."""
    first = error.__context__ if isinstance(error.__context__, Exception) else error
    what = "--option cuda_graph=on: this model cannot be captured"
    known = cuda_failure(line(first), what)
    return known or ModelError(
        f"{what}: {line(first)}",
        "leave the option out: the model waits for the device, or its shapes depend on the data",
    )


def _runtime_facts(loaded: Loaded) -> dict[str, str]:
    import torch

    chosen = loaded.settings
    cudnn: Any = torch.backends.cudnn
    matmul, conv = torch.backends.cuda.matmul, cudnn.conv
    facts = {
        "version": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "device": torch.cuda.get_device_name(loaded.device),
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(loaded.device))),
        "stream": "one of its own a session",
        "compile": chosen["compile"],
        "cuda_graph": chosen["cuda_graph"],
        "channels_last": "on" if loaded.channels_last else "off",
        "tf32": f"matrix products {_tf32(matmul)}, convolutions {_tf32(conv)}",
        "cudnn_benchmark": "on" if cudnn.benchmark else "off",
        "allocator": str(torch.cuda.get_allocator_backend()),
        "dtype": str(loaded.dtype or "as the model").removeprefix("torch."),
        "boundary": loaded.options.boundary,
    }
    if loaded.artifact.format == "torch-int8-linear":
        facts["int8"] = "linear layers, by torchao; the rest in the model's own type"
        if chosen["compile"] == "off":  # it prints tensors to itself, to see whether they are real
            facts["int8"] += "; eager torchao waits for the device in every layer: compile=inductor"
    if chosen["compile"] == "inductor":
        facts["fused_kernels"] = "run as Triton kernels of inductor's own, not among the operators"
    return facts


def _tf32(part: Any) -> str:
    return "on" if part.fp32_precision == "tf32" else "off"
