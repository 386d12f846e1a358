"""POLARIS: the sampling temperature goes up, stage by stage, as the responses become alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Controller, Diagnostic, State

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureByDiversity(Controller):
    """After a stage of less n-gram diversity than the first one had, the temperature is a step higher.

        diversity_s     = mean over the steps of stage s of diversity/ngram
        temperature_1   = rollout.temperature
        temperature_s+1 = min(temperature_s + increment, temperature_max)    if diversity_s < diversity_1
                          temperature_s                                      otherwise

    The trainer divides its logits by the temperature that the step was sampled at.

    Shape: one number a step; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            "POLARIS (hkunlp.github.io/blog/2025/Polaris), from general knowledge: the temperature is chosen so that "
            "the diversity of the samples stays at its initial level, and raised between stages of training"
        ),
        status="reconstructed",
        departures=(
            "they choose by hand between three stages, by n-grams of a sample drawn for it; here stages have one "
            "length, the increment is given, and the diversity is that of the rollouts"
        ),
    )

    target: str = "rollout.temperature"
    stage: Annotated[int, Range(1)] = 10
    """Steps of a stage."""
    increment: Annotated[float, Range(0, 100)] = 0.05
    """What is added between two stages."""
    temperature_max: Annotated[float, Range(0.01, 100)] = 1.5
    """Where it ends."""

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if run.rollout.temperature_end is not None:
            why = "controller TemperatureByDiversity and rollout.temperature_end both move the temperature"
            yield Diagnostic(message=f"{why}: set rollout.temperature_end=null")

    def initial_state(self) -> State:
        return {"temperature": 1.0, "level": None, "total": 0.0, "steps": 0}

    def setup(self, state: State, context: Context) -> State:
        assert context.services is not None
        return state | {"temperature": context.services.temperature}

    def value(self, state: State, context: Context) -> float:
        return float(state["temperature"])

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        diversity = metrics.get("diversity/ngram")
        if diversity is None:  # no response had a token
            return state
        state = state | {"total": state["total"] + diversity, "steps": state["steps"] + 1}
        return self._next_stage(state) if state["steps"] == self.stage else state

    def _next_stage(self, state: State) -> State:
        diversity, temperature = state["total"] / self.stage, state["temperature"]
        level = diversity if state["level"] is None else state["level"]
        raised = max(temperature, min(temperature + self.increment, self.temperature_max))
        return {
            "temperature": raised if diversity < level else temperature,
            "level": level,
            "total": 0.0,
            "steps": 0,
        }
