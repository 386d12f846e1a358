"""The three parts of an update add up to what PyTorch's optimiser does, to the last digits of float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.ledger.movement import movement

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3),
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
    "sgd with both": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.9, 0.95)),
    "adamw with decay": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.3, eps=1e-3),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_parts_are_the_update(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(5, 3, generator=generator, dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight])
    for _ in range(4):
        weight.grad = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        before = weight.detach().clone()
        parts = movement(optimizer, optimizer.param_groups[0], weight, weight.grad)
        expected = -parts.preconditioner * weight.grad + parts.momentum + parts.decay
        optimizer.step()
        torch.testing.assert_close(weight.detach() - before, expected, rtol=1e-12, atol=1e-14)


def test_adamw_by_hand() -> None:
    """First step with gradient 2: m = 0.2, v = 0.2, corrected 2 and sqrt(4) = 2, so the weight moves by -lr."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.5, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.1)
    parts = movement(optimizer, optimizer.param_groups[0], weight, torch.tensor([2.0], dtype=torch.float64))
    assert parts.preconditioner.item() == pytest.approx(0.25)
    assert parts.momentum.item() == 0
    assert parts.decay.item() == pytest.approx(-0.05)


@pytest.mark.parametrize(
    "optimizer", [lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, nesterov=True), lambda p: torch.optim.Adagrad(p)]
)
def test_other_optimisers_are_refused_in_words(optimizer: object) -> None:
    weight = nn.Parameter(torch.ones(1))
    made = optimizer([weight])  # type: ignore[operator]
    with pytest.raises(ValueError, match="ledger_every=0"):
        movement(made, made.param_groups[0], weight, torch.ones(1))
