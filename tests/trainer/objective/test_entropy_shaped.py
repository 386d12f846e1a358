"""Entropy on top of the advantage: the numbers of specification 14.5, and that no gradient goes through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, Bench, Toy, off_policy, on_policy, plain, policy
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.loop import with_advantages
from trainer.objective.advantages.entropy_shaped import EntropyShaped


def adjusted(shaped: EntropyShaped, advantage: float, entropy: float) -> float:
    batch = on_policy(Toy(), groups=1, group_size=1)
    value = torch.full(batch.mask.shape, entropy)
    terms = TokenTerms(logprobs=-value, entropy=value)
    batch = replace(batch, old_logprobs=-value, advantages=torch.full(batch.mask.shape, advantage))
    return float(shaped.adjusted(terms, ScoredBatch.of(batch))[0, 0])


@pytest.mark.parametrize(
    ("advantage", "entropy", "expected"),
    [
        (-1.0, 10.0, -0.5),  # min(4, 1/2) = 0.5
        (1.0, 10.0, 1.5),
        (0.0, 10.0, 0.0),
        (1.0, 0.5, 1.2),  # 0.4 * 0.5 = 0.2 is less than 1/2
        (-2.0, 0.5, -1.8),
        (1.0, 0.0, 1.0),
        (0.0, -1e-3, 0.0),  # an entropy of 0 that came out below
    ],
)
def test_by_hand(advantage: float, entropy: float, expected: float) -> None:
    assert adjusted(EntropyShaped(), advantage, entropy) == pytest.approx(expected, abs=1e-7)


def test_kappa_one_can_cancel_a_negative_advantage_and_no_more() -> None:
    assert adjusted(EntropyShaped(kappa=1.0), -1.0, 100.0) == 0.0


def test_no_sign_ever_flips() -> None:
    batch = ScoredBatch.of(with_advantages(off_policy(Toy()), plain(), CONTEXT))
    terms = policy(Toy()).measure(batch)
    shaped = EntropyShaped(alpha=50.0).adjusted(terms, batch)
    assert torch.equal(shaped.sign(), batch.advantages.double().sign())


def test_gradient_is_that_of_the_plain_loss_with_the_shaped_advantages_held_fixed() -> None:
    """d(advantage)/d(parameters) = 0: the surrogate's gradient with constants gives the same."""
    model = Toy()
    batch = on_policy(model)
    ours = Bench(model).step(plain(advantage=EntropyShaped()), batch).gradient
    ready = with_advantages(batch, plain(), CONTEXT)
    terms = policy(model).terms(ready)
    scored = ScoredBatch.of(replace(ready, old_logprobs=terms.logprobs.detach()))
    fixed = EntropyShaped().adjusted(terms.detach(), scored)
    assert not fixed.requires_grad
    loss = -(fixed * terms.logprobs)[ready.mask].sum() / ready.num_tokens
    grads: tuple[Tensor, ...] = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), grad in zip(model.named_parameters(), grads, strict=True):
        torch.testing.assert_close(ours[name], grad, rtol=0, atol=1e-7)
    unshaped = Bench(model).step(plain(), batch).gradient
    assert any(not torch.allclose(ours[name], unshaped[name], atol=1e-4) for name in ours)


@pytest.mark.parametrize("settings", [{"alpha": -0.1}, {"kappa": 0.9}, {"eps": -1.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"advantage\."):
        EntropyShaped(**settings)
