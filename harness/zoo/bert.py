"""BERT-base (Devlin et al., 2019): twelve layers of self-attention over integer tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.zoo.initial import initialise

# what a masked position's score is lowered by: its softmax weight underflows, also in float16
MASKED = -1e4


class Attention(nn.Module):
    """Multi-head self-attention with the output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            project.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query(x), self.key(x), self.value(x))
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each with a shortcut and a norm after the sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, bias))
        out: Tensor = self.norm(x + self.narrow(self.gelu(self.widen(x))))
        return out


class BertBase(nn.Module):
    """``input_ids`` and ``attention_mask`` (batch, sequence) int64, sequence at most 512, to
    ``last_hidden_state`` (batch, sequence, width) and ``pooler_output`` (batch, width).
    """

    def __init__(
        self, width: int = 768, depth: int = 12, vocabulary: int = 30522, positions: int = 512
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, width // 64) for _ in range(depth))
        self.pooler = nn.Linear(width, width)
        self.tanh = nn.Tanh()
        initialise(self, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.tokens(input_ids) + self.positions[: input_ids.shape[1]])
        mask = attention_mask[:, None, None, :].to(x.dtype)
        bias = (1.0 - mask) * MASKED
        for layer in self.layers:
            x = layer(x, bias)
        return x, self.tanh(self.pooler(x[:, 0]))
