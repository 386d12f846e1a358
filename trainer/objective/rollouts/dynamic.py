"""Groups whose rewards are all equal are thrown away and replaced (DAPO). It must not look at shaped rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trainer.batch.types import Rollout
from trainer.contract.about import About
from trainer.contract.settings import ConfigError, require
from trainer.objective.base import Diagnostic
from trainer.objective.rollouts.base import Groups, RolloutPlan, Source, numbered

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic(RolloutPlan):
    """Dynamic sampling: prompts are drawn until ``prompts_per_step`` groups have rewards that differ.

        keep group g   if  max_i reward_i > min_i reward_i  or  group_size = 1
        draw           ceil(oversampling * prompts_per_step) prompts at a time, max_draws times at most
        train on       the first prompts_per_step kept groups

    Rewards are the verifier's own, before shaping. What is drawn and not used is thrown away, and training goes on with
    the prompts after it. ``keep="all"`` is the standard plan.

    Shape: lists of rollouts; cost: ``rollout/generated`` responses a step, and no forward pass of the trainer.
    """

    about: ClassVar[About] = About(
        source="DAPO, arXiv 2503.14476; verl's recipe/dapo",
        status="published",
        departures='no unlimited number of draws; when_short="proceed" is ours',
    )

    prompts_per_step: int = 32
    """P: prompts in one rollout batch."""
    group_size: int = 16
    """G: samples per prompt."""
    temperature: float = 1.0
    """Divides the logits, in the sampler and in the trainer alike."""
    temperature_end: float | None = None
    """Temperature of the last step; None: ``temperature`` throughout."""
    temperature_curve: Literal["linear", "cosine"] = "linear"
    """The way from the one to the other."""
    max_tokens: int = 40
    """Longest response, tokens."""
    keep: Literal["signal", "all"] = "signal"
    """Which groups are trained on; ``all`` switches the filter off."""
    oversampling: float = 3.0
    """Prompts in one draw, as a multiple of ``prompts_per_step`` (DAPO's large script: 1536 for 512)."""
    max_draws: int = 10
    """Draws in one step."""
    when_short: Literal["error", "proceed"] = "error"
    """What happens after the last draw: stop the run, or fill up with groups of equal rewards, as plain GRPO would."""

    def __post_init__(self) -> None:
        RolloutPlan.__post_init__(self)
        require(
            1 <= self.oversampling <= 100,
            "rollout.oversampling",
            self.oversampling,
            "one draw has to hold the prompts of a step: give 1 to 100",
        )
        require(self.max_draws >= 1, "rollout.max_draws", self.max_draws, "at least one draw is needed")

    @property
    def prompts_per_draw(self) -> int:
        """Prompts sampled before the filter looks again."""
        return self.prompts_per_step if self.keep == "all" else math.ceil(self.oversampling * self.prompts_per_step)

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if self.keep == "signal" and self.group_size == 1:
            yield Diagnostic(
                message="dynamic sampling has nothing to compare in groups of one and keeps them all: "
                "raise rollout.group_size, or set rollout=standard",
                fatal=False,
            )

    def collect(self, source: Source, *, step: int, num_steps: int) -> list[Rollout]:
        temperature, count = self.temperature_at(step, num_steps), self.prompts_per_step
        kept: Groups = []
        silent: Groups = []
        for _ in range(self.max_draws):
            prompts = source.next_prompts(self.prompts_per_draw)
            for group in self.groups_of(source, prompts, temperature):
                (kept if self._keeps(group) else silent).append(group)
            if len(kept) >= count:
                return numbered(kept[:count])
        if self.when_short == "error":
            raise ConfigError(
                f"dynamic sampling found {len(kept)} of the {count} prompts of step {step} with differing rewards in "
                f"rollout.max_draws={self.max_draws} draws of {self.prompts_per_draw}: allow more draws, lower "
                "rollout.prompts_per_step, train on other prompts, or set rollout.when_short=proceed"
            )
        return numbered([*kept, *silent][:count])

    def _keeps(self, group: list[Rollout]) -> bool:
        rewards = {rollout.reward for rollout in group}
        return self.keep == "all" or len(rewards) > 1 or len(group) == 1
