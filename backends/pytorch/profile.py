"""Where the time of an inference goes, by torch's own profiler, operator by operator.

    pass 1   every operator that the dispatcher calls, with its tensors and the module it is in
    pass 2   the profiler's times and types, many inferences; outermost operators as in `operators`

The two are joined in order: where they tell the same sequence of operators, each has both. On a
CUDA device an operator's time is that of the kernels that it launched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.backends.pytorch.operators import OPERATOR, precision_of
from harness.protocols import OperatorTimes, ProfiledInferences, TensorSpec

_MARK = "harness inference"
_MODEL = "harness model"  # where an inference is more than that: copies to the device and back
_MOST_EVENTS = 100_000
_LEAST = 5


class Call(NamedTuple):
    """One operator as the dispatcher called it."""

    name: str
    module: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Event(NamedTuple):
    """What the profiler tells of an operator; times in ns."""

    name: str
    types: Sequence[str]
    start: int
    end: int
    device_ns: int = 0


def profile_operators(
    run: Callable[[], None],
    module: Any,
    inferences: int,
    *,
    wait: Callable[[], None] | None = None,
    compiled: bool = False,
    model: Callable[[], object] | None = None,
) -> ProfiledInferences:
    """``wait`` lets a device finish: with it, an operator's time is the device's. ``model``: the
    part of ``run`` that calls the module, `as_model`, where that is not all of it.

    Raises what torch raises.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # its library writes its progress on stderr
    calls = None if compiled else calls_of(model or run, module)
    events = _traced(run, 1, wait)[0]
    per_inference = max(1, sum(map(len, events)) * 5)  # those nested in others count too
    count = max(_LEAST, min(inferences, _MOST_EVENTS // per_inference))
    events, latency_ms = _traced(run, count, wait)
    return join(events, latency_ms, calls, on_device=wait is not None, compiled=compiled)


def _traced(
    run: Callable[[], None], count: int, wait: Callable[[], None] | None
) -> tuple[list[list[Event]], list[float]]:
    """Outermost operators of each of ``count`` inferences, and what their caller waited in ms."""
    from torch.profiler import ProfilerActivity, profile, record_function

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if wait else [])]
    latency_ms = []
    with profile(activities=activities, record_shapes=True) as trace:
        for _ in range(count):
            with record_function(_MARK):
                began = time.perf_counter_ns()
                run()
                if wait is not None:
                    wait()
                latency_ms.append((time.perf_counter_ns() - began) / 1e6)
    results: Any = trace.profiler
    return by_inference(results.kineto_results.events()), latency_ms


def as_model(infer: Callable[[], Any]) -> Callable[[], Any]:
    """``infer``, marked as the part whose operators are told."""
    from torch.profiler import record_function

    def marked() -> Any:
        with record_function(_MODEL):
            return infer()

    return marked


def by_inference(events: Iterable[Any]) -> list[list[Event]]:
    """The outermost operators inside each marked inference, in the marking thread; only those of
    its model where that is marked too."""
    on_host, kernels = [], []
    for event in events:
        where = kernels if str(event.device_type()).endswith("CUDA") else on_host
        where.append(event)
    launched: dict[int, int] = {}
    for kernel in kernels:
        link = kernel.linked_correlation_id()
        launched[link] = launched.get(link, 0) + kernel.duration_ns()
    inferences: list[list[Event]] = []
    thread, until, outer_end = None, 0, 0
    for event in sorted(on_host, key=lambda e: (e.start_ns(), -e.duration_ns())):
        start, end = event.start_ns(), event.start_ns() + event.duration_ns()
        if event.name() == _MARK:
            thread, until, outer_end = event.start_thread_id(), end, 0
            inferences.append([])
            continue
        if event.name() == _MODEL and start < until:
            until, outer_end = end, 0
            inferences[-1].clear()
            continue
        if event.start_thread_id() != thread or start >= until:
            continue
        device_ns = launched.get(event.correlation_id(), 0) if launched else 0
        if start < outer_end:  # nested: its kernels belong to the outermost
            if device_ns:
                last = inferences[-1][-1]
                inferences[-1][-1] = last._replace(device_ns=last.device_ns + device_ns)
        elif OPERATOR.fullmatch(event.name()) is not None:
            outer_end = end
            inferences[-1].append(Event(event.name(), event.dtypes(), start, end, device_ns))
    return inferences


def join(
    events: Sequence[Sequence[Event]],
    latency_ms: Sequence[float],
    calls: Sequence[Call] | None,
    *,
    on_device: bool = False,
    compiled: bool = False,
) -> ProfiledInferences:
    """One row an operator, in order; where inferences differ from one another, one row a type."""
    names = [event.name for event in events[-1]] if events else []
    notes = []
    if any([event.name for event in one] != names for one in events):
        notes.append("inferences differ in their operators: one row for each type of them")
        rows = _by_type(events, on_device)
    else:
        if calls is not None and [call.name for call in calls] != names:
            calls = None
            notes.append("the profiler and the dispatcher tell other operators: no shapes")
        columns = list(zip(*events, strict=True))
        rows = [
            _row(i, column, None if calls is None else calls[i], on_device)
            for i, column in enumerate(columns)
        ]
        rows = _named(rows)
    if compiled:
        notes.append("what inductor compiled is no operator: its time is in the remainder")
    return ProfiledInferences(
        profiler=f"torch.profiler, {'kernels on the device' if on_device else 'nanoseconds'}",
        operators=tuple(rows),
        latency_ms=tuple(latency_ms),
        notes=tuple(notes),
    )


def _ms(event: Event, on_device: bool) -> float:
    return (event.device_ns if on_device else event.end - event.start) / 1e6


def _row(index: int, column: Sequence[Event], call: Call | None, on_device: bool) -> OperatorTimes:
    first = column[0]
    return OperatorTimes(
        name=call.module if call is not None and call.module else first.name,
        type=first.name,
        precision=precision_of(first.name, first.types),
        ms=tuple(_ms(event, on_device) for event in column),
        inputs=() if call is None else call.inputs,
        outputs=() if call is None else call.outputs,
        fused=() if call is not None else None,
    )


def _named(rows: Sequence[OperatorTimes]) -> list[OperatorTimes]:
    """Several operators of one module are told apart by type, several of one type by number."""
    import msgspec

    shared = _counts(row.name for row in rows)
    named = [
        row
        if shared[row.name] == 1 or row.name == row.type
        else msgspec.structs.replace(row, name=f"{row.name} {row.type.partition('::')[2]}")
        for row in rows
    ]
    shared, taken = _counts(row.name for row in named), dict[str, int]()
    for index, row in enumerate(named):
        if shared[row.name] > 1:
            number = taken[row.name] = taken.get(row.name, 0) + 1
            named[index] = msgspec.structs.replace(row, name=f"{row.name} #{number}")
    return named


def _counts(names: Iterable[str]) -> Mapping[str, int]:
    from collections import Counter

    return Counter(names)


def _by_type(events: Sequence[Sequence[Event]], on_device: bool) -> list[OperatorTimes]:
    found: dict[tuple[str, str], list[float]] = {}
    calls: dict[tuple[str, str], int] = {}
    for index, one in enumerate(events):
        for event in one:
            key = event.name, precision_of(event.name, event.types)
            found.setdefault(key, [0.0] * len(events))[index] += _ms(event, on_device)
            calls[key] = calls.get(key, 0) + 1
    return [
        OperatorTimes(
            name=f"{name} ({precision})", type=name, precision=precision, ms=tuple(ms),
            calls=calls[name, precision] / len(events),
        )
        for (name, precision), ms in found.items()
    ]  # fmt: skip


# -- what the dispatcher calls --------------------------------------------------------------------


def calls_of(run: Callable[[], object], module: Any) -> list[Call] | None:
    """Every operator of one ``run``, in order. None where a model cannot be looked at so."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: list[Call] = []
    place: list[str] = []

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            inputs = _specs((args, kwargs or {}))  # before it works in place
            result = func(*args, **(kwargs or {}))
            found.append(
                Call(func._schema.name, place[-1] if place else "", inputs, _specs(result))
            )
            return result

    names = {id(part): name for name, part in _modules(module)}
    hooks = torch.nn.modules.module
    before = hooks.register_module_forward_pre_hook(
        lambda part, _: place.append(names.get(id(part), place[-1] if place else ""))
    )
    after = hooks.register_module_forward_hook(lambda part, _, __: _leave(place))
    try:
        with Looking():
            run()
    except Exception:  # torch's own, or what the model makes of tensors that are looked at
        return None
    finally:
        before.remove()
        after.remove()
    return found


def _leave(place: list[str]) -> None:
    place.pop()


def _modules(module: Any) -> Iterable[tuple[str, Any]]:
    return module.named_modules() if hasattr(module, "named_modules") else ()


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    """Of all tensors in ``values``; packed weights are unpacked."""
    import torch
    from torch.utils._pytree import tree_leaves

    found = []
    for leaf in tree_leaves(values):
        parts = leaf.unpack() if hasattr(leaf, "unpack") else (leaf,)
        for part in parts if isinstance(parts, (tuple, list)) else (parts,):
            if isinstance(part, torch.Tensor):
                dtype = str(part.dtype).removeprefix("torch.").replace("quint8", "uint8")
                dtype = dtype.replace("qint", "int")
                found.append(TensorSpec("", dtype, tuple(part.shape)))
    return tuple(found)
