"""Combinations that cannot mean anything are refused, and settings that do nothing are named, before anything is
queued.

Called by ``python -m trainer --check``. It must not start an engine or load a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.build import Run, build_run
from trainer.evaluate import chosen_suites
from trainer.objective.base import Context
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.policy import model_path

CLIP_SETTINGS = ("surrogate.clip_low", "surrogate.clip_high", "surrogate.dual_clip", "clip_regime")
"""What a sweep may vary that nothing but clipping depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One sentence about a configuration."""

    sentence: str
    fatal: bool = True
    """False: the run makes sense, but the user should know."""


def problems(config: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong or surprising about a resolved configuration."""
    try:
        run = build_run(config)
        model_path(run.model)
        run.engine.require_available()
        run.objective.controlled(run.objective.initial_state(), Context(seed=run.seed, step=0, num_steps=run.steps))
        run.task.train_prompts()
        if run.evaluation.every:
            chosen_suites(run.task.suites(), run.evaluation)
        return list(_combinations(run, config))
    except ValueError as error:
        return [Problem(sentence=str(error))]


def _combinations(run: Run, config: Mapping[str, Any]) -> Iterator[Problem]:
    optim, rollout, surrogate, reduction = run.optim, run.rollout, run.objective.surrogate, run.objective.reduction
    if optim.updates_per_rollout > rollout.prompts_per_step:
        yield Problem(
            sentence=f"optim.updates_per_rollout={optim.updates_per_rollout} needs at least that many prompts a step,"
            f" but rollout.prompts_per_step={rollout.prompts_per_step}: raise the one or lower the other"
        )
    if rollout.group_size == 1 and type(run.objective.advantage).__name__ == "GRPO":
        why = "rollout.group_size=1 leaves GRPO nothing to compare with, so advantages are plain rewards"
        yield Problem(sentence=why, fatal=False)
    forced, given = surrogate.forced_reduction, type(reduction).__name__
    if forced is not None and given != forced:
        name = type(surrogate).__name__
        yield Problem(sentence=f"surrogate {name} is defined with reduction {forced} only, not {given}")
    if optim.num_updates == 1 and isinstance(surrogate, PPOClip):
        yield _inert_clip(config)


def _inert_clip(config: Mapping[str, Any]) -> Problem:
    """With one update per rollout the ratio is 1 and no threshold is crossed: a note, or an error when it is swept."""
    factor = config.get("factor") or {}
    keys = factor.get("keys") or [factor.get("key") or ""]
    swept = [key for key in keys if key in CLIP_SETTINGS]
    why = "with optim.updates_per_rollout=1 the importance ratio is exactly 1, so clip settings are inert"
    if not swept:
        return Problem(sentence=why, fatal=False)
    varied = f"factor {factor.get('name')} varies {', '.join(swept)}"
    return Problem(sentence=f"{varied}, but {why}: set optim.updates_per_rollout=2 or more")
