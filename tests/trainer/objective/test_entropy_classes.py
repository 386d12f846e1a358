"""Archer and ASPO: thresholds and weights by whether a response hesitates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.objective.base import Surrogate
from trainer.objective.regularizers.kl_low_entropy import KLLowEntropy
from trainer.objective.regularizers.kl_reference import KLReference
from trainer.objective.selection import above_row_quantile
from trainer.objective.surrogates.archer import Archer
from trainer.objective.surrogates.aspo import ASPO

ENTROPY = [[0.0, 0.1, 0.2, 0.3, 2.0]]
"""Its 0.8-quantile is 0.3 + 0.2 (2.0 - 0.3) = 0.64: the last token is entropic."""


def case(ratios: list[float], advantages: list[float]) -> tuple[TokenTerms, TokenBatch]:
    return handmade([[math.log(r) - 1 for r in ratios]], [advantages], old=[[-1.0] * 5], entropy=ENTROPY)


def slopes(surrogate: Surrogate, ratios: list[float], advantages: list[float]) -> list[float]:
    """Gradient by the log-prob of five tokens, the last of which is entropic."""
    terms, batch = case(ratios, advantages)
    return gradient(surrogate(terms, batch).loss, terms)[0]


def test_a_quantile_is_that_of_the_row_and_looks_at_masked_tokens_only() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, torch.nan], [5.0, 5.0, torch.nan, torch.nan], [torch.nan] * 4])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    # The median of the first row is 2; equal values are above none.
    assert above_row_quantile(values, mask, 0.5).tolist() == [[False, False, True, False], [False] * 4, [False] * 4]
    assert above_row_quantile(values, mask, 0.0)[0].tolist() == [False, True, True, False]
    assert not above_row_quantile(values, mask, 1.0).any()


def test_archer_clips_entropic_tokens_later() -> None:
    ratios, ones = [1.1, 1.3, 0.9, 0.7, 1.4], [1.0] * 5
    assert slopes(Archer(), ratios, ones) == pytest.approx([-1.1, 0.0, -0.9, -0.7, -1.4])
    assert slopes(Archer(), [0.9, 0.7, 1.1, 1.3, 0.6], [-1.0] * 5) == pytest.approx([0.9, 0.0, 1.1, 1.3, 0.6])
    assert slopes(Archer(), [1.0] * 4 + [1.6], ones)[4] == 0.0
    assert slopes(Archer(clip_entropic=0.2), ratios, ones)[4] == 0.0


def test_aspo_turns_the_ratio_of_positive_tokens_over() -> None:
    # 1 / 0.5 = 2, 1 / 1.1, beyond 1.2 nothing, 1 / 0.25 = 4 counts 3, 1 / 1.4 within the entropic threshold.
    found = slopes(ASPO(), [0.5, 1.1, 1.3, 0.25, 1.4], [1.0] * 5)
    assert found == pytest.approx([-2.0, -1 / 1.1, 0.0, -3.0, -1 / 1.4])


def test_aspo_leaves_that_of_negative_tokens() -> None:
    # 5 counts 3 and keeps a gradient; below 0.8 nothing, but the entropic token has until 0.5.
    assert slopes(ASPO(), [0.9, 2.0, 5.0, 0.7, 0.6], [-1.0] * 5) == pytest.approx([0.9, 2.0, 3.0, 0.0, 0.6])


def test_aspo_counts_what_it_clipped() -> None:
    found = ASPO()(*case([1.3, 0.7, 1.3, 0.7, 1.3], [1.0, -1.0, -1.0, 1.0, 1.0]))
    assert found.clipped_high[0].tolist() == [True, False, False, False, False]
    assert found.clipped_low[0].tolist() == [False, True, False, False, False]


def test_aspo_is_grpo_on_policy() -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    ours, grpo = bench.step(plain(surrogate=ASPO()), batch), bench.step(plain(), batch)
    assert grpo.size > 0.01 and ours.distance(grpo) < 1e-12


def test_the_divergence_leaves_entropic_tokens_alone() -> None:
    # log-ratio d = ref - now = 0.5: k3 = e^0.5 - 1.5 = 0.148721.
    terms, batch = handmade([[-1.0] * 5], [[0.0] * 5], entropy=ENTROPY)
    rows = replace(batch, ref_logprobs=terms.logprobs.detach() + 0.5)
    value = KLLowEntropy(coef=2.0)(terms, rows, torch.ones(1, 1))
    assert value[0].tolist() == pytest.approx([2 * 0.148721] * 4 + [0.0], abs=1e-6)


def test_with_no_token_entropic_it_is_the_divergence_of_all() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    ours, whole = (
        bench.step(plain(regularizer={"kl": member}), batch)
        for member in (KLLowEntropy(coef=0.1, quantile=1.0), KLReference(coef=0.1))
    )
    assert ours.distance(whole) == 0.0
    assert bench.step(plain(regularizer={"kl": KLLowEntropy(coef=0.1)}), batch).distance(whole) > 1e-6
