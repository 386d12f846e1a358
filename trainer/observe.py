"""Measurements of a step beside training: evaluation, entropy accounting, metrics, sampled responses.

They leave the weights, the optimiser and every random state of the run unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from trainer.batch.types import Rollout, StepStats, TokenBatch
from trainer.contract.seeds import derive_seed
from trainer.evaluation.contamination import overlaps
from trainer.evaluation.evaluate import chosen_suites, evaluate
from trainer.ledger.ledger import Ledger
from trainer.ledger.tokens import token_rows
from trainer.metrics.accounting import KEPT_RATIO, RATIO, SUM_P2_LOGP_H, account, token_change
from trainer.metrics.calibration import BINS, calibration_metrics
from trainer.metrics.diversity import diversity_metrics
from trainer.metrics.entropy import entropy_stats
from trainer.metrics.mutual import crossed, mutual_information
from trainer.metrics.rollout import generation_metrics, rollout_metrics
from trainer.objective.objective import REFERENCE_STEP, ROLLOUT_TEMPERATURE, Objective
from trainer.runtime.stopwatch import Stopwatch
from trainer.session.session import Session
from trainer.update.gradient import measure, with_old_terms
from trainer.update.logprob_gap import gap_metrics

_ROW = "accounting_row"
"""Column [N] of the measured rows: where each of them is in the rollout batch."""


def step_metrics(session: Session, rollouts: list[Rollout], batch: TokenBatch, stats: StepStats) -> dict[str, float]:
    """Everything one step says about its rollouts and updates; ``stats`` are the sums of the updates."""
    stats.merge(entropy_stats(batch))
    metrics = stats.means() | rollout_metrics(rollouts) | generation_metrics(rollouts, session.sampler.generated)
    diversity = diversity_metrics(rollouts, vocabulary=len(session.tokenizer))
    calibration, _ = calibration_metrics(rollouts)
    return (
        metrics
        | {f"diversity/{name}": value for name, value in diversity.items()}
        | {f"calibration/{name}": value for name, value in calibration.items()}
        | gap_metrics(batch)
        | {"engine/weight_version": float(rollouts[0].weight_version), "policy/updates": float(session.version)}
        | {"policy/support": float(session.policy.support)}
    )


def controlled_values(session: Session, objective: Objective) -> dict[str, float]:
    """What every controller set in this step."""
    of_run = {ROLLOUT_TEMPERATURE: session.policy.temperature, REFERENCE_STEP: session.reference.step}
    values = {}
    for name, controller in session.run.objective.controller.items():
        if controller.target in of_run:
            values[f"controller/{name}"] = float(of_run[controller.target])
            continue
        slot, *names, key = controller.target.split(".")
        member = getattr(objective, slot)
        values[f"controller/{name}"] = float(getattr(member[names[0]] if names else member, key))
    return values


def evaluation_metrics(session: Session, watch: Stopwatch) -> dict[str, float]:
    """Metrics of the evaluation at the present weights, where one is due; what else it found goes to its files."""
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
            vocabulary=len(session.tokenizer),
        )
    session.state = {"solved": result.solved} | session.state
    if session.ranks.is_main:
        points = [
            {
                "step": step,
                "suite": suite,
                "confidence_of": kind,
                "bin": min(int(point.confidence * BINS), BINS - 1),
                "confidence": point.confidence,
                "accuracy": point.accuracy,
                "count": point.count,
            }
            for suite, kinds in result.reliability.items()
            for kind, points in kinds.items()
            for point in points
        ]
        session.folder.append_reliability(points)
        session.folder.append_samples(sample_rows(result.samples, step, "evaluation"))
    return result.metrics | (contamination_metrics(session, watch) if step == 0 else {})


def contamination_metrics(session: Session, watch: Stopwatch) -> dict[str, float]:
    """The share of every suite that is trained on; how it was found, and an example, go to a file of their own."""
    run = session.run
    with watch("eval"):
        suites = chosen_suites(run.task.suites(), run.evaluation)
        suite_texts = {suite: [prompt.text for prompt in prompts] for suite, prompts in suites.items()}
        overlapping = overlaps([prompt.text for prompt in run.task.train_prompts()], suite_texts)
    if session.ranks.is_main:
        rows = [{"step": session.step, "share": row.share} | asdict(row) for row in overlapping]
        session.folder.append_contamination(rows)
    return {f"eval/{row.suite}/contaminated_frac": row.share for row in overlapping}


def accounting_rows(session: Session, batch: TokenBatch, watch: Stopwatch) -> TokenBatch | None:
    """The rows whose entropy is measured before and after the update, with the old terms, when it is time for it."""
    settings = session.run.accounting
    if not settings.due(session.step):
        return None
    index = _random_rows(session, batch, settings.rows, "accounting")
    with watch("accounting"):
        rows = batch.rows(index)
        terms = session.policy.measure(rows, {SUM_P2_LOGP_H})
        extras = {SUM_P2_LOGP_H: terms.extras[SUM_P2_LOGP_H], _ROW: index}
        return replace(with_old_terms(rows, terms), extras=rows.extras | extras)


def _random_rows(session: Session, batch: TokenBatch, count: int, purpose: str) -> Tensor:
    """Indices, in order, of ``count`` rows drawn without replacement; 0: all. The same for every run of a seed."""
    generator = torch.Generator().manual_seed(derive_seed(session.run.seed, session.step, purpose))
    permutation = torch.randperm(batch.num_rows, generator=generator)
    return (permutation[:count] if count else permutation).sort().values


def open_ledger(session: Session, objective: Objective, batch: TokenBatch) -> Ledger | None:
    """What watches the updates of the step, where a ledger is due. Rows are shared out over the updates, so that many
    of them cost no more than one."""
    settings, updates = session.run.accounting, session.run.optim.num_updates
    if not settings.ledger_due(session.step):
        return None
    rows = -(-settings.ledger_rows // updates)
    contexts = batch.rows(_random_rows(session, batch, rows, "ledger"))
    return Ledger(learner=session.learner, objective=objective, contexts=contexts, rows=rows)


def ledger_metrics(session: Session, ledger: Ledger | None, watch: Stopwatch) -> dict[str, float]:
    """What the ledger found; some of its responses, token by token, go to a file of their own."""
    if ledger is None:
        return {}
    with watch("ledger"):
        metrics = ledger.metrics()
    if session.ranks.is_main:
        rows = token_rows(ledger, session.tokenizer, session.run.tracking.samples)
        session.folder.append_tokens([{"step": session.step} | row for row in rows])
    return metrics


def accounting_metrics(
    session: Session, before: TokenBatch | None, batch: TokenBatch, watch: Stopwatch
) -> dict[str, float]:
    """The measured change of entropy beside its predictions, on the rows of :func:`accounting_rows`; ``batch`` is what
    the updates returned, with the ratios at which they used each token."""
    if before is None:
        return {}
    with watch("accounting"):
        used = batch.rows(before.extras[_ROW]).extras
        before = replace(before, extras=before.extras | {name: used[name] for name in (RATIO, KEPT_RATIO)})
        return account(token_change(before, session.policy.measure(before)))


def mutual_information_metrics(session: Session, rollouts: Sequence[Rollout], watch: Stopwatch) -> dict[str, float]:
    """How much the responses of the step say of their prompts, at the weights that sampled, when it is time for it."""
    pairs = crossed(rollouts) if session.run.accounting.due(session.step) else []
    if len(pairs) < 4:  # one prompt, or none that has a response
        return {}
    with watch("accounting"):
        logprobs = measure(session.learner, session.services(pairs).collate(pairs)).logprobs
        size = math.isqrt(len(pairs))
        return {"entropy/mutual_information": mutual_information(logprobs.double().sum(dim=1).view(size, size))}


def sample_rows(rollouts: Sequence[Rollout], step: int, source: str) -> list[dict[str, object]]:
    """Rollouts as rows of the table of samples."""
    return [
        {
            "step": step,
            "source": source,
            "prompt": rollout.prompt.text,
            "response": rollout.text,
            "reward": rollout.reward,
            "answer": rollout.verdict.answer if rollout.verdict else None,
            "comparable": rollout.verdict is None or rollout.verdict.comparable,
            "finish_reason": rollout.finish_reason,
        }
        for rollout in rollouts
    ]
