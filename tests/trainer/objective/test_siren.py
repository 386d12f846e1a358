"""SIREN: specification 4 by hand, its square over the whole mini-batch against autograd, its ablations and edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from testbench import (
    CONTEXT,
    PAD,
    Bench,
    ModelServices,
    Outcome,
    Toy,
    make_rollouts,
    off_policy,
    on_policy,
    plain,
    policy,
)
from torch import Tensor, nn

from trainer.batch.collate import collate
from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.regularizers.siren import Siren, row_quantile

NAME = "top_p_entropy@0.8"


def rows(*lengths: int) -> TokenBatch:
    """Rows with these numbers of sampled tokens, from position 0 on."""
    batch = collate(make_rollouts(groups=len(lengths), group_size=1, given=0), pad_id=PAD)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return replace(batch, mask=mask)


def terms_of(values: list[list[float]], name: str = NAME) -> TokenTerms:
    width = max(map(len, values))
    column = torch.tensor([row + [0.0] * (width - len(row)) for row in values], dtype=torch.float64)
    return TokenTerms(logprobs=column, entropy=column, extras={name: column, "entropy_t1": column})


def term(siren: Siren, batch: TokenBatch, terms: TokenTerms, anchor: float | None) -> float:
    ready = replace(batch, extras=siren.prepare(batch, terms, replace(CONTEXT, state={"anchor": anchor})))
    values = siren(terms, ready, torch.ones(batch.num_rows, 1))
    return float(torch.where(batch.mask, values, torch.zeros(())).sum())


def mean(siren: Siren, batch: TokenBatch, terms: TokenTerms) -> float:
    """The mean over peaks, read off the ablation without an anchor: term = -coef * mean."""
    return -term(replace(siren, anchor=False, coef=1.0), batch, terms, None)


def test_mean_by_hand() -> None:
    # Row 1, quantile 0.5 of (0, 1, 2, 4) is 1.5: peaks 2 and 4, mean 3. Row 2, of (1, 5): 3, peak 5. Row 3: no peak.
    batch = rows(4, 2, 2)
    terms = terms_of([[0.0, 1.0, 2.0, 4.0], [1.0, 5.0], [2.0, 2.0]])
    assert mean(Siren(quantile=0.5), batch, terms) == pytest.approx((3 + 5 + 0) / 3, abs=1e-12)
    # Without the mask: row means 1.75, 3 and 2.
    assert mean(Siren(quantile=None), batch, terms) == pytest.approx((1.75 + 3 + 2) / 3, abs=1e-12)


def test_square_by_hand() -> None:
    # mean = 8/3 as above, anchor 2, coef 0.005: 0.005 * (2/3)^2 = 0.00222.
    batch = rows(4, 2, 2)
    terms = terms_of([[0.0, 1.0, 2.0, 4.0], [1.0, 5.0], [2.0, 2.0]])
    assert term(Siren(quantile=0.5), batch, terms, 2.0) == pytest.approx(0.005 * 4 / 9, abs=1e-12)


def test_default_quantile_keeps_the_top_fifth() -> None:
    # Ten tokens 0.0 to 0.9: quantile 0.8 is at rank 7.2, 0.72; strictly above are 0.8 and 0.9.
    batch = rows(10)
    terms = terms_of([[number / 10 for number in range(10)]])
    assert mean(Siren(), batch, terms) == pytest.approx(0.85, abs=1e-12)


def test_most_tokens_without_entropy_leave_the_positive_ones() -> None:
    # Nine of ten are 0, so the quantile is 0 and "strictly above" keeps the tenth.
    assert mean(Siren(), rows(10), terms_of([[0.0] * 9 + [0.7]])) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.4, 0.4, 0.4], [0.4]])
def test_a_row_without_a_peak_counts_as_zero(values: list[float]) -> None:
    assert mean(Siren(), rows(len(values)), terms_of([values])) == 0.0
    assert mean(Siren(), rows(len(values), 2), terms_of([values, [0.0, 1.0]])) == pytest.approx(0.5)


def test_rows_without_a_sampled_token_do_not_count() -> None:
    batch = rows(2, 2)
    masked = replace(batch, mask=batch.mask & torch.tensor([[True], [False]]))
    assert mean(Siren(), masked, terms_of([[0.0, 1.0], [0.0, 8.0]])) == pytest.approx(1.0)
    empty = replace(batch, mask=torch.zeros_like(batch.mask))
    assert term(Siren(), empty, terms_of([[0.0, 1.0], [0.0, 8.0]]), 0.5) == 0.0


@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8, 0.95])
def test_quantile_is_that_of_torch_over_the_masked_tokens(q: float) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 9, generator=generator) < 0.7
    mask[0] = False
    ours = row_quantile(values, mask, q)
    assert ours[0].item() == torch.inf
    for row in range(1, 6):
        assert ours[row].item() == pytest.approx(torch.quantile(values[row][mask[row]], q).item(), abs=1e-12)


@pytest.mark.parametrize("count", range(1, 60))
def test_a_value_never_exceeds_the_quantile_that_it_is(count: int) -> None:
    # 0.7 * 10 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996: neither may let the value itself through.
    values = torch.arange(count + 1, dtype=torch.float64)[None].sqrt()
    for rank in range(count):
        quantile = row_quantile(values, torch.ones_like(values, dtype=torch.bool), rank / count)
        assert quantile.item() == values[0, rank].item()


def step(bench: Bench, siren: Siren, batch: TokenBatch, anchor: float | None) -> Outcome:
    objective = plain(regularizer={"siren": siren})
    return bench.step(objective, batch, objective.initial_state() | {"regularizer.siren": {"anchor": anchor}})


def whole(siren: Siren, model: nn.Module, batch: TokenBatch, anchor: float | None) -> tuple[Tensor, list[Tensor]]:
    """Value and gradient of the term as the paper writes it, by autograd through the unsplit batch."""
    terms = policy(model).terms(batch, siren.statistics)
    own = terms.extras.get("entropy_t1", terms.entropy)
    h = own if siren.top_p is None else next(v for name, v in terms.extras.items() if name != "entropy_t1")
    by = h if siren.peaks_of == "nucleus" else own
    means = []
    for row in range(batch.num_rows):
        own = batch.mask[row]
        if own.any():
            peaks = own if siren.quantile is None else own & (by[row] > by[row, own].quantile(siren.quantile)).detach()
            means.append(h[row, peaks].mean() if peaks.any() else 0 * h[row].sum())
    average = torch.stack(means).mean()
    value = -siren.coef * average if anchor is None else siren.coef * (average - anchor) ** 2
    return value, list(torch.autograd.grad(value, list(model.parameters())))


VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "crossing": {"include_crossing": True},
    "full entropy": {"top_p": None},
    "no mask": {"quantile": None},
    "peaks of the full entropy": {"peaks_of": "full", "quantile": 0.3},
    "no anchor": {"anchor": False},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("micro_batch_tokens", [10**6, 25])
def test_value_and_gradient_are_those_of_the_whole_mini_batch(name: str, micro_batch_tokens: int) -> None:
    siren = Siren(**({"coef": 3.0, "quantile": 0.5} | VARIANTS[name]))
    model, batch = Toy(), off_policy(Toy())
    anchor = 0.1 if siren.anchor else None
    value, expected = whole(siren, model, batch, anchor)
    bench = Bench(model, micro_batch_tokens=micro_batch_tokens)
    ours = step(bench, siren, batch, anchor)
    base = bench.step(plain(), batch)
    loss = ours.stats.sums["policy/loss"] - base.stats.sums["policy/loss"]
    assert loss == pytest.approx(value.item(), abs=1e-9)
    assert max(float(grad.abs().max()) for grad in expected) > 1e-3
    for (parameter, _), grad in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(ours.gradient[parameter] - base.gradient[parameter], grad, rtol=0, atol=1e-10)


def test_at_the_anchor_nothing_and_a_sign_that_flips_across_it() -> None:
    model, batch = Toy(), off_policy(Toy())
    siren, base = Siren(coef=1.0, quantile=None, top_p=None), Bench(model).step(plain(), batch)
    terms = policy(model).measure(batch, siren.statistics)
    here = mean(siren, batch, terms)
    pulls = {}
    for shift in (-0.2, 0.0, 0.2):
        outcome = step(Bench(model), siren, batch, here + shift)
        pulls[shift] = outcome.gradient["head.weight"] - base.gradient["head.weight"]
        assert outcome.stats.sums["policy/loss"] - base.stats.sums["policy/loss"] == pytest.approx(shift**2, abs=1e-6)
    assert pulls[0.0].abs().max() < 1e-6
    assert pulls[0.2].abs().max() > 1e-3
    torch.testing.assert_close(pulls[0.2], -pulls[-0.2], rtol=0, atol=1e-6)


def test_everything_switched_off_is_the_mean_entropy() -> None:
    model, batch = Toy(), off_policy(Toy())
    siren = Siren(top_p=None, quantile=None, anchor=False, coef=1.0)
    assert siren.statistics == {"entropy_t1"}
    terms = policy(model).measure(batch, siren.statistics)
    own = policy(model, temperature=1.0).measure(batch).entropy
    per_row = [float(own[row, batch.mask[row]].mean()) for row in range(batch.num_rows)]
    assert mean(siren, batch, terms) == pytest.approx(sum(per_row) / len(per_row), abs=1e-7)


def test_the_anchor_is_measured_once_over_the_whole_rollout_batch() -> None:
    model, batch = Toy(), on_policy(Toy())
    siren = Siren(quantile=0.5)
    here = replace(CONTEXT, services=ModelServices(policy=policy(model)))
    state = siren.begin_step(siren.initial_state(), batch, here)
    terms = policy(model).measure(batch, siren.statistics)
    assert state["anchor"] == pytest.approx(mean(siren, batch, terms), abs=1e-12)
    assert state["anchor"] > 0.1
    later = replace(here, step=5, services=ModelServices(policy=policy(Toy(seed=4))))
    assert siren.begin_step(state, on_policy(Toy(seed=4), 4), later) == state
    free = Siren(anchor=False)
    assert free.begin_step(free.initial_state(), batch, here) == {"anchor": None}


@pytest.mark.parametrize("variant", [{}, {"top_p": None}, {"peaks_of": "full"}])
def test_a_schedule_of_the_temperature_does_not_move_the_policy_from_its_anchor(variant: dict[str, Any]) -> None:
    # The weights are those of the anchor, so the term and its gradient are 0 at any temperature. Measured at the
    # step's, the mean would be below an anchor of temperature 1 by as much as the temperature sharpens the policy.
    model, objective = Toy(), plain(regularizer={"siren": Siren(coef=1.0, quantile=0.5, **variant)})
    batch = on_policy(model)
    state = Bench(model, temperature=1.0).step(objective, sampled_at(1.0, model, batch)).state
    for temperature in (1.0, 0.7, 1.3):
        bench, here = Bench(model, temperature=temperature), sampled_at(temperature, model, batch)
        ours, base = bench.step(objective, here, state), bench.step(plain(), here)
        assert ours.stats.sums["policy/loss"] == pytest.approx(base.stats.sums["policy/loss"], abs=1e-12)
        assert ours.distance(base) < 1e-9


def sampled_at(temperature: float, model: nn.Module, batch: TokenBatch) -> TokenBatch:
    logprobs = policy(model, temperature=temperature).measure(batch).logprobs
    return replace(batch, sampler_logprobs=logprobs)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"coef": -1.0}, r"siren\.coef=-1"),
        ({"top_p": 0.0}, r"siren\.top_p=0.0.*null for no nucleus"),
        ({"top_p": 1.5}, r"siren\.top_p=1.5"),
        ({"quantile": 1.0}, r"siren\.quantile=1.0.*null for no mask"),
    ],
)
def test_out_of_range_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Siren(**setting)
