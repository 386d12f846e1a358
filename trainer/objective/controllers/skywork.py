"""Skywork-OR1's adaptive entropy control: a coefficient that climbs in steps while entropy is below a target. Called
through the ``controller`` slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range, require
from trainer.objective.base import Context, State
from trainer.objective.controllers.rollout_entropy import EntropyServo, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Skywork(EntropyServo):
    """The coefficient of an entropy bonus goes up by a step below the target, down by one above it, and is gated.

        c        = c + step if entropy < target_entropy, c - step if entropy > target_entropy     after every step
        coef     = c * open

        paper      open = entropy of this step's rollouts <= target_entropy; equality leaves c alone
        released   open = entropy of the last step's rollouts < target_entropy, 1 in the first step; equality lowers c

    ``c`` starts at ``start`` and stays in [``coef_min``, ``coef_max``]. ``entropy`` is, as in the authors' code, minus
    the mean log-prob of the sampled tokens (``estimate=sampled``), or the exact one of the full vocabulary
    (``estimate=exact``, with the paper's gate one more forward pass a step).

    Shape: one number a step; coef in loss units per nat, entropies in nats.
    """

    about: ClassVar[About] = About(
        source=(
            "Skywork-OR1, arXiv 2505.22312, section 3.2.5; the authors' EntController, whose scripts step by 1e-4 "
            'up to 0.005 (method=skywork_released); "Ada-Ent-Reg" of arXiv 2511.05993 is this controller'
        ),
        status="published",
        departures="coef_min 0 and coef_max 1 bound the paper's c, which states no bounds; TRL bounds it by 1 too",
        released={"gate": "released"},
    )

    target: str = "regularizer.entropy_bonus.coef"
    target_entropy: Annotated[float, Range(0, 100)] = 0.2
    """Nats per token."""
    step: float = 0.005
    """Change of the coefficient per training step; 1e-4 in the released scripts."""
    start: float = 0.0
    """Coefficient of the first step."""
    coef_min: float = 0.0
    coef_max: float = 1.0
    """0.005 in the released scripts."""
    gate: Literal["paper", "released"] = "paper"
    """When the bonus is switched off, and what equality means."""
    estimate: Estimate = "sampled"
    """Entropy by the sampled tokens' log-probs, or over the full vocabulary."""

    def __post_init__(self) -> None:
        require(self.step >= 0, "controller.skywork.step", self.step, "give a step of at least 0")
        require(
            self.coef_min <= self.start <= self.coef_max,
            "controller.skywork.start",
            self.start,
            f"it lies between controller.skywork.coef_min={self.coef_min} and "
            f"controller.skywork.coef_max={self.coef_max}",
        )

    def initial_state(self) -> State:
        return {"coef": self.start, "open": True}

    def value(self, state: State, context: Context) -> float:
        return float(state["coef"]) if state["open"] else 0.0

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        if self.gate == "released":
            return state
        return state | {"open": self.entropy(batch, context) <= self.target_entropy}

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        entropy = metrics["policy/surprisal" if self.estimate == "sampled" else "policy/entropy"]
        below, above = entropy < self.target_entropy, entropy > self.target_entropy
        if self.gate == "released":
            above = not below
        coef = state["coef"] + self.step * (below - above)
        opened = below if self.gate == "released" else state["open"]
        return {"coef": min(max(coef, self.coef_min), self.coef_max), "open": opened}
