"""ProRL: when the reward stalls, the policy becomes its own reference and the optimiser starts anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Controller, Diagnostic, State

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceReset(Controller):
    """The step whose first weights are the reference: divergence is measured from there, AdamW's moments begin there.

        reward_s = mean over the steps of window s of rollout/reward
        reset after window s    if when = always, or reward_s <= the best window's since the last reset

    Shape: one number a step; a step.
    """

    about: ClassVar[About] = About(
        source="ProRL, arXiv 2505.24864, from general knowledge: hard resets of reference and optimiser when the "
        "validation score stalls",
        status="reconstructed",
        departures=(
            "they reset by hand, eight runs in a row; here the rewards of the rollouts decide, window by window; the "
            "learning rate has no second warm-up"
        ),
    )

    target: str = "reference.step"
    window: Annotated[int, Range(1)] = 200
    """Steps between two looks at the reward."""
    when: Literal["stalled", "always"] = "stalled"
    """Whether it takes a stalled reward, or just the end of a window."""

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if not run.objective.keeps_reference:
            why = "no member looks at a reference, so controller ReferenceReset does nothing but to reset the optimiser"
            yield Diagnostic(message=f"{why}: add regularizer=[kl_reference]", fatal=False)

    def initial_state(self) -> State:
        return {"reset_at": 0, "steps": 0, "total": 0.0, "best": None}

    def value(self, state: State, context: Context) -> float:
        return float(state["reset_at"])

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        state = state | {"steps": state["steps"] + 1, "total": state["total"] + metrics["rollout/reward"]}
        if state["steps"] % self.window:
            return state
        reward, best = state["total"] / self.window, state["best"]
        if self.when == "always" or (best is not None and reward <= best):
            return state | {"reset_at": state["steps"], "total": 0.0, "best": None}
        return state | {"total": 0.0, "best": reward}
