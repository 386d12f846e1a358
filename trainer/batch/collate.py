"""Rollouts to padded batches. The only place that shifts tokens, and the only place that builds masks (from lengths,
never from ids).

It must not look at rewards beyond copying them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.batch.types import Rollout, TokenBatch


def collate(rollouts: Sequence[Rollout], *, pad_id: int) -> TokenBatch:
    """Rollouts [N] to one batch [N, T], padded on the right; T is the longest sequence minus one.

    Row i holds ``s = prompt + completion``: ``inputs[i, t] = s[t]``, ``targets[i, t] = s[t + 1]``. A completion token
    at ``s[k]`` is therefore described at ``t = k - 1``, where ``mask`` is True unless it was given rather than
    sampled (``num_context``).

    Raises ``ValueError`` when there is nothing to pack, a prompt is empty, or a token has no log-prob.
    """
    if not rollouts:
        raise ValueError("collate() was given no rollouts: the step collected nothing to train on")
    for rollout in rollouts:
        _check(rollout)
    lengths = np.array([len(r.prompt_ids) + len(r.completion_ids) - 1 for r in rollouts])
    shape = (len(rollouts), int(lengths.max()))
    inputs = np.full(shape, pad_id, dtype=np.int64)
    targets = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=bool)
    sampler, entropy = np.zeros((2, *shape), dtype=np.float32)
    has_entropies = all(rollout.sampler_entropies is not None for rollout in rollouts)
    for row, (rollout, length) in enumerate(zip(rollouts, lengths, strict=True)):
        tokens = rollout.prompt_ids + rollout.completion_ids
        inputs[row, :length] = tokens[:-1]
        targets[row, :length] = tokens[1:]
        first = len(rollout.prompt_ids) - 1
        sampler[row, first:length] = rollout.sampler_logprobs
        entropy[row, first:length] = rollout.sampler_entropies if has_entropies else 0.0
        mask[row, first + rollout.num_context : length] = True
    rewards = torch.tensor([r.reward for r in rollouts], dtype=torch.float32)
    return TokenBatch(
        inputs=torch.from_numpy(inputs),
        targets=torch.from_numpy(targets),
        positions=torch.arange(shape[1]).expand(shape).contiguous(),
        lengths=torch.from_numpy(lengths),
        prompt_lengths=torch.tensor([len(r.prompt_ids) for r in rollouts]),
        mask=torch.from_numpy(mask),
        sampler_logprobs=torch.from_numpy(np.where(mask, sampler, np.float32(0))),
        sampler_entropy=torch.from_numpy(np.where(mask, entropy, np.float32(0))) if has_entropies else None,
        rewards=rewards,
        raw_rewards=rewards,
        group=torch.tensor([r.group for r in rollouts]),
        truncated=torch.tensor([r.finish_reason == "length" for r in rollouts]),
    )


def _check(rollout: Rollout) -> None:
    tokens, logprobs = len(rollout.completion_ids), len(rollout.sampler_logprobs)
    if not rollout.prompt_ids:
        raise ValueError(f"prompt {rollout.prompt.id} has no tokens, so nothing predicts its response: give it a text")
    if tokens != logprobs:
        raise ValueError(
            f"a rollout of prompt {rollout.prompt.id} has {tokens} completion tokens but {logprobs} log-probs: "
            "the engine has to return one for each"
        )


def micro_batches(lengths: Tensor, max_tokens: int) -> Iterator[Tensor]:
    """Row indices in micro-batches of at most ``max_tokens`` positions, padding included; rows of like length go
    together.

    ``lengths`` [N]. Every row comes exactly once; a row longer than ``max_tokens`` goes alone.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    start = 0
    while start < len(order):
        width = max(int(lengths[order[start]]), 1)
        stop = min(start + max(max_tokens // width, 1), len(order))
        yield order[start:stop]
        start = stop


def shared_micro_batches(
    lengths: Tensor, prompt_lengths: Tensor, prompt_index: Tensor, max_tokens: int
) -> Iterator[Tensor]:
    """Row indices in micro-batches of at most ``max_tokens`` tokens without padding, each prompt counted once in
    each.

    ``lengths``, ``prompt_lengths``, ``prompt_index`` [N] (number of the row's prompt). Rows of one prompt go together.
    """
    micro_batch: list[int] = []
    tokens, last = 0, -1
    order = torch.argsort(prompt_index, stable=True)
    columns = (order, prompt_lengths[order], (lengths - prompt_lengths)[order], prompt_index[order])
    for row, prompt, response, number in zip(*(column.tolist() for column in columns), strict=True):
        shared = number == last
        if micro_batch and tokens + response + (0 if shared else prompt) > max_tokens:
            yield torch.tensor(micro_batch)
            micro_batch, tokens, shared = [], 0, False
        micro_batch.append(row)
        tokens, last = tokens + response + (0 if shared else prompt), number
    if micro_batch:
        yield torch.tensor(micro_batch)


def mini_batches(group: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """Row indices of ``count`` mini-batches: whole groups, shuffled, sizes as equal as can be.

    ``group`` [N]. Raises ``ValueError`` when there are fewer groups than mini-batches.
    """
    names = torch.unique(group)
    if count == 1:
        return [torch.arange(len(group))]
    if len(names) < count:
        raise ValueError(
            f"optim.updates_per_rollout={count} needs at least that many prompts in a step, got {len(names)}: "
            "raise rollout.prompts_per_step or lower the number of updates"
        )
    shuffled = names[torch.randperm(len(names), generator=generator)]
    return [torch.isin(group, part).nonzero().squeeze(1) for part in torch.tensor_split(shuffled, count)]
