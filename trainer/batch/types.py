"""The records that flow through a run: Prompt -> Rollout -> TokenBatch -> TokenTerms -> StepStats.

Everything downstream of :func:`trainer.batch.collate.collate` uses these names and shapes. Nothing here computes.
Letters: N rollouts, T positions, V vocabulary, P prompts, G group size. Log-probs and entropies are in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One problem. ``id`` is unique within a task; ``data`` holds what the verifier needs (JSON-able).

    Example: ``Prompt(id="train-17", text="4,7,3,2=26:", data={"numbers": [4, 7, 3, 2], "target": 26})``.
    """

    id: str
    text: str
    data: dict[str, object] = field(default_factory=dict)
    chat: bool | None = False
    """Whether ``text`` is what a user says in the tokenizer's chat template; None: if the tokenizer has one."""
    system: str | None = None
    """System turn of the chat."""
    examples: tuple[tuple[str, str], ...] = ()
    """Few-shot examples that come before: what was asked and what was answered."""


CORRECT_ABOVE = 0.5
"""A response is correct when the verifier's reward exceeds this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a task's verifier says of one response."""

    reward: float
    """Verifiable reward; 1.0 correct, 0.0 incorrect for the shipped tasks."""
    answer: str | None = None
    """Canonical final answer, used for maj@k, answer diversity and answer entropy. None: no answer could be read."""
    solution: str | None = None
    """Canonical form of a *correct* solution (two spellings of one solution share it). None when incorrect."""
    comparable: bool = True
    """False: an answer was given, but the verifier could not compare it with the correct one, so it scores 0.
    Counted."""
    failed: bool | None = None
    """Whether a verifier hung, crashed or raised, so that it scores 0. Counted. None: none runs in a process of its
    own."""
    anchor: int | None = None
    """Characters of the response up to the end of the step that first reaches the correct answer. None: it never does,
    or the task does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled response, ragged and JSON-able."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """Sampled tokens, the end-of-sequence token included when it was sampled."""
    sampler_logprobs: tuple[float, ...]
    """Log-prob of each completion token under the sampler, nats, after temperature and top-p."""
    finish_reason: str
    """``stop`` (end token sampled) or ``length`` (budget exhausted)."""
    text: str
    """Decoded completion without special tokens."""
    group: int
    """Index of the prompt within the step; rollouts of one prompt share it."""
    weight_version: int
    """Number of optimiser steps the sampling weights had seen."""
    num_context: int = 0
    """Leading completion tokens that were given, not sampled (branching rollouts): context, never loss."""
    verdict: Verdict | None = None
    sampler_entropies: tuple[float, ...] | None = None
    """Entropy of the distribution each completion token was sampled from, nats. None: the engine does not say."""

    @property
    def reward(self) -> float:
        """Reward of a verified rollout; raises if it has not been verified."""
        if self.verdict is None:
            raise ValueError(
                f"rollout of prompt {self.prompt.id} has not been verified; call verify() before its reward"
            )
        return self.verdict.reward

    @property
    def is_correct(self) -> bool:
        """Whether the verifier's reward exceeds :data:`CORRECT_ABOVE`."""
        return self.reward > CORRECT_ABOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Rollouts as a padded batch. **Position t always describes ``targets[:, t]``**; nothing downstream shifts.

    Outside ``mask`` every float is 0 and every id is the padding id.
    """

    inputs: Int[Tensor, "N T"]
    """Token fed at position t."""
    targets: Int[Tensor, "N T"]
    """Token predicted at position t (the next one)."""
    positions: Int[Tensor, "N T"]
    """Index of the input token in its sequence."""
    lengths: Int[Tensor, " N"]
    """Number of real positions of each row (prompt + completion - 1); the rest is padding on the right."""
    prompt_lengths: Int[Tensor, " N"]
    """Number of leading positions whose input token belongs to the prompt; rows of one prompt agree there."""
    mask: Bool[Tensor, "N T"]
    """True where the policy sampled the target, end token included; built from lengths, never from token ids."""
    sampler_logprobs: Float[Tensor, "N T"]
    """Nats, at the sampling temperature."""
    rewards: Float[Tensor, " N"]
    """Reward after shaping."""
    raw_rewards: Float[Tensor, " N"]
    """Reward as the verifier gave it."""
    group: Int[Tensor, " N"]
    """Prompt index within the step."""
    truncated: Bool[Tensor, " N"]
    """True where the response ran out of budget."""
    sampler_entropy: Float[Tensor, "N T"] | None = None
    """Of the distributions that were sampled from, nats. None: the engine does not say."""
    old_logprobs: Float[Tensor, "N T"] | None = None
    """Nats, at the weights that sampled. None until the old-log-prob forward pass (or the first update, see
    update.py)."""
    old_entropy: Float[Tensor, "N T"] | None = None
    """Full-vocabulary entropy in nats, at the weights that sampled."""
    ref_logprobs: Float[Tensor, "N T"] | None = None
    """Nats, under the reference model."""
    advantages: Float[Tensor, "N T"] | None = None
    """Reward units or standard deviations, 0 outside the mask."""
    weights: Float[Tensor, "N T"] | None = None
    """Factor on the policy term, 1 where nothing is weighted."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Further [N, T] or [N] columns that a component put there under its own name."""

    @property
    def num_rows(self) -> int:
        """N."""
        return self.inputs.shape[0]

    @property
    def num_tokens(self) -> int:
        """Sampled tokens in the batch."""
        return int(self.mask.sum())

    def rows(self, index: Tensor) -> TokenBatch:
        """The rows at the indices ``index`` [n], trimmed to their own longest row."""
        width = int(self.lengths[index].max()) if index.numel() else 0

        def cut(value: Tensor) -> Tensor:
            value = value[index]
            return value[:, :width] if value.ndim > 1 else value

        return self._map(cut)

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on another device."""
        return self._map(lambda value: value.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> TokenBatch:
        columns = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "extras"}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in columns.items()}
        return replace(self, **changed, extras={name: change(value) for name, value in self.extras.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBatch(TokenBatch):
    """Rows as the policy loss gets them: old log-probs and advantages are there."""

    old_logprobs: Float[Tensor, "N T"]
    advantages: Float[Tensor, "N T"]

    @staticmethod
    def of(batch: TokenBatch) -> ScoredBatch:
        """The same rows. Raises ValueError where they have no old log-probs or no advantages yet."""
        columns: dict[str, Any] = {spec.name: getattr(batch, spec.name) for spec in fields(TokenBatch)}
        if absent := [name for name in ("old_logprobs", "advantages") if columns[name] is None]:
            raise ValueError(f"rows without {absent[0]} have no policy loss: fill it in first")
        return ScoredBatch(**columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What one forward pass of the policy gives for every position; zero outside the mask."""

    logprobs: Float[Tensor, "N T"]
    """Log-prob of the target, nats, at the sampling temperature."""
    entropy: Float[Tensor, "N T"]
    """Full-vocabulary Shannon entropy, nats."""
    extras: dict[str, Float[Tensor, "N T"]] = field(default_factory=dict)
    """Further statistics, present only if a component asks for them by name (see statistics.py)."""

    def detach(self) -> TokenTerms:
        """The same numbers without a graph."""
        return TokenTerms(
            logprobs=self.logprobs.detach(),
            entropy=self.entropy.detach(),
            extras={name: value.detach() for name, value in self.extras.items()},
        )


@dataclass(slots=True)
class StepStats:
    """Sums and counts of one step; means appear only when it is read. There is no mean of means anywhere."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def add(self, key: str, value: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Add a sum [] in the unit of the metric, and the count [] it is over."""
        self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.counts[key] = self.counts.get(key, 0.0) + float(count)

    def peak(self, key: str, value: Tensor | float) -> None:
        """Keep the largest value [] seen, in the unit of the metric."""
        self.maxima[key] = max(self.maxima.get(key, float("-inf")), float(value))

    def merge(self, other: StepStats) -> None:
        """Take in the sums, counts and maxima of another part of the same step."""
        for key, total in other.sums.items():
            self.add(key, total, other.counts[key])
        for key, value in other.maxima.items():
            self.peak(key, value)

    def means(self) -> dict[str, float]:
        """sum / count for every key with a positive count, and the maxima."""
        means = {key: total / self.counts[key] for key, total in self.sums.items() if self.counts[key] > 0}
        return means | self.maxima


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum [] of ``values`` where ``mask`` (of the same shape) holds, in their units and in float32 at least; safe when
    values off the mask are not finite."""
    kept = torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return kept.sum(dtype=torch.promote_types(values.dtype, torch.float32))
