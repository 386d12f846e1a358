"""The protocol of what a member of the objective may ask of the run before the first update of a step.

The objective must not import the session, which is above it; ``trainer/session/services.py`` implements this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import Prompt, Rollout, TokenBatch, TokenTerms


class RunServices(Protocol):
    """What a component may ask of the run before the first update of a step, all of it at the weights that sampled."""

    @property
    def train_prompts(self) -> Sequence[Prompt]:
        """The prompts that training draws from."""
        ...

    @property
    def temperature(self) -> float:
        """What the logits of this step are divided by; a schedule moves it."""
        ...

    @property
    def rollouts(self) -> Sequence[Rollout]:
        """The rollouts of this step, in the order of the batch's rows; empty before the first step."""
        ...

    def sample(self, prompts: Sequence[Prompt], *, samples: int, purpose: str) -> list[Rollout]:
        """Verified rollouts at the run's temperature and budget, ``samples`` per prompt, on a stream of ``purpose``."""
        ...

    def collate(self, rollouts: Sequence[Rollout]) -> TokenBatch:
        """Rollouts as a padded batch."""
        ...

    def measure(self, batch: TokenBatch, statistics: Iterable[str] = ()) -> TokenTerms:
        """Log-probs, entropy and ``statistics`` of rows, without gradient: one forward pass."""
        ...

    def states(self, batch: TokenBatch) -> Float[Tensor, "N D"]:
        """Mean over each row's sampled positions of the last hidden states of the reference model, dimensionless, on
        the CPU: one forward pass without the output layer, for members with ``needs_states``."""
        ...

    def expert(self, prompt: Prompt) -> Rollout | None:
        """The task's own correct answer as a rollout (log-probs 0), or None where it has none."""
        ...
