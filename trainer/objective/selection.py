"""Which tokens of a mini-batch stand out: covariance, the largest few, a quantile, a random draw.

Pure functions over [N, T] columns that look at masked tokens only; they must not know any method.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.metrics.estimators import covariance


def masked_covariance(
    logprobs: Float[Tensor, "N T"], advantages: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """:func:`trainer.metrics.estimators.covariance` with means over the mask; 0 outside it. Nats times
    units of the advantage."""
    value = torch.zeros_like(logprobs)
    if not bool(mask.any()):
        return value
    return value.masked_scatter(mask, covariance(logprobs[mask], advantages[mask].to(logprobs.dtype)))


def num_selected(fraction: float, total: int) -> int:
    """``max(1, floor(fraction * total))`` tokens, and none for a fraction of 0 or of nothing."""
    # 0.3 * 10 is a little less than 3 in floating point, and 3 is what is meant.
    return max(1, int(fraction * total + 1e-9)) if fraction > 0 and total else 0


def largest(values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], count: int) -> Bool[Tensor, "N T"]:
    """Mask of the ``count`` masked tokens of largest value, in any units; of equal ones, those in earlier rows."""
    order = values[mask].argsort(descending=True, stable=True)
    return _marked(mask, order[:count])


def random_subset(eligible: Bool[Tensor, "N T"], count: int, generator: torch.Generator) -> Bool[Tensor, "N T"]:
    """Mask, dimensionless, of ``count`` eligible tokens, drawn uniformly and without replacement; all of them where
    there are fewer."""
    order = torch.randperm(int(eligible.sum()), generator=generator)
    return _marked(eligible, order[:count].to(eligible.device))


def quantile(values: Float[Tensor, " M"], q: float) -> Float[Tensor, ""]:
    """The ``q``-quantile of at least one value, interpolated linearly between order statistics, in the
    units of ``values``.

    ``torch.quantile`` does the same, for up to 16 million values only.
    """
    ordered = values.sort().values
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def above_row_quantile(values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], q: float) -> Bool[Tensor, "N T"]:
    """Mask [N, T], dimensionless, of the tokens whose value lies above the :func:`quantile` of their own row."""
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    ordered = values.detach().masked_fill(~mask, torch.inf).sort(dim=1).values
    position = q * (count - 1)
    below = position.long()
    low, high = ordered.gather(1, below), ordered.gather(1, torch.minimum(below + 1, count - 1))
    return mask & (values.detach() > low + (position - below) * (high - low))


def _marked(mask: Bool[Tensor, "N T"], chosen: Tensor) -> Bool[Tensor, "N T"]:
    """The tokens whose index among the masked ones is in ``chosen``."""
    among = torch.zeros(int(mask.sum()), dtype=torch.bool, device=mask.device)
    among[chosen] = True
    return torch.zeros_like(mask).masked_scatter(mask, among)
