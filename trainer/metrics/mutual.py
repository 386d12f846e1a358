"""How much a response says of its prompt: mutual information within the prompts of a step.

Entropy cannot tell responses that depend on their prompt from one template with noise; mutual information can.
Source: RAGEN-2 (arXiv 2604.06268), whose exact estimator was not recovered: reconstructed as below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import Rollout

PROMPTS = 8
"""Prompts of a step that are compared; the cost is that of PROMPTS^2 responses."""


def crossed(rollouts: Sequence[Rollout], prompts: int = PROMPTS) -> list[Rollout]:
    """The first response of each of the first K prompts after each of these prompts: K^2 rollouts, response by
    response, K at most ``prompts``. The groups are the numbers of the prompts."""
    first: dict[int, Rollout] = {}
    for rollout in rollouts:
        if rollout.completion_ids:
            first.setdefault(rollout.group, rollout)
    chosen = list(first.values())[:prompts]
    return [
        replace(own, prompt=other.prompt, prompt_ids=other.prompt_ids, group=number)
        for own in chosen
        for number, other in enumerate(chosen)
    ]


def mutual_information(logprobs: Float[Tensor, "K K"]) -> float:
    """I = mean_i [l_ii - log((1/K) sum_j exp l_ij)] in nats, with l_ij the log-prob of response i after prompt j, nats.

    At most log K, where every response is possible after its own prompt only; 0 where all prompts say the same.
    """
    own = logprobs.double()
    marginal = torch.logsumexp(own, dim=1) - math.log(len(own))
    return float((own.diagonal() - marginal).mean())
