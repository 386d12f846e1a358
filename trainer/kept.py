"""Keeps all responses of a step as rows: text, tokens, and log-prob, entropy, advantage and influence of each token.

The weights, the optimiser and every random state of the run stay unchanged, also by the columns that it adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from trainer.batch.types import Rollout, TokenBatch
from trainer.ledger.ledger import Ledger
from trainer.session.session import Session

_PLACE = "rollout_place"
"""Column [N]: where each row of a mini-batch is in the rollout batch."""


def with_row_numbers(session: Session, batch: TokenBatch) -> TokenBatch:
    """The batch with the number of each row, where its responses will be kept: a ledger sees mini-batches only."""
    if not session.run.accounting.rollouts_due(session.step):
        return batch
    return replace(batch, extras=batch.extras | {_PLACE: torch.arange(batch.num_rows)})


def keep_rollouts(
    session: Session, rollouts: Sequence[Rollout], batch: TokenBatch, ledger: Ledger | None, step: int
) -> None:
    """Keep all responses of ``step`` where they are due (main rank). ``batch`` is what the updates returned."""
    if session.run.accounting.rollouts_due(step) and session.ranks.is_main:
        with session.folder.timing("record"):
            rows = rollout_rows(rollouts, batch, influences(ledger), session.tokenizer)
            session.folder.keep_rollouts(step, [{"step": step} | row for row in rows])


def influences(ledger: Ledger | None) -> dict[int, list[float]]:
    """Influence of each token, nats of the step's mean entropy, by row of the rollout batch: the sum over the updates
    that the ledger looked at the row in."""
    total: dict[int, list[float]] = {}
    if ledger is None:
        return total
    for entry, rows in zip(ledger.entries, ledger.examined, strict=True):
        places = rows.extras[_PLACE].tolist()
        for row, place in enumerate(places):
            found = entry.tokens.influence[entry.tokens.row == row].tolist()
            total[place] = [a + b for a, b in zip(total[place], found, strict=True)] if place in total else found
    return total


def rollout_rows(
    rollouts: Sequence[Rollout], batch: TokenBatch, influence: Mapping[int, list[float]], tokenizer: Any
) -> list[dict[str, Any]]:
    """One row a response by the columns of :func:`trainer.storage.rollouts.schema`, ``step`` excepted. Lists have one
    entry for each sampled token, the end token included; log-prob and entropy are those at the weights that sampled."""
    assert batch.old_logprobs is not None and batch.old_entropy is not None and batch.advantages is not None
    words = {token: tokenizer.decode([token]) for token in batch.targets[batch.mask].unique().tolist()}
    prompts = {rollout.prompt.id: tokenizer.decode(list(rollout.prompt_ids)) for rollout in rollouts}
    rows = []
    for place, rollout in enumerate(rollouts):
        sampled = batch.mask[place]
        ids = batch.targets[place][sampled].tolist()
        rows.append(
            {
                "group": rollout.group,
                "prompt_id": rollout.prompt.id,
                "prompt": prompts[rollout.prompt.id],
                "response": rollout.text,
                "answer": rollout.verdict.answer if rollout.verdict else None,
                "reward": rollout.reward,
                "correct": rollout.is_correct,
                "finish_reason": rollout.finish_reason,
                "tokens": [words[token] for token in ids],
                "token_ids": ids,
                "logprobs": batch.old_logprobs[place][sampled].tolist(),
                "entropy": batch.old_entropy[place][sampled].tolist(),
                "advantage": batch.advantages[place][sampled].tolist(),
                "influence": influence.get(place),
            }
        )
    return rows
