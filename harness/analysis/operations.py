"""Operations and compulsory bytes of an operator, from the types and shapes of its tensors.

    convolution      2 x elements out x elements of one filter         a multiplication and an
    matrix product   2 x elements out x inner dimension                addition are two operations
    elementwise      1 x elements out
    moved about      0: nothing is computed

What stands in none of these tables is *not counted*: an exponential or a square root has no agreed
number of operations. An operator that does the work of several nodes of the model has the sum of
theirs, or none where one of them is not counted. Bytes are those of each tensor once, which is what
must be moved if nothing stays in a cache.

`tests/unit/backends/test_operator_profiles.py` holds it against known counts and torch's counter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from harness.maybe import Maybe, Unavailable
from harness.protocols import OperatorTimes, Step, TensorSpec
from harness.records.operators import Operations

Tensors = Sequence[TensorSpec]
_BITS = {"bool": 8, "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16} | {
    f"{u}int{bits}": bits for u in ("", "u") for bits in (8, 16, 32, 64)
}
_INTEGERS = ("int", "uint", "bool")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ONE = _words(
    "Add Sub Mul Div Relu Clip Max Min Neg Abs LeakyRelu PRelu Sum QLinearAdd QLinearMul"
    " aten::add aten::add_ aten::sub aten::mul aten::mul_ aten::div aten::relu aten::relu_"
    " aten::clamp aten::hardtanh aten::hardtanh_ aten::relu6 aten::neg aten::abs aten::maximum"
    " aten::minimum quantized::add quantized::mul"
)
_TWO = _words(
    "BatchNormalization aten::batch_norm aten::_native_batch_norm_legit_no_training"
    " quantized::add_relu"
)
_REDUCING = _words(
    "ReduceMean ReduceSum ReduceMax ReduceMin GlobalAveragePool GlobalMaxPool"
    " QLinearGlobalAveragePool QLinearReduceMean aten::mean aten::sum aten::adaptive_avg_pool2d"
)
_VIEWS = _words(
    "Reshape Flatten Squeeze Unsqueeze Identity Shape Size aten::flatten aten::view aten::reshape"
    " aten::permute aten::transpose aten::t aten::squeeze aten::unsqueeze aten::expand aten::slice"
    " aten::select aten::chunk aten::split aten::unbind aten::detach aten::dropout aten::alias"
    " aten::contiguous aten::expand_as aten::view_as"
)
_MOVES = _words(
    "Transpose Concat QLinearConcat Split Slice Expand Pad Tile Cast CastLike Where"
    " ReorderInput ReorderOutput QuantizeLinear DequantizeLinear aten::cat aten::stack aten::clone"
    " aten::to aten::_to_copy aten::copy_ aten::quantize_per_tensor aten::quantize_per_channel"
    " aten::dequantize Constant ConstantOfShape"
)
_LOOK_UPS = _words("Gather aten::embedding aten::index_select")


def operations(operator: OperatorTimes) -> Maybe[Operations]:
    """What ``operator`` computes in one inference, or what of it is not counted."""
    counts = [_count(step) for step in operator.steps]
    if not counts or any(isinstance(one, Unavailable) for one in counts):
        own = _count(Step(operator.type, operator.inputs, operator.outputs))
        if not counts or not isinstance(own, Unavailable):
            counts = [own]
    total = 0
    for one in counts:
        if isinstance(one, Unavailable):
            return one
        total += one
    total = round(total * operator.calls)
    if operator.precision.startswith(_INTEGERS):
        return Operations(total, 0)
    return Operations(0, total)


def compulsory_bytes(operator: OperatorTimes) -> Maybe[int]:
    """What ``operator`` reads and writes at least, in one inference."""
    if operator.type in _VIEWS:
        return Unavailable("it moves nothing, or copies, as the runtime pleases")
    tensors = (*operator.inputs, *operator.outputs)
    if operator.type in _LOOK_UPS and operator.outputs:  # of a table the rows that it puts out
        tensors = (*operator.inputs[1:], *operator.outputs, *operator.outputs)
    if not operator.inputs or not operator.outputs:
        return Unavailable("its tensors are not known")
    total = 0
    for tensor in tensors:
        bits = _BITS.get(tensor.dtype)
        if bits is None or not _known(tensor):
            return Unavailable("the size of one of its tensors is not known")
        total += prod(tensor.shape) * bits // 8
    return round(total * operator.calls)


def _known(tensor: TensorSpec) -> bool:
    return all(size >= 0 for size in tensor.shape)


def _count(step: Step) -> Maybe[int]:
    kind, inputs, outputs = step.type, step.inputs, step.outputs
    if kind in _VIEWS or kind in _MOVES or kind in _LOOK_UPS:
        return 0
    formula = _formula(kind)
    if formula is None:
        return Unavailable(f"not counted: {kind}")
    if not inputs or not outputs or not all(map(_known, (*inputs, outputs[0]))):
        return Unavailable(f"not counted: the shapes of {kind} are not known")
    found = formula(inputs, outputs)
    if found is None:
        return Unavailable(f"not counted: {kind} of these shapes")
    return found


Formula = Callable[[Tensors, Tensors], "int | None"]


def _formula(kind: str) -> Formula | None:
    if kind in _ONE:
        return lambda inputs, outputs: _elements(outputs[0])
    if kind in _TWO:
        return lambda inputs, outputs: 2 * _elements(outputs[0])
    if kind in _REDUCING:
        return lambda inputs, outputs: _elements(inputs[0])
    return _PRODUCTS.get(kind)


def _elements(tensor: TensorSpec) -> int:
    return prod(tensor.shape)


def _convolution(weight: int) -> Formula:
    """``weight`` is its place among the inputs: filters along its axis 0."""

    def count(inputs: Tensors, outputs: Tensors) -> int | None:
        if len(inputs) <= weight:
            return None
        filters, out = inputs[weight].shape, outputs[0].shape
        if len(filters) < 3 or filters[0] not in out:
            return None
        return 2 * prod(out) * prod(filters[1:])

    return count


def _transposed(inputs: Tensors, outputs: Tensors) -> int | None:
    if len(inputs) < 2 or len(inputs[1].shape) < 3:
        return None
    return 2 * _elements(inputs[0]) * prod(inputs[1].shape[1:])


def _product(a: int, b: int) -> Formula:
    """The inner dimension is what both factors have beside the rows and columns of the product."""

    def count(inputs: Tensors, outputs: Tensors) -> int | None:
        if len(inputs) <= max(a, b):
            return None
        left, right, out = inputs[a].shape, inputs[b].shape, outputs[0].shape
        if not out or len(right) < 2:  # a bias in the place of weights that were packed away
            return None
        inner = set(left[-2:]) & set(right[-2:])
        fits = [k for k in inner if out[-1] * k == prod(right[-2:])]
        return 2 * prod(out) * fits[0] if fits else None

    return count


def _attention(inputs: Tensors, outputs: Tensors) -> int | None:
    """Its two matrix products; its softmax has no agreed number."""
    if len(inputs) < 3 or any(len(one.shape) < 3 for one in inputs[:3]):
        return None
    query, key, value = (one.shape for one in inputs[:3])
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_PRODUCTS: dict[str, Formula] = {
    **dict.fromkeys(
        _words(
            "Conv FusedConv aten::conv1d aten::conv2d aten::conv3d aten::convolution"
            " aten::_convolution aten::mkldnn_convolution quantized::conv1d quantized::conv2d"
            " quantized::conv3d quantized::conv1d_relu quantized::conv2d_relu"
            " quantized::conv3d_relu ConvInteger"
        ),
        _convolution(1),
    ),
    "QLinearConv": _convolution(3),
    **dict.fromkeys(_words("ConvTranspose aten::conv_transpose1d aten::conv_transpose2d"),
                    _transposed),
    **dict.fromkeys(
        _words(
            "MatMul Gemm FusedMatMul FusedGemm MatMulInteger MatMulIntegerToFloat"
            " DynamicQuantizeMatMul aten::linear aten::mm aten::bmm aten::matmul"
            " quantized::linear quantized::linear_relu quantized::linear_dynamic"
        ),
        _product(0, 1),
    ),
    **dict.fromkeys(_words("QLinearMatMul QGemm"), _product(0, 3)),
    **dict.fromkeys(_words("aten::addmm aten::baddbmm"), _product(1, 2)),
    "aten::scaled_dot_product_attention": _attention,
}  # fmt: skip
