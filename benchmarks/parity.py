"""Our surrogates and advantages against the peers' own functions, on the same random numbers in float64.

    python -m benchmarks.parity

Every case names a function of TRL or verl, the members of ours that should be the same, and in words where we depart
and why. Loss and gradient by the log-probs are held against each other, or advantages. The peers' packages are those
of ``benchmarks.peers``; one that is missing there is said to be. Nothing is timed; the result is a table of
``docs/methods.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.common import ChildFailed, child, save
from benchmarks.parity_cases import CASES, LENGTH, Case
from trainer.batch.types import TokenBatch, TokenTerms
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.base import Component, Context
from trainer.objective.objective import Objective
from trainer.objective.reductions import TokenMean
from trainer.objective.shaping.none import NoShaping
from trainer.objective.surrogates.ppo_clip import PPOClip

GROUPS, SIZE = 4, 4
AGREES = 1e-6
"""Largest difference, over the largest number, of what agrees: peers round some sums, rewards and quantiles to float32,
or add 1e-8 to a denominator. The smallest threshold here is 3e-4."""


def numbers(seed: int = 1) -> dict[str, Any]:
    """A random batch: nats, rewards and masks as lists, so that both sides read the same digits."""
    generator = torch.Generator().manual_seed(seed)
    rows = GROUPS * SIZE

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, LENGTH + 1, (rows, 1), generator=generator)
    logprobs = -normal(rows, LENGTH).abs() - 0.05
    batch = {
        "logprobs": logprobs,
        "old_logprobs": (logprobs + 0.3 * normal(rows, LENGTH)).clamp(max=-1e-3),
        "ref_logprobs": (logprobs + 0.3 * normal(rows, LENGTH)).clamp(max=-1e-3),
        "entropy": normal(rows, LENGTH).abs(),
        "advantages": normal(rows),
        "rewards": torch.rand(rows, generator=generator).round(decimals=2),
        "mask": torch.arange(LENGTH) < lengths,
        "group": torch.arange(GROUPS).repeat_interleave(SIZE),
    }
    return {name: values.tolist() for name, values in batch.items()}


def batch_of(given: Mapping[str, Any]) -> tuple[TokenTerms, TokenBatch]:
    """The same numbers as our records; log-probs are a leaf."""
    columns = {name: torch.tensor(values, dtype=torch.float64) for name, values in given.items()}
    mask, rewards, ids = columns["mask"].bool(), columns["rewards"], columns["mask"].long()
    lengths = ids.sum(dim=1)
    batch = TokenBatch(
        inputs=ids,
        targets=ids,
        positions=torch.arange(LENGTH).expand_as(ids),
        lengths=lengths,
        prompt_lengths=torch.ones_like(lengths),
        mask=mask,
        sampler_logprobs=columns["old_logprobs"],
        rewards=rewards,
        raw_rewards=rewards,
        group=columns["group"].long(),
        truncated=lengths == LENGTH,
        old_logprobs=columns["old_logprobs"],
        old_entropy=columns["entropy"],
        ref_logprobs=columns["ref_logprobs"],
        advantages=torch.where(mask, columns["advantages"][:, None], 0.0),
    )
    return TokenTerms(logprobs=columns["logprobs"].requires_grad_(), entropy=columns["entropy"]), batch


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a side says: advantages [N], or loss and gradient [N, T] by the log-probs."""

    values: Tensor
    loss: float = field(default=0.0)


def ours(case: Case, given: Mapping[str, Any]) -> Answer:
    """Our members on the batch, as one mini-batch."""
    slots: dict[str, Component] = {"shaping": NoShaping(), "advantage": GRPO(), "surrogate": PPOClip()}
    objective = Objective(**(slots | {"reduction": TokenMean()} | dict(case.ours)))  # type: ignore[arg-type]
    terms, batch = batch_of(given)
    if "advantage" in case.ours:
        return Answer(values=objective.advantage(batch))
    context = Context(seed=0, step=0, num_steps=1)
    batch = objective.prepare(batch, terms.detach(), context, objective.initial_state())
    loss, _ = objective.loss(terms, batch, objective.reduction.scale(batch))
    return Answer(values=torch.autograd.grad(loss, terms.logprobs)[0], loss=float(loss.detach()))


def compare(case: Case, given: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: the largest difference over the largest number, for values and gradient."""
    row = {"method": case.method, "peer": case.peer, "function": case.function, "note": case.note}
    if "missing" in answer:
        return row | {"missing": answer["missing"]}
    own = ours(case, given)
    theirs = torch.tensor(answer["advantages"] if "advantages" in answer else answer["gradient"], dtype=torch.float64)
    found = float((own.values.double() - theirs).abs().max() / theirs.abs().max())
    row |= {"of": "advantages" if "advantages" in answer else "gradient", "difference": found}
    if case.value and "loss" in answer:
        row["loss"] = abs(own.loss - answer["loss"]) / abs(answer["loss"])
    return row | {"agrees": max(found, row.get("loss", 0.0)) < AGREES}


def asked(peer: str, given: dict[str, Any]) -> dict[str, Any]:
    """A peer's version, and its answers by the name of the case."""
    cases = {case.name: dict(case.settings) for case in CASES if case.peer == peer}
    try:
        return child("benchmarks.parity_peers", {"peer": peer, "batch": given, "cases": cases}, peers.python())
    except ChildFailed as error:
        missing = {"missing": f"{peer} did not run: {error}"}
        return {"version": "none", "answers": dict.fromkeys(cases, missing)}


def main() -> None:
    """Compare, print, save."""
    given = numbers()
    found = {peer: asked(peer, given) for peer in ("trl", "verl")}
    compared = [compare(case, given, found[case.peer]["answers"][case.name]) for case in CASES]
    for row in compared:
        said = row.get("missing") or f"{row['of']} {row['difference']:.1e}, loss {row.get('loss', 0.0):.1e}"
        print(f"{row['method']:22} {row['peer']:5} {said}")
    versions = {peer: answer["version"] for peer, answer in found.items()}
    save("parity", {"compared": compared, "agrees": AGREES}, peers=versions)


if __name__ == "__main__":
    main()
