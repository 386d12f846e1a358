"""A source of rollouts whose rewards, texts and entropies a test writes down. Used by tests/rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from trainer.batch.types import Prompt, Rollout, Verdict


@dataclass
class ScriptedSource:
    """Prompt n of the stream is ``p<n>``; ``rewards(n)`` are those of its samples, over and over.

    A sample is the given tokens, then new ones (100, 101, ... in the whole run) up to ``length`` tokens in all, then
    the end token 0. Tokens are written with two characters, but for token 7, a blank, which stands at place ``blank``.
    """

    rewards: Callable[[int], Sequence[float]] = lambda number: (0.0, 1.0)
    length: int = 4
    entropy: Callable[[Rollout], Sequence[float]] = lambda rollout: [1.0] * len(rollout.completion_ids)
    blank: int | None = None
    position: int = 0
    calls: list[dict[str, object]] = field(default_factory=list)
    measured: int = 0
    made: int = 100

    def next_prompts(self, count: int) -> list[Prompt]:
        self.position += count
        return [Prompt(id=f"p{number}", text="q") for number in range(self.position - count, self.position)]

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int,
        temperature: float,
        max_tokens: int,
        purpose: str = "rollout",
        prefixes: Sequence[tuple[int, ...]] | None = None,
    ) -> list[Rollout]:
        self.calls.append(
            {"prompts": len(prompts), "samples": samples, "temperature": temperature, "limit": max_tokens}
        )
        given = prefixes or [()] * len(prompts)
        return [
            self._rollout(prompt, prefix, group, sample)
            for group, (prompt, prefix) in enumerate(zip(prompts, given, strict=True))
            for sample in range(samples)
        ]

    def _rollout(self, prompt: Prompt, prefix: tuple[int, ...], group: int, sample: int) -> Rollout:
        new = tuple(range(self.made, self.made + self.length - len(prefix)))
        self.made += len(new)
        tokens = (*prefix, *(7 if place == self.blank else token for place, token in enumerate(new, len(prefix))), 0)
        rewards = self.rewards(int(prompt.id[1:]))
        return Rollout(
            prompt=prompt,
            prompt_ids=(1, 2),
            completion_ids=tokens,
            sampler_logprobs=(0.0,) * len(prefix) + (-1.0,) * (len(new) + 1),
            finish_reason="stop",
            text="",
            group=group,
            weight_version=0,
            num_context=len(prefix),
            verdict=Verdict(reward=rewards[sample % len(rewards)]),
        )

    def entropies(self, rollouts: Sequence[Rollout], *, temperature: float) -> list[tuple[float, ...]]:
        self.measured += len(rollouts)
        return [tuple(self.entropy(rollout)) for rollout in rollouts]

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        return ["" if token == 0 else " " if token == 7 else "ab" for token in token_ids]

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(len(self.calls))
