"""PAR's epoch schedule of the positive weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainer.contract.about import About
from trainer.objective.base import Context, Controller, Diagnostic, State

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ParEpoch(Controller):
    """The weight of positive advantages rises from 0 to 1 with every pass over the training prompts.

        weight = min(1, epoch / (num_epochs - 1)),  1 with a single epoch

    ``epoch`` counts from 0; ``num_epochs`` is the number of whole passes that the run's prompts make. Both count
    prompts that are trained on, so the schedule has one pace whatever dynamic sampling throws away.

    Shape: one number a step; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            'positive-advantage reweighting, "Revisiting Entropy in RL for Large Reasoning Models", arXiv '
            "2511.05993, read through secondary notes"
        ),
        status="published",
        departures=(
            "1 where one epoch makes the rule 0 / 0, and in an unfinished pass after the last whole one; prompts that "
            "dynamic sampling throws away do not count"
        ),
    )

    target: str = "weight.sign.positive"

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        num_drawn, prompts = run.steps * run.rollout.prompts_per_step, len(run.task.train_prompts())
        if num_drawn < 2 * prompts:
            yield Diagnostic(
                message=f"controller par_epoch raises a weight with every pass over the training prompts, but the run"
                f" draws {num_drawn} and the task has {prompts}, so the weight is 1 throughout: use fewer prompts"
                " (task.num_prompts) or more steps",
                fatal=False,
            )

    def value(self, state: State, context: Context) -> float:
        return min(1.0, context.epoch / (context.num_epochs - 1)) if context.num_epochs > 1 else 1.0
