"""Token terms and batches with numbers chosen by hand, for tests of a single member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from testbench import CONTEXT, PAD, make_rollouts, widened
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.objective.base import Context
from trainer.objective.surrogates.ppo_clip import PPOClip

Rows = Sequence[Sequence[float]]

HERE: Context = replace(CONTEXT, surrogate=PPOClip())
"""Where a weight is asked, with the surrogate of plain GRPO."""


def handmade(
    logprobs: Rows,
    advantages: Rows,
    *,
    old: Rows | None = None,
    entropy: Rows | None = None,
    old_entropy: Rows | None = None,
    mask: Sequence[Sequence[bool]] | None = None,
) -> tuple[TokenTerms, ScoredBatch]:
    """Rows of tokens in float64; current log-probs and entropies are leaves, the old ones equal them unless given."""
    current = torch.tensor(logprobs, dtype=torch.float64)
    spread = torch.zeros_like(current) if entropy is None else torch.tensor(entropy, dtype=torch.float64)
    old_values = current.clone() if old is None else torch.tensor(old, dtype=torch.float64)
    template = collate(make_rollouts(groups=1, group_size=len(current), given=0), pad_id=PAD)
    template = widened(template, current.shape[1] - template.inputs.shape[1])
    batch = ScoredBatch.of(
        replace(
            template,
            mask=torch.ones_like(current, dtype=torch.bool) if mask is None else torch.tensor(mask),
            advantages=torch.tensor(advantages, dtype=torch.float64),
            sampler_logprobs=old_values,
            old_logprobs=old_values,
            old_entropy=spread.clone() if old_entropy is None else torch.tensor(old_entropy, dtype=torch.float64),
        )
    )
    return TokenTerms(logprobs=current.clone().requires_grad_(), entropy=spread.clone().requires_grad_()), batch


def gradient(loss: Tensor, terms: TokenTerms) -> list[list[float]]:
    """Gradient of the summed loss with respect to the log-probs."""
    rows: list[list[float]] = torch.autograd.grad(loss.sum(), terms.logprobs)[0].tolist()
    return rows
