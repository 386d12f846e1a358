"""The training loop: a run from its first rollout to its last checkpoint. Start reading the trainer here.

A step takes weights version v to v + N_upd; its line in ``metrics.jsonl`` describes the rollouts and the evaluation
at the weights *before* the update, so step 0 is the base model and a last line at ``steps`` is the final one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from trainer.batch.types import Rollout, TokenBatch
from trainer.engine.base import EnginePool
from trainer.kept import keep_rollouts, with_row_numbers
from trainer.objective.base import Context, State
from trainer.objective.objective import Objective
from trainer.observe import (
    accounting_metrics,
    accounting_rows,
    controlled_values,
    evaluation_metrics,
    ledger_metrics,
    mutual_information_metrics,
    open_ledger,
    sample_rows,
    step_metrics,
)
from trainer.runtime.stopwatch import Stopwatch
from trainer.session.session import Session, open_session
from trainer.setup.build import Run
from trainer.storage.record import RunFolder
from trainer.update.gradient import measure
from trainer.update.logprob_gap import EngineMismatch
from trainer.update.update import update

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every step with (step, steps, all metrics)."""


def train(
    run: Run,
    folder: RunFolder,
    engines: EnginePool,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    durable: Callable[[int], None] = lambda step: None,
    progress: Progress = lambda step, steps, metrics: None,
) -> str:
    """Train from the last checkpoint to the end, or until asked to leave.

    Returns the state the run is left in: COMPLETED, CANCELLED or PRUNED (a STOP file was found, from a person or from
    a search) or PREEMPTED (``interrupted`` said so). ``durable`` hears which recorded steps can no longer change, first
    of all where the run begins (-1: nothing is recorded); ``progress`` hears of every step.
    """
    folder.begin_phase("loading model")
    session = open_session(run, folder, engines)
    folder.begin_phase("preparing")
    session.setup()
    main, saved = session.ranks.is_main, session.step
    durable(session.step - 1)
    folder.begin_phase("evaluating" if run.evaluation.due(session.step, run.steps) else "first step")
    while session.step < run.steps:
        state = _asked_to_leave(session, interrupted)
        if state is None:
            watch, start, step = Stopwatch(), time.perf_counter(), session.step
            metrics = evaluation_metrics(session, watch) | train_step(session, watch)
            timings = watch.timings(metrics["rollout/num_tokens"], time.perf_counter() - start)
            if main:
                folder.append(step, metrics, timings, time.time())
                folder.write_status("RUNNING", session.step, run.steps)
                progress(step, run.steps, metrics | timings)
        due = state or session.step % run.checkpoint.every == 0 or session.step == run.steps
        if due and session.step > saved:
            session.save()
            saved = session.step
            durable(session.step - 1)
        if state:
            return state
    watch = Stopwatch()
    metrics = evaluation_metrics(session, watch)
    if main and metrics:
        folder.append(run.steps, metrics, watch.times, time.time())
        progress(run.steps, run.steps, metrics | watch.times)
    return "COMPLETED"


def _asked_to_leave(session: Session, interrupted: Callable[[], bool]) -> str | None:
    """The state to leave in, if anybody wants the run to end at this step boundary.

    STOP counts for more: a preempted run is queued again, a stopped one is not. The file stays where it is, so the run
    stays stopped however often it is started; whoever wants it to go on removes the file first.
    """
    folder, ranks = session.folder, session.ranks
    requests = {"CANCELLED": folder.cancel_requested, "PRUNED": folder.stop_requested, "PREEMPTED": interrupted()}
    # Every rank asks for every state: `any` is a collective.
    requested = [state for state, on_this_rank in requests.items() if ranks.any(on_this_rank)]
    return requested[0] if requested else None


def train_step(session: Session, watch: Stopwatch) -> dict[str, float]:
    """Rollouts, advantages, updates, weight sync: one step, and its metrics."""
    run, sampler, step = session.run, session.sampler, session.step
    context = session.context()
    plan = session.begin_step()
    with watch("generate"):
        rollouts = plan.collect(sampler, step=step, num_steps=run.steps)
    _check_version(rollouts, session.version)
    services = session.services(rollouts)
    with_services = replace(context, services=services)
    with watch("pack"):
        batch = services.collate(rollouts)
        session.state = session.state | run.objective.begin_controllers(session.state, batch, with_services)
        objective = run.objective.controlled(session.state, context)
        batch = with_advantages(batch, objective, with_services, session.state)
    with watch("reference"):
        if objective.needs_reference:
            terms = measure(session.learner, batch, policy=session.reference.policy)
            batch = replace(batch, ref_logprobs=terms.logprobs)
    with watch("prepare"):
        session.state = session.state | objective.begin_step(session.state, batch, with_services)
        batch = objective.with_columns(session.state, batch, with_services)
    batch = with_row_numbers(session, batch)
    before, ledger = accounting_rows(session, batch, watch), open_ledger(session, objective, batch)
    information = mutual_information_metrics(session, rollouts, watch)
    with watch("update"):
        batch, stats = update(
            session.learner,
            objective,
            batch,
            context,
            session.state,
            version=session.version,
            watch=watch,
            note_ratios=before is not None,
            observer=ledger,
        )
    session.version += run.optim.num_updates
    with watch("sync"):
        session.sync()
    with watch("metrics"):
        metrics = step_metrics(session, rollouts, batch, stats) | controlled_values(session, objective)
    metrics |= accounting_metrics(session, before, batch, watch) | ledger_metrics(session, ledger, watch) | information
    session.state = session.state | objective.end_step(session.state, metrics)
    session.step += 1
    keep_rollouts(session, rollouts, batch, ledger, step)
    if session.ranks.is_main and step % 10 == 0:
        sampled = rollouts[:: run.rollout.group_size][: run.tracking.samples]
        session.folder.append_samples(sample_rows(sampled, step, "train"))
    return metrics


def with_advantages(
    batch: TokenBatch, objective: Objective, context: Context, state: State | None = None
) -> TokenBatch:
    """The batch with shaped rewards, and advantages [N] spread over the sampled tokens [N, T]; ``state`` is that of all
    members, None where none has any."""
    contexts = {slot: replace(context, state=(state or {}).get(slot, {})) for slot in ("shaping", "advantage")}
    batch = replace(batch, rewards=objective.shaping(batch, contexts["shaping"]))
    advantages = objective.advantage.in_run(batch, contexts["advantage"])
    return replace(batch, advantages=torch.where(batch.mask, advantages[:, None], torch.zeros(())))


def _check_version(rollouts: list[Rollout], version: int) -> None:
    stale = {rollout.weight_version for rollout in rollouts} - {version}
    if stale:
        raise EngineMismatch(
            f"rollouts carry weight versions {sorted(stale)} while the trainer is at {version}: "
            "a weight sync was skipped"
        )
