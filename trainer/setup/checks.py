"""Combinations that cannot mean anything are refused, and settings that do nothing are named, before anything is
queued.

It must not start an engine or load a model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.evaluation.evaluate import chosen_suites
from trainer.objective.base import Context, Diagnostic
from trainer.setup.build import Run, build_run
from trainer.setup.examine import examine, require_attention, require_device
from trainer.setup.metric_checks import why_not_logged


def problems(config: Mapping[str, Any], *, here: bool = True) -> list[Diagnostic]:
    """Everything that is wrong or surprising about a resolved configuration; ``here``: the run is for this machine."""
    try:
        run = build_run(config)
        if here:
            require_device(run.hardware)
            require_attention(run.model)
        run.engine.require_available()
        for step in (0, max(run.steps - 1, 0)):  # a schedule may end where its target cannot be
            context = Context(seed=run.seed, step=step, num_steps=run.steps)
            run.objective.controlled(run.objective.initial_state(), context)
        run.task.train_prompts()
        if run.evaluation.every:
            chosen_suites(run.task.suites(), run.evaluation)
        left_out = [Diagnostic(message=sentence, fatal=False) for sentence in examine(run, config)]
        return [*left_out, *_combinations(run, config)]
    except ValueError as error:
        return [Diagnostic(message=str(error))]


def _combinations(run: Run, config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    optim, rollout, surrogate, reduction = run.optim, run.rollout, run.objective.surrogate, run.objective.reduction
    if optim.updates_per_rollout > rollout.prompts_per_step:
        yield Diagnostic(
            message=f"optim.updates_per_rollout={optim.updates_per_rollout} needs at least that many prompts a step,"
            f" but rollout.prompts_per_step={rollout.prompts_per_step}: raise the one or lower the other"
        )
    forced, chosen = surrogate.forced_reduction, type(reduction).__name__
    if forced is not None and chosen != forced:
        name = type(surrogate).__name__
        choice = re.sub(r"(?<!^)(?=[A-Z])", "_", forced).lower()
        yield Diagnostic(
            message=f"surrogate {name} is defined with reduction {forced} only, not {chosen}: choose reduction={choice}"
        )
    yield from _shared_targets(run)
    yield from _sharded_weights(run)
    yield from _clip_settings(run, config)
    yield from _searched_metrics(run, config)
    yield from _sampled_calibration(run)
    yield from (Diagnostic(message=note, fatal=False) for note in run.task.notes())
    yield from run.objective.diagnostics(run)
    yield from rollout.diagnostics(run)


def _shared_targets(run: Run) -> Iterator[Diagnostic]:
    """Two controllers of one number: the later would silently win."""
    drivers: dict[str, str] = {}
    for name, controller in sorted(run.objective.controller.items()):
        other = drivers.setdefault(controller.target, name)
        if other != name:
            yield Diagnostic(
                message=f"controllers {other} and {name} both drive {controller.target}: leave one of them"
            )


def _sharded_weights(run: Run) -> Iterator[Diagnostic]:
    """What needs all weights on every rank does not go with sharded ones."""
    key = f"hardware.sharding={run.hardware.sharding}"
    if run.hardware.sharding != "none" and run.model.lora_rank:
        yield Diagnostic(
            message=f"{key} shares out what is trained, and with model.lora_rank={run.model.lora_rank} that is a small "
            "adapter: set hardware.sharding=none, or model.lora_rank=0"
        )
    if run.hardware.sharding != "none" and (run.accounting.ledger_every or run.accounting.ledger_steps):
        yield Diagnostic(
            message=f"{key} leaves no rank all weights, and the entropy ledger moves them all along one direction: set "
            "accounting.ledger_every=0 and no accounting.ledger_steps, or hardware.sharding=none"
        )


def _clip_settings(run: Run, config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """Clip settings that do nothing: a note where one was set, or an error when a factor varies them."""
    surrogate, factor = run.objective.surrogate, config.get("factor") or {}
    keys = factor.get("keys") or [factor.get("key") or ""]
    clips = {"clip_regime", *(f"surrogate.{name}" for name in ("clip_low", "clip_high", *surrogate.clip_settings))}
    swept = [key for key in keys if key in clips]
    varied = f"factor {factor.get('name')} varies {', '.join(swept)}"
    if swept and not surrogate.clip_settings:
        name = type(surrogate).__name__
        yield Diagnostic(message=f"{varied}, but surrogate {name} clips nothing: choose surrogate=ppo_clip")
    if run.optim.num_updates == 1 and surrogate.clip_settings:
        why = "with optim.updates_per_rollout=1 the importance ratio is exactly 1, so clip settings are inert"
        if swept:
            yield Diagnostic(message=f"{varied}, but {why}: set optim.updates_per_rollout=2 or more")
        elif any(
            field.name in ("clip_low", "clip_high", *surrogate.clip_settings)
            and getattr(surrogate, field.name) != field.default
            for field in dataclasses.fields(surrogate)
        ):
            yield Diagnostic(message=why, fatal=False)


def _sampled_calibration(run: Run) -> Iterator[Diagnostic]:
    """Confidence by probability is that of the distribution sampled from: a note where it is not the model's own."""
    suites: dict[tuple[float, float], list[str]] = {}
    for suite in (run.evaluation.suites or run.task.suites()) if run.evaluation.every else ():
        suite_config = run.evaluation.of(suite)
        if suite_config.temperature not in (0, 1) or (suite_config.temperature and suite_config.top_p < 1):
            suites.setdefault((suite_config.temperature, suite_config.top_p), []).append(suite)
    for (temperature, top_p), names in suites.items():
        message = (
            f"ece, brier and auroc of {', '.join(names)} are of what is sampled from (temperature {temperature:g}, "
            f"top-p {top_p:g}), not of the model itself: compare them only between runs that sample alike"
        )
        yield Diagnostic(message=message, fatal=False)


def _searched_metrics(run: Run, config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """A search can only look at what its runs log."""
    search = config.get("search") or {}
    searched = {
        f"search.objectives[{i}].metric": node["metric"] for i, node in enumerate(search.get("objectives") or ())
    }
    searched |= {"search.prune_metric": search["prune_metric"]} if search.get("prune_metric") else {}
    for key, metric in searched.items():
        why = why_not_logged(str(metric), run)
        if why is not None:
            yield Diagnostic(message=f"{key}={metric!r} cannot be used: {why}")
