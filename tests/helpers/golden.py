"""One fixed batch, and what every preset makes of it: for tests/golden and the script that writes its numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from composed import composed
from omegaconf import OmegaConf
from testbench import CONTEXT, Bench, Toy, off_policy, on_policy

from sweeps.compose.compose import groups
from trainer.contract.components import build_component
from trainer.contract.config import LIST_SLOTS
from trainer.objective.objective import Objective

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "methods.json"
PRESETS = [name for name in groups()["method"] if not name.startswith("tuned/")]
"""Those that a search wrote are this machine's own, and have no golden numbers."""


def objective_of(preset: str) -> Objective:
    """The objective a preset configures."""
    config: Any = OmegaConf.to_container(composed([f"method={preset}"]), resolve=True)
    single = {slot: build_component(config[slot], slot) for slot in ("shaping", "advantage", "surrogate", "reduction")}
    lists: dict[str, Any] = {
        slot: {name: build_component(node, f"{slot}.{name}") for name, node in (config[slot] or {}).items()}
        for slot in LIST_SLOTS
    }
    return Objective(**single, **lists)


def measured(preset: str) -> dict[str, float]:
    """Loss and gradient norm in float64: a first update on the policy's own samples, then a second step off policy."""
    objective, model, numbers = objective_of(preset), Toy(), {}
    context = replace(CONTEXT, step=0)
    state = objective.initial_state()
    for name, batch in (("on_policy", on_policy(model, 5, given=0)), ("off_policy", off_policy(model, 6, given=0))):
        outcome = Bench(model, context=context).step(objective, batch, state)
        norm = sum(float((value.double() ** 2).sum()) for value in outcome.gradient.values()) ** 0.5
        numbers[f"{name}/loss"] = outcome.stats.means()["policy/loss"]
        numbers[f"{name}/grad_norm"] = norm
        state = objective.end_step(
            outcome.state,
            {"policy/entropy": 0.1, "policy/entropy_t1": 0.1, "policy/surprisal": 0.1, "rollout/reward": 0.5},
        )
        context = replace(context, step=2)
    return numbers
