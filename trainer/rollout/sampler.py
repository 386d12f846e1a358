"""From prompts to verified rollouts: order of the data, seeds of the samples, work of each rank.

It must not compute advantages, and it never repeats an RNG stream by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedTokenizerBase

from trainer.batch.types import Prompt, Rollout
from trainer.contract.seeds import derive_seed
from trainer.engine.base import Completion, Engine
from trainer.policy.prompts import prompt_ids
from trainer.runtime.ranks import Ranks
from trainer.tasks.base import Task, verify_all


@dataclass(slots=True)
class PromptStream:
    """The training prompts in the run's order: a new permutation each epoch, drawn from (seed, epoch)."""

    prompts: Sequence[Prompt]
    seed: int
    position: int = 0
    """Prompts taken so far; with (seed, prompts) it says everything, so it is all a checkpoint keeps."""

    @property
    def epoch(self) -> int:
        """Completed passes over the prompts."""
        return self.position // len(self.prompts)

    def take(self, count: int) -> list[Prompt]:
        """The next ``count`` prompts."""
        epoch_indices = [
            divmod(position, len(self.prompts)) for position in range(self.position, self.position + count)
        ]
        orders = {epoch: self._order(epoch) for epoch, _ in epoch_indices}
        chosen = [self.prompts[orders[epoch][index]] for epoch, index in epoch_indices]
        self.position += count
        return chosen

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, "prompts"))
        order: list[int] = torch.randperm(len(self.prompts), generator=generator).tolist()
        return order


@dataclass(slots=True, kw_only=True)
class Sampler:
    """Engine, tokenizer and task together (the ``Source`` of rollout components)."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    task: Task
    stream: PromptStream
    ranks: Ranks
    seed: int
    measure_entropies: Callable[[Sequence[Rollout], float], list[tuple[float, ...]]]
    """Entropy of the policy at every completion token of some rollouts, at a temperature."""
    ends: frozenset[int] = frozenset()
    """Tokens that end a response. Some are no special tokens to the tokenizer, which would print them."""
    step: int = 0
    calls: int = 0
    """Calls of :meth:`sample` in this step: a refill must not repeat the noise of the first draw."""
    generated: list[float] = field(default_factory=list)
    """Rewards of all responses sampled for this step's rollouts, those that were then thrown away included."""

    def begin(self, step: int) -> None:
        """Start the RNG streams of a step."""
        self.step, self.calls, self.generated = step, 0, []

    def next_prompts(self, count: int) -> list[Prompt]:
        """See :class:`trainer.objective.rollouts.base.Source`."""
        return self.stream.take(count)

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
        """See :class:`trainer.objective.rollouts.base.Source`."""
        seeds = [derive_seed(self.seed, self.step, purpose, self.calls, number) for number in range(len(prompts))]
        self.calls += 1
        rollouts = self.complete(
            prompts, samples=samples, temperature=temperature, max_tokens=max_tokens, seeds=seeds, prefixes=prefixes
        )
        judged = verified(rollouts, self.task, self.ranks)
        if purpose == "rollout":
            self.generated += [rollout.reward for rollout in judged]
        return judged

    def entropies(self, rollouts: Sequence[Rollout], *, temperature: float) -> list[tuple[float, ...]]:
        """See :class:`trainer.objective.rollouts.base.Source`."""
        return self.measure_entropies(rollouts, temperature)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """See :class:`trainer.objective.rollouts.base.Source`."""
        return self.tokenizer.batch_decode([[token] for token in token_ids], skip_special_tokens=True)

    def generator(self, purpose: str) -> torch.Generator:
        """See :class:`trainer.objective.rollouts.base.Source`."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, purpose, self.calls))

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int,
        temperature: float,
        max_tokens: int,
        seeds: Sequence[int],
        prefixes: Sequence[tuple[int, ...]] | None = None,
        top_p: float = 1.0,
    ) -> list[Rollout]:
        """Unverified rollouts, prompt by prompt; each rank samples its share and all of them get everything."""
        ids = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        starts = prefixes or [()] * len(prompts)
        local = range(self.ranks.rank, len(prompts), self.ranks.world)
        completions = self.engine.generate(
            [ids[number] + starts[number] for number in local],
            samples=samples,
            temperature=temperature,
            max_tokens=max_tokens - min(map(len, starts), default=0),
            seeds=[seeds[number] for number in local],
            top_p=top_p,
        )
        groups = dict(pair for part in self.ranks.gather(list(zip(local, completions, strict=True))) for pair in part)
        return [
            self._rollout(
                prompts[number],
                ids[number],
                starts[number],
                truncate(completion, max_tokens - len(starts[number])),
                number,
            )
            for number in range(len(prompts))
            for completion in groups[number]
        ]

    def _rollout(
        self, prompt: Prompt, prompt_ids: tuple[int, ...], prefix: tuple[int, ...], completion: Completion, group: int
    ) -> Rollout:
        tokens = prefix + completion.token_ids
        text_tokens = tokens[:-1] if tokens and tokens[-1] in self.ends else tokens
        return Rollout(
            prompt=prompt,
            prompt_ids=prompt_ids,
            completion_ids=tokens,
            sampler_logprobs=(0.0,) * len(prefix) + completion.logprobs,
            sampler_entropies=None if (values := completion.entropies) is None else (0.0,) * len(prefix) + values,
            finish_reason=completion.finish_reason,
            text=str(self.tokenizer.decode(list(text_tokens), skip_special_tokens=True)),
            group=group,
            weight_version=self.engine.weight_version,
            num_context=len(prefix),
        )


def truncate(completion: Completion, max_tokens: int) -> Completion:
    """What the completion would have been under a smaller budget: a token never depends on those after it."""
    if len(completion.token_ids) <= max_tokens:
        return completion
    return Completion(
        token_ids=completion.token_ids[:max_tokens],
        logprobs=completion.logprobs[:max_tokens],
        entropies=None if completion.entropies is None else completion.entropies[:max_tokens],
        finish_reason="length",
    )


def verified(rollouts: Sequence[Rollout], task: Task, ranks: Ranks | None = None) -> list[Rollout]:
    """The rollouts with the task's verdict. Each rank judges its share and all get every verdict: a verifier with a
    limit of time might judge one answer differently on two of them."""
    ranks = ranks or Ranks()
    local = range(ranks.rank, len(rollouts), ranks.world)
    judged = verify_all(task, [(rollouts[number].prompt, rollouts[number].text) for number in local])
    gathered = ranks.gather(list(zip(local, judged, strict=True)))
    verdicts = dict(pair for pairs in gathered for pair in pairs)
    return [replace(rollout, verdict=verdicts[number]) for number, rollout in enumerate(rollouts)]
