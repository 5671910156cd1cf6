"""Matrix products, a convolution and copies through ONNX Runtime, as models of one operator.

In int8 they are Q/DQ graphs, which the runtime fuses as it does those of a quantized model. A copy
is a chain of elementwise operators, so that the call itself weighs nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.protocols import (
    Artifact,
    Backend,
    IdleLoad,
    OperatorProfiled,
    RoofLoad,
    SessionOptions,
    TensorSpec,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PRODUCTS = (384, 1024)  # rows, columns and inner dimension
_CHANNELS, _SIDE = 256, 28  # of a 3 x 3 convolution
_COPIES = (1 << 18, 1 << 21, 1 << 24, 1 << 27)  # bytes read and written by one operator
_CHAIN = 16
_IDLE = 64  # operators that compute next to nothing


def roof_loads(
    backend: Callable[[], Backend], precision: str, options: SessionOptions
) -> list[RoofLoad]:
    """In fp32, and in int8 where the run is."""
    found = list(_copies(backend, options))
    for kind in dict.fromkeys(("fp32", precision)):
        if kind in ("fp32", "int8"):
            found += _compute(backend, options, kind)
    return found


def _compute(
    backend: Callable[[], Backend], options: SessionOptions, precision: str
) -> Iterator[RoofLoad]:
    from onnx import helper

    width = 1 if precision == "int8" else 4
    for size in _PRODUCTS:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        yield RoofLoad(
            f"product {size} {precision}", "compute", precision, 2 * size**3, 3 * size**2 * width,
            _starter(backend, options, [node], (size, size), (size, size), (size, size), precision),
        )  # fmt: skip
    pixels, filters = (1, _CHANNELS, _SIDE, _SIDE), (_CHANNELS, _CHANNELS, 3, 3)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    work = 2 * _CHANNELS**2 * 9 * _SIDE**2
    yield RoofLoad(
        f"convolution {precision}", "compute", precision, work,
        (2 * _CHANNELS * _SIDE**2 + 9 * _CHANNELS**2) * width,
        _starter(backend, options, [node], pixels, filters, pixels, precision),
    )  # fmt: skip


def _copies(backend: Callable[[], Backend], options: SessionOptions) -> Iterator[RoofLoad]:
    from onnx import helper

    for moved in _COPIES:
        names = ["x", *(f"t{i}" for i in range(_CHAIN - 1)), "y"]
        nodes = [
            helper.make_node(("Neg", "Abs")[i % 2], [names[i]], [names[i + 1]])
            for i in range(_CHAIN)
        ]
        shape = (moved // 8,)
        yield RoofLoad(
            f"copy {moved >> 10} KiB", "memory", "fp32", _CHAIN * moved, moved,
            _starter(backend, options, nodes, shape, None, shape, "fp32"),
        )  # fmt: skip


def idle_load(backend: Callable[[], Backend], options: SessionOptions) -> IdleLoad:
    """A chain of operators on one element each."""
    import numpy as np
    from onnx import helper

    names = ["x", *(f"t{i}" for i in range(_IDLE - 1)), "y"]
    nodes = [
        helper.make_node(("Neg", "Abs")[i % 2], [names[i]], [names[i + 1]]) for i in range(_IDLE)
    ]
    x = np.ones(1, np.float32)
    # the profiled session loads the file anew: it lies there as long as the load is held
    folder = tempfile.mkdtemp(prefix="harness-idle-")
    path = Path(folder, "idle.onnx")
    path.write_bytes(_model(nodes, x, None, x.shape, "fp32"))
    spec = TensorSpec("x", "float32", x.shape)
    artifact = Artifact("onnx", str(path), "idle", "fp32", str(path), 0, (spec,))
    session = backend().prepare(artifact, {"x": x}, options)

    def run() -> None:
        session.enqueue()
        session.synchronize()

    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    assert isinstance(session, OperatorProfiled)
    return IdleLoad(run, session.profile_operators)


def _starter(
    backend: Callable[[], Backend],
    options: SessionOptions,
    nodes: Sequence[Any],
    given: tuple[int, ...],
    weight: tuple[int, ...] | None,
    made: tuple[int, ...],
    precision: str,
) -> Callable[[], Callable[[], None]]:
    def start() -> Callable[[], None]:
        import numpy as np

        rng = np.random.default_rng(0)
        x = rng.standard_normal(given).astype(np.float32)
        w = None if weight is None else rng.standard_normal(weight).astype(np.float32)
        with tempfile.TemporaryDirectory(prefix="harness-roof-") as folder:
            path = Path(folder, "roof.onnx")
            path.write_bytes(_model(nodes, x, w, made, precision))
            size = path.stat().st_size
            spec = TensorSpec("x", "float32", given)
            artifact = Artifact("onnx", str(path), "roof", "fp32", str(path), size, (spec,))
            session = backend().prepare(artifact, {"x": x}, options)

        def call() -> None:
            session.enqueue()
            session.synchronize()

        return call

    return start


def _model(
    nodes: Sequence[Any],
    x: NDArray[Any],
    w: NDArray[Any] | None,
    made: tuple[int, ...],
    precision: str,
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    constants = [] if w is None else [numpy_helper.from_array(w, "w")]
    body = list(nodes)
    if precision == "int8" and w is not None:
        body, constants = _in_8_bits(nodes[0], w)
    graph = helper.make_graph(
        body,
        "roof",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
        constants,
    )
    opset = helper.make_opsetid("", 17)
    data: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return data


def _in_8_bits(node: Any, w: NDArray[Any]) -> tuple[list[Any], list[Any]]:
    """``node`` between Q/DQ pairs: uint8 activations, int8 weights of 7 bits, which no processor
    overruns."""
    import numpy as np
    from onnx import helper, numpy_helper

    scale = np.float32(0.05)
    constants = [
        numpy_helper.from_array(np.clip(np.round(w / scale), -63, 63).astype(np.int8), "w8"),
        numpy_helper.from_array(np.asarray(scale), "s"),
        numpy_helper.from_array(np.asarray(np.float32(1.0)), "so"),
        numpy_helper.from_array(np.asarray(128, np.uint8), "z"),
        numpy_helper.from_array(np.asarray(0, np.int8), "zw"),
    ]
    make = helper.make_node
    core = type(node)()
    core.CopyFrom(node)
    core.input[:], core.output[:] = ["xd", "wd"], ["yf"]
    return [
        make("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        make("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        make("DequantizeLinear", ["w8", "s", "zw"], ["wd"]),
        core,
        make("QuantizeLinear", ["yf", "so", "z"], ["yq"]),
        make("DequantizeLinear", ["yq", "so", "z"], ["y"]),
    ], constants
