"""Shapes of the models that are measured, and the FLOPs and bytes that they cost at least. It needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

PROMPT = 128
"""Tokens of every prompt."""
GROUP = 16
"""Responses to each prompt."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder of Qwen2's kind; the embedding is the output layer too."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int = 151_936
    micro_batch_tokens: int = 16_384

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def body(self) -> int:
        """Weights of all matmuls but the output layer's."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        """Weights of the output layer."""
        return self.vocabulary * self.width

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token, bytes in 16 bits."""
        return 2 * 2 * self.layers * self.key_heads * self.head_width


SHAPES = {
    "tiny": Shape(layers=2, width=64, inner=128, heads=4, key_heads=2, vocabulary=512),
    "qwen2.5-0.5b": Shape(layers=24, width=896, inner=4864, heads=14, key_heads=2),
    "qwen2.5-1.5b": Shape(layers=28, width=1536, inner=8960, heads=12, key_heads=2, micro_batch_tokens=8192),
}


def train_flops(shape: Shape, *, computed: int, responses: int, pairs: int) -> float:
    """Model FLOPs of one forward and backward pass: ``6 weights`` a token, of the output layer at response tokens only,
    and ``12 heads head_width`` a layer for every pair of a token and one it looks at."""
    attention = 12 * shape.layers * shape.width * pairs
    return 6.0 * (shape.body * computed + shape.head * responses) + attention


def decode_bytes(shape: Shape, *, rows: int, prompt: int, tokens: int) -> float:
    """Bytes that decoding has to read at least: all weights once a step, and every row's keys and values so far."""
    weights = 2.0 * (shape.body + shape.head) * tokens
    seen = sum(prompt + step for step in range(tokens))
    return weights + float(shape.cache_bytes) * rows * seen
