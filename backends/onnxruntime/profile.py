"""Where the time of an inference goes, by ONNX Runtime's own profiler.

The profiler belongs to a session, so a second one is loaded with the same options. It notes each
kernel's time in whole microseconds, rounded down, and the optimised graph that this very session
saves tells what each kernel came from (`harness.backends.onnxruntime.origins`).
"""

from __future__ import annotations

import json
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.onnxruntime.operators import kernel_precision
from harness.backends.onnxruntime.origins import Origins, label
from harness.protocols import OperatorTimes, ProfiledInferences, TensorSpec

if TYPE_CHECKING:
    from harness.backends.onnxruntime.module import Loaded

    Key = tuple[str, str]  # name and index: a body of a loop may have a node of the same name

_MOST_EVENTS = 100_000  # of half a kilobyte each
_LEAST, _WARM_UP = 5, 3
_SUFFIX = "_kernel_time"
_INLINE_BYTES = 1024
_NUMPY = {
    "float": "float32", "double": "float64", "float16": "float16", "bfloat16": "bfloat16",
    "bool": "bool", "string": "str",
    **{f"{u}int{bits}": f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def profile_operators(
    loaded: Loaded, bind: Callable[[Any], Callable[[], None]], inputs: Any, inferences: int
) -> ProfiledInferences:
    """``bind`` makes the call of another session. Raises what the runtime raises, `OSError`,
    `ValueError` or `KeyError`."""
    with tempfile.TemporaryDirectory(prefix="harness-ort-") as folder:
        session, optimized = _load(loaded, Path(folder))
        run = bind(session)
        nodes = len(optimized.node) if optimized is not None else 1000
        count = max(_LEAST, min(inferences, _MOST_EVENTS // max(1, nodes)))
        latency_ms = [_timed_ms(run) for _ in range(_WARM_UP + count)][_WARM_UP:]
        events = json.loads(Path(session.end_profiling()).read_bytes())
    origins = None if optimized is None else Origins(Path(loaded.path), optimized, inputs)
    return read_events(
        events,
        latency_ms,
        [] if optimized is None else list(optimized.node),
        {} if optimized is None else {t.name: tuple(t.dims) for t in optimized.initializer},
        origins,
        overlapping=loaded.settings["execution_mode"] == "parallel",
    )


def _timed_ms(run: Callable[[], None]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e6


def _load(loaded: Loaded, folder: Path) -> tuple[Any, Any]:
    """A profiling session, and the graph that it runs; None where it cannot save that."""
    import onnxruntime as ort

    def create(optimized: Path | None) -> Any:
        made = loaded.session_options(ort)
        made.enable_profiling = True
        made.profile_file_prefix = str(folder / "profile")
        if optimized is not None:
            made.optimized_model_filepath = str(optimized)
            entry = "session.optimized_model_external_initializers_"
            made.add_session_config_entry(f"{entry}file_name", f"{optimized.name}.data")
            least = f"{entry}min_size_in_bytes"
            made.add_session_config_entry(least, str(_INLINE_BYTES))
        return loaded.create(ort, made)

    try:
        import onnx

        path = folder / "optimized.onnx"
        session = create(path)
        return session, onnx.load(str(path), load_external_data=False).graph
    except Exception:  # the runtime cannot save what it compiled, or onnx is not there
        return create(None), None


def read_events(
    events: Sequence[Mapping[str, Any]],
    latency_ms: Sequence[float],
    nodes: Sequence[Any],
    constants: Mapping[str, tuple[int, ...]],
    origins: Origins | None,
    *,
    overlapping: bool = False,
) -> ProfiledInferences:
    """Of the last ``len(latency_ms)`` inferences that ``events`` tells, kernel by kernel.

    Raises `ValueError` or `KeyError` for a profile of another make.
    """
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run")
    runs = runs[-len(latency_ms) :]
    if len(runs) < len(latency_ms):
        raise ValueError(f"the profile tells {len(runs)} inferences of {len(latency_ms)}")
    times: dict[Key, list[float]] = {}
    calls: dict[Key, int] = {}
    seen: dict[Key, Mapping[str, Any]] = {}
    starts = [start for start, _ in runs]
    for event in sorted(_kernels(events), key=lambda e: e["ts"]):
        index = bisect_right(starts, event["ts"]) - 1
        if index < 0 or event["ts"] > runs[index][1]:
            continue
        key = str(event["name"]).removesuffix(_SUFFIX), str(event["args"]["node_index"])
        times.setdefault(key, [0.0] * len(runs))[index] += event["dur"] / 1e3
        calls[key] = calls.get(key, 0) + 1
        seen.setdefault(key, event["args"])
    found = _nodes(seen, nodes)
    rows = [
        _row(key, seen[key], times[key], calls[key] / len(runs), found.get(key), constants, origins)
        for key in times
    ]
    return ProfiledInferences(
        profiler="ONNX Runtime's profiler, in a session of its own; whole microseconds",
        operators=tuple(_unique(rows)),
        latency_ms=tuple(latency_ms),
        resolution_ms=1e-3,
        overlapping=overlapping,
        notes=tuple(_notes(rows, origins)),
    )


def _kernels(events: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for event in events:
        named = str(event.get("name", "")).endswith(_SUFFIX)
        if named and event.get("cat") == "Node" and "op_name" in event.get("args", {}):
            yield event


def _row(
    key: Key,
    args: Mapping[str, Any],
    ms: Sequence[float],
    calls: float,
    node: Any,
    constants: Mapping[str, tuple[int, ...]],
    origins: Origins | None,
) -> OperatorTimes:
    given, made = (args[f"{side}_type_shape"] for side in ("input", "output"))
    came = origins.of(node) if origins is not None and node is not None else None
    types = [[kind for entry in side for kind in entry] for side in (given, made)]
    return OperatorTimes(
        name=key[0] or f"{args['op_name']} {key[1]}",
        type=str(args["op_name"]),
        precision=kernel_precision(args["op_name"], types[0], types[1]),
        ms=tuple(ms),
        calls=calls,
        inputs=_handed(_tensors(given), node, constants),
        outputs=_tensors(made),
        fused=None if came is None else tuple(sorted(label(one) for one in came)),
        steps=() if came is None or origins is None else tuple(origins.step(n) for n in came),
    )


def _nodes(seen: Mapping[Key, Mapping[str, Any]], nodes: Sequence[Any]) -> dict[Key, Any]:
    """The node of the optimised graph that each kernel is: it is saved in the order of execution.

    Where bodies of loops and branches come in between, by names, as far as these are unique.
    """
    kinds = [args["op_name"] for args in seen.values()]
    if kinds == [node.op_type for node in nodes]:
        return dict(zip(seen, nodes, strict=True))
    named: dict[str, list[Any]] = {}
    for node in nodes:
        named.setdefault(node.name, []).append(node)
    return {
        key: same[0]
        for key, args in seen.items()
        if len(same := named.get(key[0], [])) == 1 and same[0].op_type == args["op_name"]
    }


def _tensors(entries: Sequence[Mapping[str, Sequence[int]]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec("", _NUMPY.get(kind, kind), tuple(shape))
        for entry in entries
        for kind, shape in entry.items()
    )


def _handed(
    told: tuple[TensorSpec, ...], node: Any, constants: Mapping[str, tuple[int, ...]]
) -> tuple[TensorSpec, ...]:
    """The tensors that a kernel was handed, with those that it had packed away when it was loaded.

    A packed constant is missing from what the profiler tells; its shape is in the graph, and its
    type is that of the kernel's first tensor of as many bytes.
    """
    names = [name for name in node.input if name] if node is not None else []
    if len(names) <= len(told):
        return told
    left, found = list(told), []
    lacking = len(names) - len(told)
    for name in names:
        shape = constants.get(name)
        if lacking and shape is not None and (not left or left[0].shape != shape):
            dtype = told[0].dtype if told else "float32"
            found.append(TensorSpec(name, dtype, shape))
            lacking -= 1
        elif left:
            found.append(left.pop(0))
    return tuple(found)


def _unique(rows: Sequence[OperatorTimes]) -> Iterator[OperatorTimes]:
    """Under names that tell them apart."""
    import msgspec

    taken: dict[str, int] = {}
    for row in rows:
        taken[row.name] = taken.get(row.name, 0) + 1
        again = taken[row.name]
        yield row if again == 1 else msgspec.structs.replace(row, name=f"{row.name} #{again}")


def _notes(rows: Sequence[OperatorTimes], origins: Origins | None) -> Iterator[str]:
    if origins is None:
        yield "the runtime could not save the graph that it runs: what it fused cannot be told"
        return
    added = [row.name for row in rows if row.fused is None]
    if added:
        yield f"of {len(added)} operators no node of the model is known: the runtime added them"
    lost = origins.traceless({name for row in rows for name in row.fused or ()})
    if lost:
        yield f"nodes of the model in no operator, computed at load time or left out: {lost}"
