"""Figures of a base model for its card: reward, pass@k, entropy and length by suite, with plain transformers.

It is no part of a run: runs sample with their engine and evaluate with :mod:`trainer.evaluation.evaluate`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.batch.types import Prompt
from trainer.tasks.base import Task

NEARLY_CERTAIN = 0.05
"""Nats below which a response token counts as nearly certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What was drawn for one prompt: rewards and texts [samples], flat entropies in nats of all response tokens."""

    rewards: list[float]
    texts: list[str]
    entropies: list[float]
    lengths: list[int]
    finished: list[bool]


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: torch.Tensor,
    samples: int,
    max_tokens: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [P*samples, max_tokens] and full-vocabulary entropy in nats of the same shape, at temperature 1.

    ``prompt_ids`` [P, L] hold prompts of one length, so no padding is needed. Rows go on after their end token;
    what follows it is the pad token with entropy 0.
    """
    ids = prompt_ids.repeat_interleave(samples, dim=0)
    alive = torch.ones(len(ids), dtype=torch.bool)
    cache, tokens, entropies = None, [], []
    for _ in range(max_tokens):
        out = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logprobs = torch.log_softmax(out.logits[:, -1].float(), dim=-1)
        probabilities = logprobs.exp()
        picked = torch.multinomial(probabilities, 1, generator=generator)
        tokens.append(torch.where(alive, picked[:, 0], tokenizer.pad_token_id))
        entropies.append(torch.where(alive, -(probabilities * logprobs).sum(-1), 0.0))
        alive = alive & (picked[:, 0] != tokenizer.eos_token_id)
        if not alive.any():
            break
        ids = picked
    return torch.stack(tokens, dim=1), torch.stack(entropies, dim=1)


def sample_suite(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    prompts: list[Prompt],
    samples: int,
    max_tokens: int,
    seed: int,
) -> list[Sampled]:
    """Draw ``samples`` responses to every prompt; prompts of one length share a batch of at most 64."""
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[tuple[Prompt, list[int]]]] = defaultdict(list)
    for prompt in prompts:
        ids = tokenizer(prompt.text)["input_ids"]
        by_length[len(ids)].append((prompt, ids))
    rollouts = []
    for _, same in sorted(by_length.items()):
        for start in range(0, len(same), 64):
            part = same[start : start + 64]
            prompt_ids = torch.tensor([ids for _, ids in part])
            tokens, entropies = sample(model, tokenizer, prompt_ids, samples, max_tokens, generator)
            for index, (prompt, _) in enumerate(part):
                rows = slice(index * samples, (index + 1) * samples)
                rollouts.append(_judge(task, prompt, tokenizer, tokens[rows], entropies[rows]))
    return rollouts


def _judge(
    task: Task, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, tokens: torch.Tensor, entropies: torch.Tensor
) -> Sampled:
    lengths = (tokens != tokenizer.pad_token_id).sum(dim=1).tolist()
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Sampled(
        rewards=[task.verify(prompt, text).reward for text in texts],
        texts=texts,
        entropies=[value for row, length in zip(entropies.tolist(), lengths, strict=True) for value in row[:length]],
        lengths=lengths,
        finished=(tokens == tokenizer.eos_token_id).any(dim=1).tolist(),
    )


def pass_at(k: int, rewards: list[float]) -> float:
    """Unbiased pass@k = 1 - C(n-c, k)/C(n, k) for n samples of which c are correct."""
    n, num_correct = len(rewards), sum(reward > 0 for reward in rewards)
    return 1.0 - math.comb(n - num_correct, k) / math.comb(n, k)


def figures(sampled: list[Sampled]) -> dict[str, float]:
    """The row of the model card for one suite; entropy per response token, end token included."""
    samples = len(sampled[0].rewards)
    total = len(sampled) * samples
    entropies = [value for one in sampled for value in one.entropies]
    return {
        "reward": sum(sum(one.rewards) for one in sampled) / total,
        **{
            f"pass_at_{k}": sum(pass_at(k, one.rewards) for one in sampled) / len(sampled)
            for k in (4, 16)
            if k <= samples
        },
        "mixed_groups_frac": sum(0 < sum(one.rewards) < samples for one in sampled) / len(sampled),
        "distinct_frac": sum(len(set(one.texts)) for one in sampled) / total,
        "entropy_nats": sum(entropies) / len(entropies),
        "nearly_certain_frac": sum(value < NEARLY_CERTAIN for value in entropies) / len(entropies),
        "length_mean": sum(sum(one.lengths) for one in sampled) / total,
        "length_max": float(max(max(one.lengths) for one in sampled)),
        "finished_frac": sum(sum(one.finished) for one in sampled) / total,
    }
