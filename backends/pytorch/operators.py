"""Which PyTorch operators ran, and in which precision, from torch's own profiler.

The profiler writes down every operator that the dispatcher called and the types of its arguments.
Operators call others (``aten::linear`` calls ``aten::addmm``); the outermost of each nest counts:

    quantized::conv2d_relu ─────────────────────   counted
        aten::contiguous ──    aten::q_scale ─     its own business
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

# every inference is recorded once as `operator name, argument types, thread, start ns, end ns`
Call = tuple[str, list[str], int, int, int]

OPERATOR = re.compile(r"[a-z_]\w*::\w+")
_CONVERSIONS = {
    "aten::dequantize",
    "aten::quantize_per_channel",
    "aten::quantize_per_tensor",
    "aten::quantize_per_tensor_dynamic",
    "aten::to",
    "aten::_to_copy",
}
# argument types as the profiler spells them
_PRECISIONS = {
    "float": "fp32",
    "double": "fp64",
    "c10::Half": "fp16",
    "c10::BFloat16": "bf16",
    "c10::quint8": "int8",
    "c10::qint8": "int8",
    "signed char": "int8",
    "unsigned char": "int8",
}
_OTHERS = {"long int": "int64", "int": "int32", "short int": "int16", "bool": "bool"}


def operators_of(run: Callable[[], object]) -> dict[str, dict[str, int]]:
    """Operator -> precision -> number of calls in one ``run``."""
    # its library writes its own progress on stderr
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from torch.profiler import ProfilerActivity, profile

    # acc_events: there is one cycle, and without it some versions warn of what a second would lose
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as trace:
        run()
    # the public event list has the names, but not the argument types
    profiler: Any = trace.profiler
    events = profiler.kineto_results.events()
    return count_operators(
        (e.name(), e.dtypes(), e.start_thread_id(), e.start_ns(), e.start_ns() + e.duration_ns())
        for e in events
    )


def count_operators(calls: Iterable[Call]) -> dict[str, dict[str, int]]:
    """Operator -> precision -> number of outermost calls."""
    counted: dict[str, dict[str, int]] = {}
    ends: dict[int, int] = {}
    for name, types, thread, start, end in sorted(calls, key=lambda c: (c[2], c[3], -c[4])):
        if OPERATOR.fullmatch(name) is None or start < ends.get(thread, 0):
            continue
        ends[thread] = end
        by_precision = counted.setdefault(name, {})
        precision = precision_of(name, types)
        by_precision[precision] = by_precision.get(precision, 0) + 1
    return {name: counted[name] for name in sorted(counted)}


def precision_of(name: str, types: Iterable[str]) -> str:
    """The precision that operator ``name`` computed in, from the types of its arguments.

    Conversions between precisions count as ``convert``. Packed weights have no type here: the
    operators that take them are integer kernels by name. An operator without any floating-point or
    8-bit tensor (indices, masks) goes by its first argument's own type.
    """
    if name in _CONVERSIONS:
        return "convert"
    if name.startswith(("quantized::", "onednn::q")):
        return "int8"
    given = list(types)
    for known in (_PRECISIONS, _OTHERS):
        for kind in given:
            if kind in known:
                return known[kind]
    return "none"
