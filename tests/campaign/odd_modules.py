"""Factories of the modules that people have: each odd in one way, each right in plain PyTorch.

`factories` prepares, quantizes and runs each. A factory's docstring says what is odd
where its code does not.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import threading
import time
import warnings
from collections import OrderedDict, namedtuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, rnn

Made = tuple[nn.Module, Any]


class Net(nn.Module):
    """``forward(x)`` is ``compute(self, x)``."""

    def __init__(self, compute: Any, **parts: Any) -> None:
        super().__init__()
        self._compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self._compute(self, x)


def rows(*shape: int) -> tuple[Tensor]:
    return (torch.randn(shape or (1, 8), generator=torch.Generator().manual_seed(0)),)


def linear(compute: Any, **parts: Any) -> Made:
    return Net(compute, fc=nn.Linear(8, 4), **parts), rows()


# --- weights and state ---


def lazy_layers() -> Made:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))
    return net, rows(1, 3, 8, 8)


def extra_state() -> Made:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 1, "names": ["a"]}

        def set_extra_state(self, state: Any) -> None:
            pass

    return Extra(8, 4), rows()


def tied_weights() -> Made:
    net = Net(lambda m, x: m.head(m.embedding(x)), embedding=nn.Embedding(50, 8))
    net.head = nn.Linear(8, 50, bias=False)
    net.head.weight = net.embedding.weight
    return net, (torch.arange(6)[None],)


def parametrized() -> Made:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(8, 8)), nn.ReLU()), rows()


def weight_norm() -> Made:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU()), rows(
        1, 3, 8, 8
    )


def weight_norm_by_hooks() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(8, 4)), nn.ReLU()), rows()


def spectral_norm_by_hooks() -> Made:
    return nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(8, 4)), nn.ReLU()), rows()


def half_weights() -> Made:
    return nn.Linear(8, 4).half(), (rows()[0].half(),)


def bfloat16_weights() -> Made:
    return nn.Linear(8, 4).bfloat16(), (rows()[0].bfloat16(),)


def bfloat16_inside() -> Made:
    return Net(lambda m, x: m.fc(x.bfloat16()), fc=nn.Linear(8, 4).bfloat16()), rows()


def float64_weights() -> Made:
    return nn.Linear(8, 4).double(), (rows()[0].double(),)


def no_parameters() -> Made:
    return Net(lambda m, x: x.relu() + 1), rows()


def huge_constant() -> Made:
    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(25_000_000), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table[:8]

    return Huge(), rows()


def meta_weights() -> Made:
    """Weights that were never loaded: there is nothing to compute with."""
    return nn.Linear(8, 4, device="meta"), rows()


def sparse_weights() -> Made:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(8).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(self.weight, x.t()).t()

    return Sparse(), rows()


def csr_buffer() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net(lambda m, x: m.weight @ x.t())
        net.register_buffer("weight", torch.eye(8).to_sparse_csr())
    return net, rows()


def weights_made_in_inference_mode() -> Made:
    with torch.inference_mode():
        return nn.Linear(8, 4), rows()


def weight_that_is_a_view() -> Made:
    net = nn.Linear(8, 4)
    net.weight = nn.Parameter(torch.randn(100, 100)[10:18, 20:24].t())
    return net, rows()


def quantized_by_its_maker() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize = torch.ao.quantization.quantize_dynamic
        return quantize(nn.Sequential(nn.Linear(8, 4)), dtype=torch.qint8), rows()


def parameter_of_a_subclass() -> Made:
    class Named(Tensor):
        pass

    net = nn.Linear(8, 4)
    net.weight = nn.Parameter(torch.randn(4, 8).as_subclass(Named))
    return net, rows()


# --- outputs ---


@dataclasses.dataclass
class Pair:
    logits: Tensor
    hidden: Tensor | None = None


class ModelOutput(OrderedDict[str, Any]):
    """As transformers' own: a dataclass that is a dict and takes indices."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__({k: v for k, v in kwargs.items() if v is not None})
        self.__dict__.update(kwargs)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


Named = namedtuple("Named", "logits hidden")


def dataclass_output() -> Made:
    return linear(lambda m, x: Pair(m.fc(x)))


def model_output() -> Made:
    return linear(lambda m, x: ModelOutput(logits=m.fc(x), loss=None, hidden=(x, m.fc(x))))


def tuple_with_none() -> Made:
    return linear(lambda m, x: (m.fc(x), None, {"a": x, "b": [None, x * 2]}))


def namedtuple_output() -> Made:
    return linear(lambda m, x: Named(m.fc(x), x))


def object_output() -> Made:
    class Holder:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    return linear(lambda m, x: Holder(m.fc(x)))


def complex_output() -> Made:
    return linear(lambda m, x: torch.fft.fft(m.fc(x)))


def spectrum_magnitude() -> Made:
    return linear(lambda m, x: torch.fft.rfft(m.fc(x)).abs())


def generator_output() -> Made:
    return linear(lambda m, x: (m.fc(x) * i for i in range(3)))


def number_output() -> Made:
    return linear(lambda m, x: float(m.fc(x).sum()))


def text_output() -> Made:
    return linear(lambda m, x: ["cat", "dog"][int(m.fc(x).argmax()) % 2])


def nothing_returned() -> Made:
    return linear(lambda m, x: None)


def empty_output() -> Made:
    return linear(lambda m, x: (m.fc(x), x[:0]))


def output_that_is_the_input() -> Made:
    return linear(lambda m, x: (m.fc(x), x))


def same_output_twice() -> Made:
    def compute(m: Any, x: Tensor) -> Any:
        y = m.fc(x)
        return y, y, y.t()

    return linear(compute)


def array_output() -> Made:
    return linear(lambda m, x: m.fc(x).detach().numpy())


def packed_output() -> Made:
    return Net(
        lambda m, x: m.lstm(rnn.pack_padded_sequence(x, torch.tensor([5]), batch_first=True))[0],
        lstm=nn.LSTM(4, 6, batch_first=True),
    ), rows(1, 5, 4)


def nested_output() -> Made:
    return linear(lambda m, x: torch.nested.nested_tensor([m.fc(x)[0], m.fc(x)[0, :2]]))


def sparse_output() -> Made:
    return linear(lambda m, x: m.fc(x).relu().to_sparse())


def output_of_random_length() -> Made:
    return linear(lambda m, x: m.fc(x)[0, : int(torch.randint(1, 4, ()))])


# --- inputs ---


def inputs_by_name() -> Made:
    class Named(nn.Linear):
        def forward(self, *, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale

    return Named(8, 4), {"x": rows()[0], "scale": torch.ones(1, 4)}


def list_input() -> Made:
    return linear(lambda m, x: m.fc(torch.cat(x)))[0], ([rows()[0], rows()[0]],)


def dict_as_an_input() -> Made:
    return linear(lambda m, x: m.fc(x["a"]))[0], ({"a": rows()[0]},)


def dataclass_input() -> Made:
    return linear(lambda m, x: m.fc(x.logits))[0], (Pair(rows()[0]),)


def number_input() -> Made:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor, scale: float) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale

    return Scaled(8, 4), (rows()[0], 2.0)


def none_input() -> Made:
    class Masked(nn.Linear):
        def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
            return super().forward(x) if mask is None else super().forward(x) * mask

    return Masked(8, 4), (rows()[0], None)


def integers() -> Made:
    net = Net(lambda m, x: m.fc(m.embedding(x).mean(1)), embedding=nn.Embedding(9, 8))
    net.fc = nn.Linear(8, 4)
    return net, (torch.randint(0, 9, (2, 5), dtype=torch.int32),)


def embedding_bag() -> Made:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(10, 8)

        def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
            return self.bag(x, offsets)

    return Bag(), (torch.arange(6), torch.tensor([0, 3]))


def complex_input() -> Made:
    return Net(lambda m, x: x.abs()), (torch.randn(1, 8, dtype=torch.complex64),)


def odd_layouts() -> Made:
    class Three(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return a + b + c

    one = torch.randn(8, 1).t().requires_grad_(True)
    return Three(), (one, torch.randn(1, 1).expand(1, 8), nn.Parameter(torch.randn(1, 16)[:, ::2]))


def same_tensor_twice() -> Made:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b.t()

    x = torch.randn(3, 8)
    return Two(), (x, x)


def packed_inside() -> Made:
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    return Lstm(), (torch.randn(2, 5, 4), torch.tensor([3, 5]))


def packed_input() -> Made:
    packed = rnn.pack_padded_sequence(torch.randn(2, 5, 4), torch.tensor([5, 3]), batch_first=True)
    return Net(lambda m, x: m.gru(x)[1], gru=nn.GRU(4, 6, batch_first=True)), (packed,)


def lstm_with_state() -> Made:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
            return self.lstm(x, (h, c))

    return Step(), (torch.randn(5, 1, 4), torch.zeros(1, 1, 6), torch.zeros(1, 1, 6))


def uint16_input() -> Made:
    return linear(lambda m, x: m.fc(x.float()))[0], (torch.ones(1, 8, dtype=torch.uint16),)


def float8_input() -> Made:
    return linear(lambda m, x: m.fc(x.float()))[0], (torch.ones(1, 8).to(torch.float8_e4m3fn),)


def any_number_of_inputs() -> Made:
    class Many(nn.Module):
        def forward(self, *tensors: Tensor, **named: Any) -> Tensor:
            return sum(tensors[1:], tensors[0])

    return Many(), (*rows(), *rows(), *rows())


# --- what forward does ---


def gradient_inside_forward() -> Made:
    def force(m: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_(True)
            return torch.autograd.grad(m.fc(x).sum(), x)[0]

    return linear(force)


def functional_gradient() -> Made:
    return linear(lambda m, x: torch.func.grad(lambda y: m.fc(y).pow(2).sum())(x))


def checkpointed() -> Made:
    from torch.utils.checkpoint import checkpoint

    return linear(lambda m, x: checkpoint(m.fc, x, use_reentrant=False))


def own_autograd_function() -> Made:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * 2

    return linear(lambda m, x: Double.apply(m.fc(x)))


def branch_on_data() -> Made:
    return linear(lambda m, x: m.fc(x) if x.sum() > 0 else m.fc(-x))


def loop_on_data() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        while x.abs().max() > 0.1:
            x = x / 2
        return m.fc(x)

    return linear(compute)


def input_changed_in_place() -> Made:
    return linear(lambda m, x: m.fc(x.mul_(0.5)))


def random_output() -> Made:
    return Net(lambda m, x: functional.dropout(m.fc(x), 0.5), fc=nn.Linear(8, 64)), rows()


def buffer_changed_in_forward() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        m.calls += 1
        return m.fc(x) + 0 * m.calls

    net, examples = linear(compute)
    net.register_buffer("calls", torch.zeros(1))
    return net, examples


def cache_that_grows() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        m.seen.append(x)
        return m.fc(torch.stack(m.seen[-3:]).mean(0))

    return linear(compute, seen=[])


def weights_changed_in_forward() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            m.fc.weight.mul_(1.0)
        return m.fc(x)

    return linear(compute)


def training_mode_in_forward() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        m.train()
        return m.norm(m.fc(x))

    return Net(compute, fc=nn.Linear(8, 4), norm=nn.BatchNorm1d(4)), rows(4, 8)


def autocast_inside() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return m.fc(x)

    return linear(compute)


def nested_inside() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        nested = torch.nested.nested_tensor([x[0], x[0]], layout=torch.jagged)
        return m.fc(nested.to_padded_tensor(0.0))

    return linear(compute)


def attention_without_weights() -> Made:
    net = nn.MultiheadAttention(8, 2, batch_first=True)
    return Net(lambda m, x: m.attend(x, x, x, need_weights=False), attend=net), rows(1, 5, 8)


def transformer_encoder() -> Made:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), rows(1, 5, 8)


def convolution_then_view() -> Made:
    return Net(
        lambda m, x: m.fc(m.conv(x).view(x.shape[0], -1)),
        conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(144, 5),
    ), rows(2, 3, 8, 8)  # fmt: skip


def pixel_shuffle_by_view() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        return y.view(1, 1, 2, 2, 6, 6).permute(0, 1, 4, 2, 5, 3).reshape(1, 1, 12, 12)

    return Net(compute, conv=nn.Conv2d(3, 4, 3)), rows(1, 3, 8, 8)


def numpy_inside() -> Made:
    return linear(lambda m, x: torch.from_numpy(m.fc(x).detach().numpy().copy()) * 2)


# --- how the module is made ---


class _Called(nn.Linear):
    def __call__(self, x: Tensor) -> Any:  # type: ignore[override]
        return super().__call__(x) + 1


def call_overridden() -> Made:
    return _Called(8, 4), rows()


def hooks() -> Made:
    net = nn.Linear(8, 4)
    net.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    net.register_forward_hook(lambda _, args, y: y + 1)
    return net, rows()


def compiled() -> Made:
    return torch.compile(nn.Linear(8, 4), backend="eager"), rows()  # type: ignore[return-value]


def forward_compiled() -> Made:
    net = nn.Linear(8, 4)
    net.compile(backend="eager")
    return net, rows()


def scripted_inside() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(nn.Linear(8, 4)), nn.ReLU()), rows()


def traced() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Linear(8, 4).eval(), torch.zeros(1, 8)), rows()  # type: ignore[return-value]


def copies_refused() -> Made:
    class Unique(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("this module is not copied")

    return nn.Sequential(Unique(8, 4), nn.ReLU()), rows()


def holds_a_lock() -> Made:
    return linear(lambda m, x: m.fc(x), lock=threading.Lock(), file=sys.stderr)


def forward_on_the_instance() -> Made:
    net = nn.Linear(8, 4)
    plain = net.forward
    net.forward = lambda input: plain(input) + 1  # type: ignore[method-assign,misc]
    return net, rows()


def data_parallel() -> Made:
    return nn.DataParallel(nn.Linear(8, 4)), rows()


def exported_inside() -> Made:
    program = torch.export.export(nn.Linear(8, 4).eval(), rows())
    return program.module(), rows()  # type: ignore[return-value]


def symbolic_graph() -> Made:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 4), nn.ReLU())), rows()


# --- what it does to the process ---


def prints() -> Made:
    print("building")
    os.write(1, b"natively\n")
    return linear(lambda m, x: print("forward") or m.fc(x))


def warns() -> Made:
    warnings.warn("building", stacklevel=2)

    def compute(m: Any, x: Tensor) -> Tensor:
        warnings.warn("forward", stacklevel=2)
        return m.fc(x)

    return linear(compute)


def warnings_are_errors() -> Made:
    warnings.simplefilter("error")
    return linear(lambda m, x: m.fc(x))


def exits() -> Made:
    sys.exit("no licence")


def exits_in_forward() -> Made:
    return linear(lambda m, x: sys.exit(3))


def exits_at_once() -> Made:
    os._exit(0)


def interrupts() -> Made:
    raise KeyboardInterrupt


def recursion() -> Made:
    return recursion()


def starts_a_thread() -> Made:
    """One that is no daemon, and outlives everything."""
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return linear(lambda m, x: m.fc(x))


def threads_in_forward() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        worker = threading.Thread(target=lambda: found.append(m.fc(x)))
        worker.start()
        worker.join()
        return found[0]

    return linear(compute)


def changes_folder() -> Made:
    os.chdir(tempfile.gettempdir())
    return linear(lambda m, x: m.fc(x))


def changes_seeds() -> Made:
    torch.manual_seed(7)
    return linear(lambda m, x: torch.manual_seed(7) and m.fc(x))


def default_dtype_float64() -> Made:
    torch.set_default_dtype(torch.float64)
    return nn.Linear(8, 4), (torch.randn(1, 8),)


def default_dtype_bfloat16() -> Made:
    torch.set_default_dtype(torch.bfloat16)
    return nn.Linear(8, 4), (torch.randn(1, 8),)


def default_device_meta() -> Made:
    torch.set_default_device("meta")
    return nn.Linear(8, 4, device="cpu"), (torch.randn(1, 8, device="cpu"),)


def sets_threads() -> Made:
    torch.set_num_threads(1)
    return linear(lambda m, x: m.fc(x))


def sets_threads_in_forward() -> Made:
    return linear(lambda m, x: torch.set_num_threads(1) or m.fc(x))


def grad_switched_off() -> Made:
    torch.set_grad_enabled(False)
    return linear(lambda m, x: m.fc(x))


def deterministic_algorithms() -> Made:
    torch.use_deterministic_algorithms(True)
    return linear(lambda m, x: m.fc(x))


def closes_standard_output() -> Made:
    sys.stdout.close()
    return linear(lambda m, x: m.fc(x))


def empties_sys_argv_and_path() -> Made:
    sys.argv[:], sys.path[:] = [], []
    return linear(lambda m, x: m.fc(x))


def catches_signals() -> Made:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return linear(lambda m, x: m.fc(x))


def monkeypatches_torch() -> Made:
    plain = functional.linear
    functional.linear = lambda x, w, b=None: plain(x, w, b) + 1  # type: ignore[assignment]
    return linear(lambda m, x: m.fc(x))


# --- what is wrong ---


def raises_in_forward() -> Made:
    def compute(m: Any, x: Tensor) -> Tensor:
        raise ValueError("a line\nanother line")

    return linear(compute)


def says_nothing() -> Made:
    raise AssertionError


def no_module() -> Any:
    return "a model", rows()


def module_alone() -> Any:
    return nn.Linear(8, 4)


def module_class() -> Any:
    return nn.Linear, rows()


def inputs_of_the_wrong_shape() -> Made:
    return nn.Linear(8, 4), rows(1, 7)


def two_inputs_one_example() -> Made:
    return nn.Bilinear(8, 8, 4), rows()


def no_forward() -> Made:
    return nn.Module(), rows()


def forward_without_arguments() -> Made:
    class Empty(nn.Module):
        def forward(self) -> int:
            return 1

    return Empty(), ()


def too_large() -> Made:
    return linear(lambda m, x: torch.empty(1 << 50))


def missing_package() -> Made:
    import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401

    raise AssertionError
