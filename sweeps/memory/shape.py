"""The shape of a decoder-only transformer: sizes of its layers, and how many numbers they make.

Pure functions of a ``config.json``; it must not read files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NORMED_HEADS = frozenset({"qwen3"})
"""Model types that normalise queries and keys."""
BIASED = frozenset({"qwen2"})
"""Model types whose queries, keys and values have a bias without their ``config.json`` saying so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of a Llama-like decoder, numbers; the defaults stand for those that a ``config.json`` does not name."""

    vocabulary: int = 152_000
    hidden: int = 4096
    """Width of the residual stream."""
    intermediate: int = 14_336
    """Width of the feed-forward layers."""
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    """Heads of keys and values."""
    head_dim: int = 128
    tied: bool = False
    """The output layer is the embedding."""
    qkv_bias: bool = False
    head_norms: bool = False
    """Queries and keys are normalised, each by a weight of ``head_dim``."""

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """(numbers in, numbers out) of the linear layers of one block, by the name of the module."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """Numbers in all weights, a tied output layer once."""
        linear = sum(width * height for width, height in self.linear_layers.values())
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim * self.qkv_bias
        norms = 2 * self.hidden + 2 * self.head_dim * self.head_norms
        ends = self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden
        return self.layers * (linear + bias + norms) + ends

    def adapter_parameters(self, rank: int, targets: tuple[str, ...] = ()) -> int:
        """Numbers in a LoRA adapter: ``rank * (in + out)`` of every layer named in ``targets``, all if it is empty."""
        sizes = [size for name, size in self.linear_layers.items() if not targets or name in targets]
        return self.layers * rank * sum(width + height for width, height in sizes)


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape that transformers' ``config.json`` describes. Raises ``ValueError`` or ``TypeError`` for what is no
    number."""
    text = config.get("text_config") or config
    kind = str(text.get("model_type"))
    named = {name: int(text[key]) for name, key in _KEYS.items() if text.get(key)}
    hidden, heads = named.get("hidden", ModelShape().hidden), named.get("heads")
    if heads is None:
        named["heads"] = heads = max(1, hidden // named.get("head_dim", ModelShape().head_dim))
    named.setdefault("kv_heads", heads)
    named.setdefault("head_dim", max(1, hidden // heads))
    named.setdefault("intermediate", 4 * hidden)
    return ModelShape(
        **named,
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        qkv_bias=bool(text.get("attention_bias", kind in BIASED)),
        head_norms=kind in NORMED_HEADS,
    )


_KEYS = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}
"""Names in transformers' ``config.json``."""


def _qwen2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, *, tied: bool) -> ModelShape:
    return ModelShape(
        vocabulary=151_936 if tied else 152_064,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        tied=tied,
        qkv_bias=True,
    )


def _qwen3(hidden: int, intermediate: int, layers: int, heads: int, *, tied: bool = True) -> ModelShape:
    return ModelShape(
        vocabulary=151_936,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        tied=tied,
        head_norms=True,
    )


def _smollm2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> ModelShape:
    return ModelShape(
        vocabulary=49_152,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=64,
        tied=True,
    )


KNOWN: Mapping[str, ModelShape] = {
    "Qwen/Qwen2.5-0.5B": _qwen2(896, 4864, 24, 14, 2, tied=True),
    "Qwen/Qwen2.5-1.5B": _qwen2(1536, 8960, 28, 12, 2, tied=True),
    "Qwen/Qwen2.5-Math-7B": _qwen2(3584, 18_944, 28, 28, 4, tied=False),
    "Qwen/Qwen3-0.6B-Base": _qwen3(1024, 3072, 28, 16),
    "Qwen/Qwen3-1.7B-Base": _qwen3(2048, 6144, 28, 16),
    "Qwen/Qwen3-4B-Base": _qwen3(2560, 9728, 36, 32),
    "Qwen/Qwen3-8B-Base": _qwen3(4096, 12_288, 36, 32, tied=False),
    "meta-llama/Llama-3.1-8B-Instruct": ModelShape(vocabulary=128_256),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _smollm2(576, 1536, 30, 9, 3),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _smollm2(960, 2560, 32, 15, 5),
}
"""Shapes of the hub's models that ``conf/model`` names, as their ``config.json`` has them: a plan needs no download."""
