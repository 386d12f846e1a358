"""The page to read first: what a run does, from the first rollout to the last checkpoint.

Called by ``__main__.py``. A step takes weights version v to v + N_upd; its line in ``metrics.jsonl`` describes the
rollouts and the evaluation at the weights *before* the update, so step 0 is the base model and a last line at
``steps`` is the final one.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from trainer.build import Run
from trainer.config import derive_seed
from trainer.engine.base import EnginePool
from trainer.evaluate import evaluate
from trainer.metrics.accounting import SUM_P2_LOGP_H, account, token_change
from trainer.metrics.calibration import BINS, calibration_metrics
from trainer.metrics.diversity import diversity_metrics
from trainer.metrics.entropy import entropy_stats
from trainer.metrics.rollout import rollout_metrics
from trainer.objective.base import Context, Objective
from trainer.pack import pack
from trainer.record import RunFolder
from trainer.session import Session, open_session
from trainer.types import Rollout, TokenBatch
from trainer.update import EngineMismatch, check_gap, logprob_gap, needs_old_pass, update, with_old_terms

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every step with (step, steps, all metrics)."""


@dataclass(slots=True)
class Stopwatch:
    """Wall time by phase, seconds."""

    times: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.times[f"time/{phase}_s"] = self.times.get(f"time/{phase}_s", 0.0) + time.perf_counter() - start


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

    Returns the state the run is left in: COMPLETED, PRUNED (a STOP file was found) or PREEMPTED (``interrupted`` said
    so). ``durable`` hears which recorded steps can no longer change, first of all where the run begins (-1: nothing is
    recorded); ``progress`` hears of every step.
    """
    session = open_session(run, folder, engines)
    main, saved = session.ranks.is_main, session.step
    durable(session.step - 1)
    while session.step < run.steps:
        state = _asked_to_leave(session, interrupted)
        if state is None:
            watch, start, step = Stopwatch(), time.perf_counter(), session.step
            metrics = evaluation_metrics(session, watch) | train_step(session, watch)
            timings = watch.times | _throughput(metrics, time.perf_counter() - start)
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
    stopped, preempted = session.ranks.any(session.folder.stop_requested), session.ranks.any(interrupted())
    return "PRUNED" if stopped else "PREEMPTED" if preempted else None


def train_step(session: Session, watch: Stopwatch) -> dict[str, float]:
    """Rollouts, advantages, updates, weight sync: one step, and its metrics."""
    run, sampler, step = session.run, session.sampler, session.step
    context = Context(
        seed=run.seed,
        step=step,
        num_steps=run.steps,
        epoch=sampler.stream.epoch,
        num_epochs=max(1, run.steps * run.rollout.prompts_per_step // len(sampler.stream.prompts)),
    )
    sampler.begin(step)
    with watch("generate"):
        rollouts = run.rollout.collect(sampler, step=step)
    _check_version(rollouts, session.version)
    batch = pack(rollouts, pad_id=_pad_id(session))
    objective = run.objective.controlled(session.state, context)
    with watch("old"):
        if needs_old_pass(objective, run.optim.num_updates):
            batch = _measured(session, batch, objective)
            check_gap(batch, session.learner.dtype)
        if session.reference is not None:
            ranks = session.ranks
            terms = ranks.sum_terms(session.reference.measure(batch, rank=ranks.rank, world=ranks.world))
            batch = replace(batch, ref_logprobs=terms.logprobs)
    batch = with_advantages(batch, objective)
    session.state = session.state | objective.begin_step(session.state, batch, context)
    before = _accounting_rows(session, batch, watch)
    with watch("update"):
        batch, stats = update(session.learner, objective, batch, context, session.state, version=session.version)
    session.version += run.optim.num_updates
    with watch("sync"):
        session.sync()
    with watch("metrics"):
        stats.merge(entropy_stats(batch))
        metrics = stats.means() | rollout_metrics(rollouts)
        metrics |= {f"diversity/{name}": value for name, value in diversity_metrics(rollouts).items()}
        metrics |= {f"calibration/{name}": value for name, value in calibration_metrics(rollouts)[0].items()}
        largest, mean = logprob_gap(batch)
        metrics |= {"engine/logprob_gap_max": largest, "engine/logprob_gap_mean": mean}
        metrics |= {
            "policy/updates": float(session.version),
            "engine/weight_version": float(rollouts[0].weight_version),
        }
        metrics |= _controlled_values(run.objective, objective)
    metrics |= _account(session, before, watch)
    session.state = session.state | objective.end_step(session.state, metrics)
    session.step += 1
    if session.ranks.is_main and step % 10 == 0:
        session.folder.append_samples(
            _sample_rows(rollouts[:: run.rollout.group_size][: run.tracking.samples], step, "train")
        )
    return metrics


def with_advantages(batch: TokenBatch, objective: Objective) -> TokenBatch:
    """The batch with shaped rewards, and advantages [N] spread over the sampled tokens [N, T]."""
    batch = replace(batch, rewards=objective.shaping(batch))
    advantages = objective.advantage(batch)
    return replace(batch, advantages=torch.where(batch.mask, advantages[:, None], torch.zeros(())))


def evaluation_metrics(session: Session, watch: Stopwatch) -> dict[str, float]:
    """Metrics of the evaluation at the present weights, where one is due; its samples and reliability points go to
    their files."""
    run, step = session.run, session.step
    if not run.evaluation.due(step, run.steps):
        return {}
    with watch("eval"):
        result = evaluate(
            session.generate,
            run.task,
            run.evaluation,
            step=step,
            max_tokens=run.rollout.max_tokens,
            base_counts=session.state.get("solved"),
        )
    session.state = {"solved": result.solved} | session.state
    if session.ranks.is_main:
        points = [
            {
                "step": step,
                "suite": suite,
                "confidence_of": kind,
                "bin": min(int(p.confidence * BINS), BINS - 1),
                "confidence": p.confidence,
                "accuracy": p.accuracy,
                "count": p.count,
            }
            for suite, kinds in result.reliability.items()
            for kind, points in kinds.items()
            for p in points
        ]
        session.folder.append_reliability(points)
        session.folder.append_samples(_sample_rows(result.samples, step, "evaluation"))
    return result.metrics


def _measured(session: Session, batch: TokenBatch, objective: Objective) -> TokenBatch:
    terms = session.policy.measure(batch, objective.statistics, rank=session.ranks.rank, world=session.ranks.world)
    return with_old_terms(batch, session.ranks.sum_terms(terms))


def _accounting_rows(session: Session, batch: TokenBatch, watch: Stopwatch) -> TokenBatch | None:
    """The rows whose entropy is measured before and after the update, with the old terms, when it is time for it."""
    settings = session.run.accounting
    if settings.every == 0 or session.step % settings.every:
        return None
    count = min(settings.rows or batch.num_rows, batch.num_rows)
    generator = torch.Generator().manual_seed(derive_seed(session.run.seed, session.step, "accounting"))
    index = torch.randperm(batch.num_rows, generator=generator)[:count].sort().values
    with watch("accounting"):
        rows = batch.rows(index)
        terms = session.policy.measure(rows, {SUM_P2_LOGP_H})
        return replace(with_old_terms(rows, terms), extras=rows.extras | {SUM_P2_LOGP_H: terms.extras[SUM_P2_LOGP_H]})


def _account(session: Session, before: TokenBatch | None, watch: Stopwatch) -> dict[str, float]:
    if before is None:
        return {}
    with watch("accounting"):
        return account(token_change(before, session.policy.measure(before)))


def _controlled_values(base: Objective, objective: Objective) -> dict[str, float]:
    """The coefficient every controller set in this step."""
    values = {}
    for name, controller in base.controller.items():
        slot, *names, key = controller.target.split(".")
        member = getattr(objective, slot)
        values[f"controller/{name}"] = float(getattr(member[names[0]] if names else member, key))
    return values


def _check_version(rollouts: list[Rollout], version: int) -> None:
    stale = {rollout.weight_version for rollout in rollouts} - {version}
    if stale:
        raise EngineMismatch(
            f"rollouts carry weight versions {sorted(stale)} while the trainer is at {version}: "
            "a weight sync was skipped"
        )


def _pad_id(session: Session) -> int:
    tokenizer = session.tokenizer
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)  # type: ignore[arg-type]


def _throughput(metrics: dict[str, float], seconds: float) -> dict[str, float]:
    cuda = torch.cuda.is_available()
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    return {
        "time/step_s": seconds,
        "throughput/tokens_per_s": metrics["rollout/num_tokens"] / seconds,
        "memory/peak_gib": peak,
    }


def _sample_rows(rollouts: list[Rollout], step: int, source: str) -> list[dict[str, object]]:
    return [
        {
            "step": step,
            "source": source,
            "prompt": rollout.prompt.text,
            "response": rollout.text,
            "reward": rollout.reward,
            "answer": rollout.verdict.answer if rollout.verdict else None,
            "finish_reason": rollout.finish_reason,
        }
        for rollout in rollouts
    ]
