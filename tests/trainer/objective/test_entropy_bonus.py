"""The entropy bonus: specification 14.1 by finite differences, at the uniform distribution, and in the whole loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import PAD, Bench, Toy, make_rollouts, off_policy, plain, policy

from trainer.batch.collate import collate
from trainer.batch.types import TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.reductions import SequenceMean, TokenMean
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.policy.token_stats import token_stats


def entropy_gradient(logits: torch.Tensor, coef: float) -> torch.Tensor:
    """Gradient of the term with respect to logits [1, V], one token of scale 1."""
    stats = token_stats(torch.eye(1, dtype=torch.float64), logits.T, torch.tensor([0]))
    terms = TokenTerms(logprobs=stats["logprobs"][None], entropy=stats["entropy"][None])
    batch = collate(make_rollouts(groups=1, group_size=1), pad_id=PAD)
    term = EntropyBonus(coef=coef)(terms, batch, torch.ones(1, 1)).sum()
    return torch.autograd.grad(term, logits)[0]


def test_gradient_is_coef_times_p_times_log_p_plus_entropy_and_equals_finite_differences() -> None:
    logits = torch.tensor([[0.7, -0.3, 1.9, 0.0]], dtype=torch.float64, requires_grad=True)
    log_p = logits.detach().log_softmax(dim=-1)
    entropy = -(log_p.exp() * log_p).sum()
    ours = entropy_gradient(logits, coef=0.5)
    # term = -coef H and dH/dz_a = -p_a (log p_a + H).
    torch.testing.assert_close(ours, 0.5 * log_p.exp() * (log_p + entropy), rtol=0, atol=1e-12)
    step = 1e-6
    for a in range(4):
        sides = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[0, a] += sign * step
            log_p = moved.log_softmax(dim=-1)
            sides.append(0.5 * float((log_p.exp() * log_p).sum()))
        assert ours[0, a].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-9)


def test_uniform_distribution_has_no_gradient() -> None:
    assert entropy_gradient(torch.full((1, 7), 0.4, dtype=torch.float64, requires_grad=True), 10.0).abs().max() < 1e-14


@pytest.mark.parametrize("reduction", [TokenMean(), SequenceMean()])
def test_term_is_minus_coef_times_the_reduced_entropy(reduction: TokenMean | SequenceMean) -> None:
    model = Toy()
    batch = off_policy(model)
    terms = policy(model).measure(batch)
    scale = reduction.scale(batch)
    term = EntropyBonus(coef=0.25)(terms, batch, scale).sum()
    per_row = [float(terms.entropy[i, batch.mask[i]].sum()) for i in range(batch.num_rows)]
    counts = batch.mask.sum(dim=1).tolist()
    if isinstance(reduction, TokenMean):
        expected = sum(per_row) / sum(counts)
    else:
        expected = sum(total / count for total, count in zip(per_row, counts, strict=True)) / len(counts)
    assert term.item() == pytest.approx(-0.25 * expected, rel=1e-5)


def test_a_step_with_the_bonus_leaves_more_entropy_and_one_with_a_penalty_less() -> None:
    model = Toy()
    batch = off_policy(model)
    entropies = []
    for coef in (-1.0, 0.0, 1.0):
        outcome = Bench(model).step(plain(regularizer={"entropy_bonus": EntropyBonus(coef=coef)}), batch)
        moved = Toy()
        for name, parameter in moved.named_parameters():
            parameter.data -= 0.05 * outcome.gradient[name]
        after = policy(moved).measure(replace(batch)).entropy[batch.mask]
        entropies.append(float(after.mean()))
    assert entropies[0] < entropies[1] < entropies[2]


def test_an_absurd_coefficient_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"entropy_bonus\.coef=1000"):
        EntropyBonus(coef=1000.0)
