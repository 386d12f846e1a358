"""Retention of what the base model solves (DPH-RL): an f-divergence on stored responses of the base model. Called
through the ``regularizer`` slot; brings its own rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import Prompt, Rollout, TokenBatch, TokenTerms, Verdict
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import MAX_K3, bounded, k3
from trainer.objective.base import Auxiliary, Context, Regularizer, State

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPH(Regularizer):
    """Prompts the base model nearly always solves are kept out of the rollouts; on one stored correct answer to each,
    the policy is held to the base model by an f-divergence.

        u    = exp(clamp(logprobs - ref_logprobs, -20, 20))          on stored tokens, sampled from the base model
        term = coef * mean over the stored tokens of this mini-batch of f(u)

        forward       f = min(u - 1 - log u, 10)                              KL(base || policy)
        js_low_var    f = u log u - (u + 1) log((u + 1) / 2)                  twice the Jensen-Shannon divergence
        alpha         f = (u^(1-alpha) - (1-alpha) u - alpha) / (alpha (alpha-1))

    Before the first step every training prompt is sampled ``samples`` times. Where ``min_correct`` of them are correct,
    one more sample is drawn, and if that is correct too it is stored with its log-probs. ``rows_per_step`` stored
    responses, drawn afresh for every mini-batch, go through the model each step. They carry no policy loss, and the
    rollouts no divergence. Both sides of ``u`` are at the temperature that the stored responses were sampled at,
    whatever a schedule has made of the step's: at the base model's weights the term is 0. ``coef=0`` trains plainly on
    the prompts that are left.

    Shape [rows, T]; coef in loss units.
    """

    about: ClassVar[About] = About(
        source="DPH-RL, arXiv 2509.07430, and its released code",
        status="released",
        departures=(
            "min_correct is 7 (the paper's notes say 6 to 7 of 8, its README all); stored rows are drawn at random,"
            " in the code chunks of a shuffled repetition take turns; the mean is over the mini-batch's stored "
            "tokens, in the code over a micro-batch's; the definition form of the JS divergence (it needs the "
            "reference model) is left out"
        ),
    )

    coef: float = 0.01
    """Weight of the divergence (eta): 0.01 to 0.05, for js_low_var 0.05 to 0.2."""
    divergence: Literal["forward", "js_low_var", "alpha"] = "forward"
    alpha: float = 0.2
    """Of the alpha divergence, in (0, 1): towards 0 the reverse, towards 1 the forward KL divergence."""
    samples: int = 8
    """Responses of the base model to each training prompt, before the first step."""
    min_correct: int = 7
    """Correct ones among them that make a prompt a retained one."""
    rows_per_step: int = 256
    """Stored responses used in a step, shared out over its updates; fewer where fewer are stored."""

    def __post_init__(self) -> None:
        require(self.coef >= 0, "regularizer.dph.coef", self.coef, "a weight is at least 0")
        require(0 < self.alpha < 1, "regularizer.dph.alpha", self.alpha, "give a number between 0 and 1")
        least, rows = self.min_correct, self.rows_per_step
        require(1 <= least <= self.samples, "regularizer.dph.min_correct", least, "give 1 to regularizer.dph.samples")
        require(rows >= 1, "regularizer.dph.rows_per_step", rows, "at least one stored response is needed")

    @property
    def active(self) -> bool:
        return False  # on the rollouts' rows; its own rows come through auxiliary()

    def initial_state(self) -> State:
        return {"stored": [], "temperature": 1.0}

    def setup(self, state: State, context: Context) -> State:
        services = context.services
        assert services is not None
        prompts = services.train_prompts
        tried = services.sample(prompts, samples=self.samples, purpose="dph_try")
        correct = Counter(rollout.prompt.id for rollout in tried if rollout.is_correct)
        solved = [prompt for prompt in prompts if correct[prompt.id] >= self.min_correct]
        second_try = services.sample(solved, samples=1, purpose="dph_store") if solved else []
        stored = [rollout for rollout in second_try if rollout.is_correct]
        if not stored:
            log.warning(
                "regularizer.dph retains nothing, so this is training without it: of %d prompts the base model solved "
                "none %d times in %d and once more; lower regularizer.dph.min_correct or take easier prompts",
                len(prompts),
                self.min_correct,
                self.samples,
            )
            return self.initial_state()
        batch = services.collate(stored)
        logprobs = services.measure(batch).logprobs
        entries = [_entry(r, logprobs[i, batch.mask[i]]) for i, r in enumerate(stored)]
        return {"stored": entries, "temperature": services.temperature}

    def excluded_prompts(self, state: State) -> frozenset[str]:
        return frozenset(entry["prompt"] for entry in state["stored"])

    def auxiliary(self, context: Context) -> Auxiliary | None:
        stored = context.state["stored"]
        count = min(-(-self.rows_per_step // context.num_updates), len(stored))
        if not count or not self.coef:
            return None
        chosen = torch.randperm(len(stored), generator=context.generator("dph"))[:count].tolist()
        batch = collate([_rollout(stored[number], row) for row, number in enumerate(chosen)], pad_id=0)
        token_weight = batch.mask / batch.mask.sum()
        rows = replace(batch, ref_logprobs=batch.sampler_logprobs, extras={"dph_share": token_weight})
        return Auxiliary(rows=rows, temperature=context.state["temperature"])

    def auxiliary_loss(self, terms: TokenTerms, rows: TokenBatch) -> Float[Tensor, "N T"]:
        assert rows.ref_logprobs is not None
        log_u = bounded(terms.logprobs - rows.ref_logprobs)
        return self.coef * rows.extras["dph_share"] * self.f(log_u)

    def f(self, log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The generator of the divergence at ``u = exp(log_u)``; 0 with slope 0 at u = 1. Nats."""
        if self.divergence == "forward":
            return k3(log_u).clamp(max=MAX_K3)
        u = log_u.exp()
        if self.divergence == "js_low_var":
            return u * log_u - (u + 1) * ((u + 1) / 2).log()
        a = self.alpha
        return (((1 - a) * log_u).exp() - (1 - a) * u - a) / (a * (a - 1))

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        return torch.zeros_like(terms.logprobs)


def _entry(rollout: Rollout, logprobs: Float[Tensor, " t"]) -> dict[str, Any]:
    return {
        "prompt": rollout.prompt.id,
        "prompt_ids": list(rollout.prompt_ids),
        "completion_ids": list(rollout.completion_ids),
        "logprobs": logprobs.tolist(),
    }


def _rollout(entry: Mapping[str, Sequence[Any]], group: int) -> Rollout:
    return Rollout(
        prompt=Prompt(id=str(entry["prompt"]), text=""),
        prompt_ids=tuple(entry["prompt_ids"]),
        completion_ids=tuple(entry["completion_ids"]),
        sampler_logprobs=tuple(entry["logprobs"]),
        finish_reason="stop",
        text="",
        group=group,
        weight_version=0,
        verdict=Verdict(reward=1.0),
    )
