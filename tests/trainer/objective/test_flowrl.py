"""FlowRL: loss and gradients by hand, its fixed point, and the network that learns log Z."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from handmade import handmade
from testbench import CONTEXT, Bench, Toy, equipped, on_policy, plain
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.objective.reductions import SequenceMean
from trainer.objective.surrogates.flowrl import FlowRL
from trainer.policy import prompt_head


def flow(
    logprobs: list[list[float]], advantage: float, ref: list[list[float]], old: list[list[float]], log_z: float
) -> tuple[TokenTerms, ScoredBatch, Tensor]:
    """Rows of one advantage, and log Z as a leaf."""
    terms, batch = handmade(logprobs, [[advantage] * len(row) for row in logprobs], old=old)
    column = torch.full_like(terms.logprobs, log_z).detach().requires_grad_()
    batch = replace(batch, ref_logprobs=torch.tensor(ref, dtype=torch.float64))
    return TokenTerms(logprobs=terms.logprobs, entropy=terms.entropy, extras={prompt_head.NAME: column}), batch, column


def test_loss_and_gradients_by_hand() -> None:
    terms, batch, log_z = flow([[-1.0, -2.0]], 0.1, [[-2.0, -2.0]], [[-1.5, -2.0]], 0.25)
    loss = (SequenceMean().scale(batch) * FlowRL()(terms, batch).loss).sum()
    # delta = 0.25 - 1.5 - 15 * 0.1 + 2 = -0.75; w = exp(0.5 + 0) = 1.648721; w delta^2 = 0.927406.
    assert float(loss.detach()) == pytest.approx(0.927406, abs=1e-6)
    by_logprobs, by_log_z = torch.autograd.grad(loss, [terms.logprobs, log_z])
    # 2 w delta, shared by the two tokens of the mean: -1.236541 each; and all of it for log Z.
    assert by_logprobs[0].tolist() == pytest.approx([-1.236541, -1.236541], abs=1e-6)
    assert float(by_log_z.sum()) == pytest.approx(-2.473082, abs=1e-6)


def test_the_weight_of_a_response_ends_at_ten_and_has_no_gradient() -> None:
    # The sum over the response moved by ln 20: w = 10. delta = 0 - 1 - 0 + 2 = 1.
    terms, batch, _ = flow([[-1.0, -1.0]], 0.0, [[-2.0, -2.0]], [[-1.0, -1.0 - math.log(20)]], 0.0)
    found = FlowRL()(terms, batch).loss
    assert found[0].tolist() == pytest.approx([10.0, 10.0])
    gradient = torch.autograd.grad((SequenceMean().scale(batch) * found).sum(), terms.logprobs)[0]
    assert gradient[0].tolist() == pytest.approx([10.0, 10.0])


def test_where_the_policy_is_the_tilted_reference_nothing_moves() -> None:
    # mean logprobs = mean ref + beta A - log Z: -1.5 = -2 + 15 * 0.1 - 1.
    terms, batch, log_z = flow([[-1.0, -2.0]], 0.1, [[-2.0, -2.0]], [[-1.0, -2.0]], 1.0)
    loss = FlowRL()(terms, batch).loss.sum()
    by_logprobs, by_log_z = torch.autograd.grad(loss, [terms.logprobs, log_z])
    assert by_logprobs.abs().max() < 1e-12 and by_log_z.abs().max() < 1e-12


def test_responses_without_advantage_learn_too() -> None:
    model, objective = Toy(), plain(surrogate=FlowRL(), reduction=SequenceMean())
    batch = on_policy(model)
    batch = replace(batch, rewards=torch.ones(batch.num_rows))
    assert not objective.surrogate.silent_without_advantage
    assert Bench(model).step(objective, batch).size > 1e-3


def test_log_z_is_trained_with_the_policy_and_reaches_its_hidden_states() -> None:
    model, objective = Toy(), plain(surrogate=FlowRL(dropout=0.0), reduction=SequenceMean())
    batch = on_policy(model)
    outcome = Bench(model).step(objective, batch)
    names = [name for name in outcome.gradient if prompt_head.is_head(name)]
    assert len(names) == 10 and all(outcome.gradient[name].any() for name in names)
    # At the sampling weights delta = log Z - beta A, as the reference is the policy: the gradient of log Z is 2 delta.
    assert outcome.batch.advantages is not None
    head = getattr(equipped(model, objective), prompt_head.NAME)
    inside = torch.arange(batch.inputs.shape[1]) < batch.prompt_lengths[:, None]
    positions = torch.arange(batch.inputs.shape[1]).expand_as(batch.inputs)
    with torch.no_grad():
        states = model.base_model(input_ids=batch.inputs, position_ids=positions, use_cache=False).last_hidden_state
        features = (states * inside[..., None]).sum(dim=1) / batch.prompt_lengths[:, None]
        delta = head(features) - 15 * outcome.batch.advantages.sum(dim=1) / batch.mask.sum(dim=1)
    expected = 2 * delta.mean()
    assert float(outcome.gradient[f"{prompt_head.NAME}.last.bias"]) == pytest.approx(float(expected), rel=1e-6)
    # Prompt tokens are embedded for the network as well: an embedding that only prompts use has gradient.
    assert outcome.stats.means()["policy/loss"] == pytest.approx(float(delta.square().mean()), rel=1e-6)


def test_dropout_is_drawn_for_each_row_of_a_step() -> None:
    batch = on_policy(Toy())
    seeds, again = (FlowRL().columns(batch, CONTEXT)[prompt_head.SEED] for _ in range(2))
    assert torch.equal(seeds, again) and len(seeds.unique()) == batch.num_rows
    assert not torch.equal(seeds, FlowRL().columns(batch, replace(CONTEXT, step=2))[prompt_head.SEED])
    assert FlowRL(dropout=0.0).columns(batch, CONTEXT) == {}
    model, objective = Toy(), plain(surrogate=FlowRL(), reduction=SequenceMean())
    dropped = Bench(model).step(objective, batch)
    whole = Bench(model).step(replace(objective, surrogate=FlowRL(dropout=0.0)), batch)
    assert dropped.distance(whole) > 1e-3
