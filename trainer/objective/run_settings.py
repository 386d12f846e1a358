"""The protocol of what a member may read of the configuration of its run, before anything is queued.

The objective must not import the module that builds a run; :class:`trainer.setup.build.Run` implements this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trainer.contract.config import ModelConfig, OptimConfig
from trainer.tasks.base import Task

if TYPE_CHECKING:
    from trainer.objective.objective import Objective
    from trainer.objective.rollouts.base import RolloutPlan


class RunSettings(Protocol):
    """The settings that decide whether a member makes sense."""

    @property
    def steps(self) -> int:
        """Training steps."""
        ...

    @property
    def task(self) -> Task:
        """Prompts and verifier."""
        ...

    @property
    def model(self) -> ModelConfig:
        """The model that is trained."""
        ...

    @property
    def rollout(self) -> RolloutPlan:
        """Prompts per step, group size, response budget, temperature."""
        ...

    @property
    def optim(self) -> OptimConfig:
        """Updates per rollout batch."""
        ...

    @property
    def objective(self) -> Objective:
        """The member itself and its neighbours."""
        ...
