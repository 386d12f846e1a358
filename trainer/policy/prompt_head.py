"""A small network on the mean hidden state of a prompt, trained beside the model: one number a row.

It is a part of the model while a run lives, so that whoever moves or differentiates weights finds it; whoever samples
or stores a plain model does not get it. It must not know what its number stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainer.runtime.sharding import part_of

NAME = "prompt_head"
"""Of the network in the model, of its column among the statistics, and of its entry in a checkpoint."""

SEED = "prompt_head_seed"
"""Column [N] of ``TokenBatch.extras`` that dropout is drawn from, row by row. Without it nothing is dropped."""


class PromptHead(nn.Module):
    """``layers - 1`` times (linear, GELU, layer norm, dropout) of the width of the hidden states, then a linear layer
    to one number."""

    def __init__(self, width: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers - 1))
        self.last = nn.Linear(width, 1)
        self.dropout = dropout

    def forward(self, features: Float[Tensor, "N D"], seeds: Int[Tensor, " N"] | None = None) -> Float[Tensor, " N"]:
        """One number a row, in what units its reader gives it. A row's dropout depends on its seed alone: not on the
        rows beside it, the device, or how often it is asked."""
        kept = self._kept(features, seeds)
        for number, (linear, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            features = norm(nn.functional.gelu(linear(features)))
            if kept is not None:
                features = features * kept[:, number] / (1 - self.dropout)
        return self.last(features).squeeze(1)  # type: ignore[no-any-return]

    def _kept(self, features: Tensor, seeds: Tensor | None) -> Tensor | None:
        """Which numbers [N, layers - 1, D] are kept; None: all of them."""
        if seeds is None or not len(seeds) or not self.dropout:
            return None
        shape = (len(self.hidden), features.shape[1])
        draws = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
        return (torch.stack(draws) >= self.dropout).to(features)


def add_head(model: nn.Module, make: Callable[[int], PromptHead | None], seed: int) -> None:
    """Give ``model`` the network that ``make`` builds for the width of its hidden states, in float32 at least, its
    weights drawn from ``seed``; nothing if that is None."""
    weight = model.get_output_embeddings().weight  # type: ignore[operator]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make(weight.shape[1])
    if head is not None:
        model.add_module(NAME, head.to(weight.device, torch.promote_types(weight.dtype, torch.float32)))


def is_head(name: str) -> bool:
    """Whether a weight of this name belongs to the network."""
    return name.startswith(f"{NAME}.")


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name and tensor [any shape], dimensionless, of the network's weights; empty without one."""
    return {name: weight.detach() for name, weight in model.named_parameters() if is_head(name)}


def state(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint needs beside the model's weights: nothing without the network."""
    weights = head_weights(model)
    return {NAME: weights} if weights else {}


@torch.no_grad()
def resume(model: nn.Module, kept: Mapping[str, Any]) -> None:
    """Take back what :func:`state` gave."""
    for name, weight in head_weights(model).items():
        weight.copy_(part_of(kept[NAME][name], weight))
