"""What a step has to compute and move at the least, and what this machine can do at the most.

Counts are of matmuls (2 operations per multiply-add) and of weights read; everything else a step does is
overhead by this reckoning, which is the point.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder-only transformer, as far as its matmuls go."""

    layers: int
    width: int
    attention: int
    """Width of all query heads together."""
    key_value: int
    """Width of all key heads together; values have the same."""
    inner: int
    """Width of the gated feed-forward layer."""
    vocabulary: int

    @property
    def backbone(self) -> int:
        """Weights of the layers' matrices."""
        attention = self.width * (2 * self.attention + 2 * self.key_value)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        """Weights of the output layer."""
        return self.width * self.vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one step works on."""

    prompts: int
    prompt_tokens: float
    """Mean length of a prompt."""
    responses: int
    response_tokens: float
    """Mean length of a response."""
    longest: float
    """Longest response: the number of decoding steps."""
    updates: int
    old_pass: bool = True
    """Whether rows need a pass for their old log-probs and entropy."""


def shape_of(model: Path) -> Shape:
    """The shape in a model's ``config.json``."""
    config = json.loads((model / "config.json").read_text())
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        attention=size * config["num_attention_heads"],
        key_value=size * config["num_key_value_heads"],
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
    )


def floor(shape: Shape, load: Load, itemsize: int = 4) -> dict[str, dict[str, float]]:
    """Operations and bytes of each phase, by the name it has in ``timings.jsonl``; prompts are computed once.

    Attention: ``4 * attention`` operations per layer for each pair of a token and one before it. A decoding step reads
    every weight once. ``update`` is a forward pass, its backward pass (twice that) and the head's second forward pass;
    ``old`` the forward pass of the rows that are not in the first mini-batch, unless the sampler spares it. ``sync``
    reads and writes each weight.
    Rows without signal skip the backward pass, so an update may take less than this.
    """
    sampled = load.responses * load.response_tokens
    prompt = load.prompts * load.prompt_tokens
    pairs = load.prompts * load.prompt_tokens**2 / 2
    pairs += load.responses * (load.prompt_tokens * load.response_tokens + load.response_tokens**2 / 2)
    backbone = 2 * shape.backbone * (sampled + prompt) + 4 * shape.attention * shape.layers * pairs
    head = 2 * shape.head * sampled
    weights = (shape.backbone + shape.head) * itemsize
    return {
        "generate": {"operations": backbone + head, "bytes": load.longest * weights},
        "old": {
            "operations": load.old_pass * (1 - 1 / load.updates) * (backbone + head),
            "bytes": weights if load.old_pass and load.updates > 1 else 0.0,
        },
        "update": {"operations": 3 * backbone + 4 * head, "bytes": load.updates * 8 * weights},
        "sync": {"operations": 0.0, "bytes": 2 * weights},
    }


def ceilings(shape: Shape) -> dict[str, float]:
    """Operations and bytes per second of a large matrix product, of one in the model's own shape, and of a copy."""
    import torch

    from trainer.policy.cpu_matmul import matmul

    def product(left: Any, right: Any) -> float:
        return min(_best(lambda: left @ right), _best(lambda: matmul(left, right)))

    large, copied = torch.randn(2048, 2048), torch.empty(2**26)
    rows, weight, source = torch.randn(4096, shape.width), torch.randn(shape.width, shape.inner), torch.ones(2**26)
    return {
        "operations_per_s": 2 * 2048**3 / product(large, large),
        "operations_per_s_model_shape": 2 * 4096 * shape.width * shape.inner / product(rows, weight),
        "bytes_per_s": 2 * copied.numel() * 4 / _best(lambda: copied.copy_(source)),
    }


def _best(work: Callable[[], Any], times: int = 15) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
