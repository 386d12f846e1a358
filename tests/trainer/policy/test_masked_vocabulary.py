"""Barred tokens (logits of -inf) are as if they were not in the vocabulary, by elementary operators and in forward
mode; the tiled pass is in test_token_stats.py."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from testbench import Toy, policy
from torch import Tensor, nn

from trainer.policy import token_stats as module
from trainer.policy.policy import Policy
from trainer.policy.token_stats import plain_token_stats

ROWS, WIDTH, KEPT = 7, 5, 40
STATISTICS = ("sum_p2_logp_h", "entropy_t1", "top_p_entropy@0.8", "min_p_logmass@0.05", "min_p_kept@0.05")
BARRED = {
    "scattered": torch.arange(100) % 5 >= 2,
    "whole tiles": torch.arange(100) >= KEPT,
    "first": torch.arange(100) < 60,
}


def inputs(barred: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weights and bias of 100 tokens of which 40 are kept, targets among those, and the kept ones."""
    generator = torch.Generator().manual_seed(0)
    kept = (~barred).nonzero().squeeze(1)
    assert len(kept) == KEPT
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(100, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(100, generator=generator, dtype=torch.float64)
    return hidden, weight, bias, torch.randint(KEPT, (ROWS,), generator=generator), kept


@pytest.mark.parametrize("barred", BARRED.values(), ids=BARRED)
def test_barred_tokens_are_as_if_they_were_not_there(barred: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", {"cpu": 64 * ROWS, "cuda": 64 * ROWS})
    monkeypatch.setattr(module, "MIN_SIDE", 4)
    hidden, weight, bias, targets, kept = inputs(barred)
    masked = bias.masked_fill(barred, -torch.inf).requires_grad_()
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    theirs = [hidden.clone().requires_grad_(), weight[kept].clone().requires_grad_()]
    own_bias = bias[kept].clone().requires_grad_()
    options = {"temperature": 0.7, "statistics": STATISTICS, "chunk": 3}
    found = plain_token_stats(*ours, kept[targets], bias=masked, **options)
    expected = plain_token_stats(*theirs, targets, bias=own_bias, **options)
    for name, value in expected.items():
        assert bool(found[name].isfinite().all())
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)
        if not value.requires_grad:
            continue
        one = torch.autograd.grad(found[name].sum(), [*ours, masked], retain_graph=True)
        other = torch.autograd.grad(value.sum(), [*theirs, own_bias], retain_graph=True)
        torch.testing.assert_close(one[0], other[0], rtol=1e-11, atol=1e-12)
        for whole, part in zip(one[1:], other[1:], strict=True):
            torch.testing.assert_close(whole[kept], part, rtol=1e-11, atol=1e-12)
            assert not bool(whole[barred].any()), f"{name}: a barred token has a gradient"


def test_forward_mode_stays_finite_and_exact() -> None:
    hidden, weight, bias, targets, kept = inputs(BARRED["scattered"])
    masked = bias.masked_fill(BARRED["scattered"], -torch.inf)
    tangent = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slopes = []
    for head, own, aims in ((weight, masked, kept[targets]), (weight[kept], bias[kept], targets)):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(hidden, tangent)
            found = plain_token_stats(dual, head, aims, bias=own, statistics=("sum_p2_logp_h",))
            slopes.append({name: forward_ad.unpack_dual(value).tangent for name, value in found.items()})
    for name, value in slopes[1].items():
        torch.testing.assert_close(slopes[0][name], value, rtol=1e-11, atol=1e-12)


def test_the_support_is_what_the_output_layer_does_not_bar() -> None:
    def support(bias: Tensor | None) -> int:
        model = Toy()
        head = nn.Linear(3, 5, bias=bias is not None)
        if bias is not None:
            head.bias = nn.Parameter(bias)
        model.get_output_embeddings = lambda: head
        found: Policy = policy(model)
        return found.support

    assert support(None) == support(torch.zeros(5)) == 5
    assert support(torch.tensor([0.0, -torch.inf, 1.0, -torch.inf, 2.0])) == 3
