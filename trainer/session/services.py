"""What rollout components and members of the objective may ask of a run: samples, forward passes, expert responses.

Made by ``session.py``. It must not change weights or state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.batch.collate import collate
from trainer.batch.types import Prompt, Rollout, TokenBatch, TokenTerms
from trainer.policy.policy import Policy
from trainer.policy.prompts import prompt_ids
from trainer.rollout.sampler import Sampler, verified
from trainer.update.gradient import Learner, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionServices:
    """The services of a running session (see :class:`trainer.objective.run_services.RunServices`)."""

    sampler: Sampler
    learner: Learner
    rollouts: Sequence[Rollout]
    temperature: float
    max_tokens: int
    reference: Policy | None = None

    @property
    def train_prompts(self) -> Sequence[Prompt]:
        return self.sampler.stream.prompts

    def sample(self, prompts: Sequence[Prompt], *, samples: int, purpose: str) -> list[Rollout]:
        return self.sampler.sample(
            prompts, samples=samples, temperature=self.temperature, max_tokens=self.max_tokens, purpose=purpose
        )

    def collate(self, rollouts: Sequence[Rollout]) -> TokenBatch:
        return collate(rollouts, pad_id=pad_id(self.sampler.tokenizer))

    def measure(self, batch: TokenBatch, statistics: Iterable[str] = ()) -> TokenTerms:
        return measure(self.learner, batch, statistics)

    def states(self, batch: TokenBatch) -> Float[Tensor, "N D"]:
        """Of the reference policy, dimensionless; every rank measures its share."""
        assert self.reference is not None, "a member that asks for states declares needs_states"
        ranks = self.learner.ranks
        return ranks.sum(self.reference.mean_states(batch, rank=ranks.rank, world=ranks.world))

    def expert(self, prompt: Prompt) -> Rollout | None:
        text, tokenizer = self.sampler.task.expert(prompt), self.sampler.tokenizer
        if text is None:
            return None
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rollout = Rollout(
            prompt=prompt,
            prompt_ids=prompt_ids(tokenizer, prompt),
            completion_ids=tuple(ids),
            sampler_logprobs=(0.0,) * len(ids),
            finish_reason="stop",
            text=text,
            group=0,
            weight_version=self.sampler.engine.weight_version,
        )
        return verified([rollout], self.sampler.task)[0]


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token id for positions that hold nothing."""
    token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(token)


def completion_entropies(
    learner: Learner, tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout], temperature: float
) -> list[tuple[float, ...]]:
    """Full-vocabulary entropy at every sampled completion token, nats; 0 at tokens that were given."""
    batch = collate(rollouts, pad_id=pad_id(tokenizer))
    entropy = measure(learner, batch, policy=replace(learner.policy, temperature=temperature)).entropy
    first = [len(rollout.prompt_ids) - 1 for rollout in rollouts]
    return [
        tuple(entropy[row, start : start + len(rollout.completion_ids)].tolist())
        for row, (start, rollout) in enumerate(zip(first, rollouts, strict=True))
    ]
