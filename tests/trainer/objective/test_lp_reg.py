"""Lp-Reg: specification 14.2 by hand: the proxy, who is selected over the whole mini-batch, both divergences."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, PAD, Bench, Toy, make_rollouts, off_policy, plain, policy
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.config import OptimConfig
from trainer.contract.settings import ConfigError
from trainer.objective.regularizers.lp_reg import LpReg
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.policy.token_stats import token_stats

BASE = PPOClip(clip_low=1.0, clip_high=9.0)
"""The base loss of the paper: ratios clipped to [0, 10]."""


def line(advantages: list[float], **columns: list[float]) -> TokenBatch:
    """One row whose every position is sampled."""
    batch = collate(make_rollouts(groups=1, group_size=1, given=0), pad_id=PAD)
    width = len(advantages)
    old = torch.tensor([columns.pop("old_logprobs", [0.0] * width)], dtype=torch.float64)
    extras = {name: torch.tensor([values], dtype=torch.float64) for name, values in columns.items()}
    mask = torch.ones(1, width, dtype=torch.bool)
    return replace(batch, mask=mask, advantages=torch.tensor([advantages]), old_logprobs=old, extras=extras)


def terms_of(logprobs: list[float] | Tensor, **extras: list[float]) -> TokenTerms:
    column = torch.as_tensor(logprobs, dtype=torch.float64)[None]
    named = {name: torch.tensor([values], dtype=torch.float64) for name, values in extras.items()}
    return TokenTerms(logprobs=column, entropy=torch.zeros_like(column), extras=named)


def selected(member: LpReg, batch: TokenBatch, terms: TokenTerms) -> list[bool]:
    found: list[list[bool]] = member.prepare(batch, terms, CONTEXT)["lp_reg_selected"].tolist()
    return found[0]


def released(**settings: Any) -> LpReg:
    return LpReg(**({"variant": "released"} | settings))


# pi_p = (0.9, 0.09, 0.01) and min_p 0.02: the third token is filtered, the proxy is (0.909091, 0.090909, 0).
MASS = math.log(0.99)
NAMES = ("min_p_logmass@0.02", "min_p_kept@0.02")


def kept(probability: float) -> float:
    return float(probability >= 0.02 * 0.9)


def test_one_token_estimate_by_hand() -> None:
    # Second token: log proxy = log 0.09/0.99; d = -log 0.99 = 0.0100503; exp(d) - d - 1 = 1/99 - d = 5.0674e-05.
    low, column = math.log(0.09), {"old_min_p_logmass@0.02": [MASS] * 2, "old_min_p_kept@0.02": [kept(0.09)] * 2}
    batch = line([-1.0, -1.0], old_logprobs=[low, low], **column)
    member, terms = released(coef=1.0, lowest_frac=1.0), terms_of([low, low])
    extras = member.prepare(batch, terms, CONTEXT)
    assert extras["lp_reg_selected"].tolist() == [[True, True]]
    assert extras["lp_reg_proxy"].exp().tolist() == [pytest.approx([0.090909] * 2, abs=1e-6)]
    value = member(terms, replace(batch, extras=extras), torch.ones(1, 1))
    assert value[0].tolist() == pytest.approx([5.0674e-05] * 2, abs=1e-9)


def test_one_token_estimate_has_slope_one_minus_exp_d_and_clamps() -> None:
    logprobs = torch.tensor([-1.0, -3.0, -8.0, -60.0], dtype=torch.float64, requires_grad=True)
    extras = {"lp_reg_selected": torch.ones(1, 4, dtype=torch.bool), "lp_reg_proxy": torch.tensor([[-0.5] * 4])}
    batch = replace(line([-1.0] * 4), extras=extras)
    value = released(coef=2.0)(terms_of(logprobs), batch, torch.ones(1, 1))
    # d = 0.5, 2.5, 7.5 (value cut to 10, no gradient), 59.5 (cut to 20 first).
    expected = [2 * (math.exp(0.5) - 1.5), 2 * (math.exp(2.5) - 3.5), 20.0, 20.0]
    assert value[0].tolist() == pytest.approx(expected)
    slope = torch.autograd.grad(value.sum(), logprobs)[0].tolist()
    assert slope == pytest.approx([2 * (1 - math.exp(0.5)), 2 * (1 - math.exp(2.5)), 0.0, 0.0])


def test_full_divergence_by_hand() -> None:
    # KL(proxy || p) = -log 0.99 = 0.010050, whatever token was drawn; nothing off the selection.
    extras = {"lp_reg_selected": torch.tensor([[True, False]])}
    batch = replace(line([-1.0, -1.0]), extras=extras)
    terms = terms_of([-2.0, -2.0], **{NAMES[0]: [MASS, MASS]})
    assert LpReg()(terms, batch, torch.ones(1, 1))[0].tolist() == pytest.approx([0.010050, 0.0], abs=1e-6)


def test_published_selection_is_low_negative_and_kept() -> None:
    # Four tokens of eight are the lowest half; of these one has positive advantage, one is noise (below 0.02 * 0.9).
    probabilities = [0.05, 0.06, 0.01, 0.07, 0.5, 0.6, 0.7, 0.8]
    advantages = [-1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0]
    survivors = [kept(p) for p in probabilities]
    terms = terms_of([math.log(p) for p in probabilities], **{NAMES[0]: [MASS] * 8, NAMES[1]: survivors})
    found = selected(LpReg(lowest_frac=0.5), line(advantages), terms)
    assert found == [True, False, False, True, False, False, False, False]


def test_released_selection_counts_negative_tokens_and_asks_for_less_than_the_proxy() -> None:
    # Six negative tokens, half of them: the three lowest are 0.01 (noise under the sampling policy), 0.05 and 0.06; the
    # last stands above its proxy 0.04 / 0.99 already. The low token of positive advantage is not counted.
    now = [0.05, 0.06, 0.01, 0.5, 0.6, 0.7, 0.001]
    before = [0.05, 0.04, 0.01, 0.5, 0.6, 0.7, 0.001]
    columns = {"old_min_p_logmass@0.02": [MASS] * 7, "old_min_p_kept@0.02": [kept(p) for p in before]}
    batch = line([-1.0] * 6 + [1.0], old_logprobs=[math.log(p) for p in before], **columns)
    found = selected(released(lowest_frac=0.5), batch, terms_of([math.log(p) for p in now]))
    assert found == [True, False, False, False, False, False, False]


@pytest.mark.parametrize(("lowest_frac", "count"), [(0.0, 0), (0.1, 0), (0.2, 2), (0.39, 3), (1.0, 10)])
def test_released_share_is_floored_and_one_token_is_none(lowest_frac: float, count: int) -> None:
    columns = {"old_min_p_logmass@0.02": [MASS] * 10, "old_min_p_kept@0.02": [kept(0.05)] * 10}
    logprobs = [math.log(0.05 + 0.01 * number) for number in range(10)]
    batch = line([-1.0] * 10, old_logprobs=logprobs, **columns)
    assert sum(selected(released(lowest_frac=lowest_frac), batch, terms_of(logprobs))) == count


@pytest.mark.parametrize(("lowest_frac", "count"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.39, 3)])
def test_published_share_is_floored(lowest_frac: float, count: int) -> None:
    logprobs = [math.log(0.05 + 0.01 * number) for number in range(10)]
    terms = terms_of(logprobs, **{NAMES[0]: [MASS] * 10, NAMES[1]: [kept(0.05)] * 10})
    assert sum(selected(LpReg(lowest_frac=lowest_frac), line([-1.0] * 10), terms)) == count


def test_a_filtered_token_is_never_protected_however_low() -> None:
    columns = {"old_min_p_logmass@0.02": [MASS] * 3, "old_min_p_kept@0.02": [kept(0.01)] * 3}
    noise = [math.log(0.01)] * 3
    assert not any(
        selected(released(lowest_frac=1.0), line([-1.0] * 3, old_logprobs=noise, **columns), terms_of(noise))
    )
    terms = terms_of(noise, **{NAMES[0]: [MASS] * 3, NAMES[1]: [kept(0.01)] * 3})
    assert not any(selected(LpReg(lowest_frac=1.0), line([-1.0] * 3), terms))


def test_without_a_floor_and_on_policy_the_proxy_is_the_policy_and_nobody_is_below_it() -> None:
    model = Toy()
    batch = off_policy(model)
    member = released(min_p=0.0, lowest_frac=1.0)
    terms = policy(model).measure(batch, member.old_statistics)
    here = replace(
        batch,
        advantages=-torch.ones(batch.mask.shape),
        old_logprobs=terms.logprobs,
        extras={f"old_{name}": value for name, value in terms.extras.items()},
    )
    assert not member.prepare(here, terms, CONTEXT)["lp_reg_selected"].any()
    floor = released(min_p=0.3, lowest_frac=1.0)
    terms = policy(model).measure(batch, floor.old_statistics)
    here = replace(here, extras={f"old_{name}": value for name, value in terms.extras.items()})
    assert floor.prepare(here, terms, CONTEXT)["lp_reg_selected"].any()


@pytest.mark.parametrize("member", [LpReg(lowest_frac=0.8, min_p=0.05), released(lowest_frac=0.8, min_p=0.05)])
def test_no_selection_is_the_base_loss(member: LpReg) -> None:
    model, batch = Toy(), off_policy(Toy())
    base = Bench(model).step(plain(surrogate=BASE), batch)

    def with_member(changed: LpReg, rewards: Tensor = batch.rewards) -> float:
        objective = plain(surrogate=BASE, regularizer={"lp_reg": changed})
        there = Bench(model).step(objective, replace(batch, rewards=rewards))
        alone = Bench(model).step(plain(surrogate=BASE), replace(batch, rewards=rewards))
        return there.distance(alone)

    assert with_member(member) > 1e-4 * base.size
    assert with_member(replace(member, coef=0.0)) == 0.0
    assert with_member(replace(member, lowest_frac=0.01)) == 0.0
    assert with_member(member, torch.ones(batch.num_rows)) == 0.0  # equal rewards: no negative advantage


def test_the_base_loss_has_no_lower_clip_for_selected_tokens_to_lose() -> None:
    # max(-A r, -A clip(r, 0, 10)) with A < 0 is -A r at every ratio below 10: gradient -A r.
    logprobs = torch.tensor([math.log(1e-3), math.log(0.5), math.log(5.0)], dtype=torch.float64, requires_grad=True)
    out = BASE(terms_of(logprobs), line([-2.0] * 3))
    assert torch.autograd.grad(out.loss.sum(), logprobs)[0].tolist() == pytest.approx([2e-3, 1.0, 10.0])


def test_the_released_variant_remarks_on_a_single_update() -> None:
    def run(updates: int) -> Any:
        return SimpleNamespace(optim=OptimConfig(updates_per_rollout=updates))

    (diagnostic,) = released().diagnostics(run(1))
    assert not diagnostic.fatal and "take more updates" in diagnostic.message
    assert list(released().diagnostics(run(2))) == list(LpReg().diagnostics(run(1))) == []


def test_the_filter_looks_at_the_model_s_own_probabilities_whatever_the_temperature() -> None:
    # p = (0.9, 0.09, 0.01) at temperature 1: the third token is below 0.02 * 0.9, whatever p becomes at another
    # temperature. At 2 the odds are square roots, 0.9487 : 0.3 : 0.1, and 0.1 is far above 0.02 * 0.9487, yet it is
    # out: kept mass 1.248683 / 1.348683. At 0.4 they are 0.76843 : 0.00243 : 0.00001; the second is below 0.02 of the
    # first, yet in.
    logits = torch.tensor([[0.9, 0.09, 0.01]], dtype=torch.float64).log().expand(3, 3)
    for temperature, mass in (
        (1.0, 0.99),
        (2.0, 0.9258535),
        (0.4, (0.9**2.5 + 0.09**2.5) / (0.9**2.5 + 0.09**2.5 + 1e-5)),
    ):
        stats = token_stats(
            torch.eye(3, dtype=torch.float64), logits.T, torch.arange(3), temperature=temperature, statistics=NAMES
        )
        assert stats[NAMES[1]].tolist() == [1.0, 1.0, 0.0]
        assert stats[NAMES[0]].tolist() == pytest.approx([math.log(mass)] * 3, abs=1e-6)


def test_variants_ask_for_statistics_where_they_look() -> None:
    assert LpReg().statistics == released().old_statistics == frozenset(NAMES)
    assert LpReg().old_statistics == released().statistics == frozenset()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"coef": -1.0}, r"lp_reg\.coef=-1"),
        ({"min_p": 1.5}, r"lp_reg\.min_p=1.5"),
        ({"lowest_frac": -0.1}, r"lp_reg\.lowest_frac=-0.1"),
    ],
)
def test_out_of_range_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LpReg(**setting)
