"""The ledger's identities, and every token's influence against its own backward pass."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, VOCABULARY, Bench, Toy, off_policy, on_policy, on_ranks, plain, policy, widened
from torch import Tensor, nn

from trainer.batch.types import TokenBatch
from trainer.contract.config import OptimConfig
from trainer.ledger import ledger as ledgers
from trainer.ledger import tangents
from trainer.ledger.influence import ESTIMATORS, contest, deciles, quadrants, tenths
from trainer.ledger.ledger import Ledger, agreement, summary
from trainer.ledger.tangents import entropy_gradient, terms_along, trained_parameters
from trainer.objective.objective import Objective
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.regularizers.kl_reference import KLReference
from trainer.objective.surrogates.cispo import CISPO
from trainer.objective.surrogates.gspo import GSPO
from trainer.objective.weights.sign import Sign
from trainer.runtime.ranks import Ranks
from trainer.update.gradient import Learner

ROUNDING = 1e-11
"""Float64 sums of a few hundred terms of order 1e-2."""


THREE_UPDATES = OptimConfig(lr=0.05, max_grad_norm=0.0, updates_per_rollout=3)


@dataclass
class Watched:
    """A step of the trainer's own update, with a ledger of it."""

    objective: Objective = field(default_factory=plain)
    optim: OptimConfig = THREE_UPDATES
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = lambda p: torch.optim.AdamW(
        p, lr=0.05, weight_decay=0.1
    )
    rows: int = 0
    bench: dict[str, Any] = field(default_factory=dict)

    def run(self, model: nn.Module, batch: TokenBatch) -> Ledger:
        kept: list[Ledger] = []

        def observe(learner: Learner, objective: Objective, rows: TokenBatch) -> Ledger:
            kept.append(Ledger(learner=learner, objective=objective, contexts=rows, rows=self.rows))
            return kept[0]

        bench = Bench(model, optim=self.optim, optimizer=self.optimizer, observe=observe, **self.bench)
        bench.step(self.objective, batch)
        return kept[0]


def sgd(momentum: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=momentum)


OBJECTIVES = {
    "grpo": plain(),
    "signs": plain(weight={"sign": Sign(positive=0.3, negative=2.0)}),
    "regularized": plain(
        regularizer={"bonus": EntropyBonus(coef=0.3), "kl": KLReference(coef=0.2)},
    ),
    "cispo": plain(surrogate=CISPO()),
    "gspo": plain(surrogate=GSPO()),
}


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", [sgd(0.0), sgd(0.9), None], ids=["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_parts_of_every_update_add_up(name: str, optimizer: Any, clip: float) -> None:
    model = Toy()
    watched = Watched(objective=OBJECTIVES[name], optim=replace(THREE_UPDATES, max_grad_norm=clip, epochs=2))
    if optimizer is not None:
        watched.optimizer = optimizer
    ledger = watched.run(model, on_policy(model))
    assert len(ledger.entries) == 6
    for entry in ledger.entries:
        assert entry.exact
        parts = entry.gradient + entry.momentum + entry.weight_decay
        assert entry.predicted == pytest.approx(parts, abs=ROUNDING)
        assert sum(entry.members.values()) == pytest.approx(entry.gradient, abs=ROUNDING)
    found = summary(ledger.entries, 0.0)
    four = ("policy", "regularizers", "momentum", "weight_decay")
    assert found["ledger/predicted"] == pytest.approx(sum(found[f"ledger/{part}"] for part in four), abs=ROUNDING)
    for masks in (quadrants(ledger.entries[0].tokens), *_tenths(ledger.entries[0].tokens)):
        assert sum(mask.int() for mask in masks.values()).eq(1).all()


def _tenths(tokens: Any) -> list[dict[str, Tensor]]:
    return [dict(enumerate(deciles(tokens.entropy))), dict(enumerate(tenths(tokens.position)))]


def test_the_prediction_is_the_derivative_of_the_entropy_along_the_update() -> None:
    """Central differences of the mean entropy between the weights before and after, in float64."""
    model = Toy()
    batch = on_policy(model)
    moved: dict[str, Tensor] = {}
    watched = Watched(optim=replace(THREE_UPDATES, updates_per_rollout=1))

    def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        kept = list(parameters)
        made = torch.optim.AdamW(kept, lr=0.05)
        made.register_step_post_hook(lambda *_: moved.update(enumerate(p.detach().clone() for p in kept)))
        return made

    watched.optimizer = optimizer
    entry = watched.run(model, batch).entries[0]

    def entropy(by: float) -> float:
        other = copy.deepcopy(model)
        for value, end in zip(other.parameters(), moved.values(), strict=True):
            value.data += by * (end - value.data)
        return float(policy(other).measure(batch).entropy[batch.mask].mean())

    assert entry.entropy == pytest.approx(entropy(0.0), abs=1e-12)
    assert entry.predicted == pytest.approx((entropy(1e-4) - entropy(-1e-4)) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_influence_is_minus_each_tokens_own_gradient_along_the_direction(name: str) -> None:
    """One backward pass a token, and no forward mode at all."""
    model = Toy()
    batch, objective = off_policy(model), OBJECTIVES[name]
    lr = 0.05
    watched = Watched(objective=objective, optimizer=sgd(0.0), optim=OptimConfig(lr=lr, max_grad_norm=0.0))
    ledger = watched.run(model, batch)
    actor = policy(model)
    parameters = trained_parameters(actor)
    _, slope = entropy_gradient(actor, batch, Ranks())
    rows = ledger.examined[0]
    losses, _ = objective.token_losses(actor.terms(rows), rows, objective.reduction.scale(rows))
    expected = []
    for loss in losses["policy"][rows.mask]:
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        along = zip(parameters, found, strict=True)
        expected.append(-lr * sum(float((slope[key] * g).sum()) for key, g in along if g is not None))
    torch.testing.assert_close(
        ledger.entries[0].tokens.influence, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-14
    )


def test_central_differences_are_near_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy()
    batch = on_policy(model)
    exact = Watched(objective=OBJECTIVES["regularized"]).run(model, batch)

    def unsupported(*_: Any) -> None:
        raise NotImplementedError("Trying to use forward AD with an operator that does not support it")

    monkeypatch.setattr("trainer.ledger.tangents._forward_mode", unsupported)
    differences = Watched(objective=OBJECTIVES["regularized"]).run(model, batch)
    for first, second in zip(exact.entries, differences.entries, strict=True):
        assert first.exact and not second.exact
        scale = float(first.tokens.influence.abs().max())
        assert torch.allclose(first.tokens.influence, second.tokens.influence, rtol=0, atol=1e-6 * scale)
    found = summary(differences.entries, 0.0)
    assert found["ledger/exact"] == 0
    assert 0 < found["ledger/tokens_error"] < 1e-6 * abs(found["ledger/predicted"])


class Tabular(nn.Module):
    """Logits by a table with one row for each (row, position): contexts share no parameter."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.table = nn.Embedding(rows, VOCABULARY).double()
        self.table.weight.data = torch.randn(rows, VOCABULARY, generator=generator, dtype=torch.float64)
        self.head = nn.Linear(VOCABULARY, VOCABULARY, bias=False).double()
        self.head.weight.data = torch.eye(VOCABULARY, dtype=torch.float64)
        self.head.weight.requires_grad_(False)

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, *, input_ids: Tensor, position_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def test_without_shared_parameters_influence_is_the_exact_tabular_term() -> None:
    """SGD on a table: ``I = lr / M^2 * exact`` with M tokens, one share 1/M from the loss and one from the mean."""
    shape = on_policy(Toy())
    model = Tabular(shape.inputs.numel())
    numbers = torch.arange(shape.inputs.numel()).view_as(shape.inputs)
    batch = replace(shape, inputs=numbers, prompt_lengths=torch.ones_like(shape.prompt_lengths))
    logprobs = policy(model, temperature=1.0).measure(batch).logprobs
    batch = replace(batch, sampler_logprobs=logprobs, old_logprobs=None, old_entropy=None)
    optim = OptimConfig(lr=0.05, max_grad_norm=0.0)
    watched = Watched(optim=optim, optimizer=sgd(0.0), bench={"temperature": 1.0})
    tokens = watched.run(model, batch).entries[0].tokens
    count = batch.num_tokens
    expected = ESTIMATORS["exact"](tokens) * optim.lr / count**2
    torch.testing.assert_close(tokens.influence, expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(tokens.coefficient, tokens.advantage.double(), rtol=1e-6, atol=1e-9)
    assert contest([tokens])["exact"] == pytest.approx(1.0)


def by_row(ledger: Ledger) -> Tensor:
    """Influence of each row's tokens in all, over the updates."""
    tokens = ledger.entries[0].tokens
    return torch.zeros(int(tokens.row.max()) + 1, dtype=torch.float64).index_add(0, tokens.row, tokens.influence)


ONE = Watched(optim=OptimConfig(lr=0.05, max_grad_norm=0.5), objective=OBJECTIVES["regularized"])


def test_invariance_to_micro_batches_padding_and_order() -> None:
    model = Toy()
    batch = off_policy(model)
    whole = ONE.run(model, batch)
    order = torch.randperm(batch.num_rows, generator=torch.Generator().manual_seed(1))
    for other, index in (
        (replace(ONE, bench={"micro_batch_tokens": 20, "head_chunk": 3}).run(model, batch), None),
        (ONE.run(model, widened(batch, 4)), None),
        (ONE.run(model, batch.rows(order)), order),
    ):
        expected = by_row(whole) if index is None else by_row(whole)[index]
        torch.testing.assert_close(by_row(other), expected, rtol=0, atol=1e-8 * float(expected.abs().max()))
        assert other.entries[0].predicted == pytest.approx(whole.entries[0].predicted, rel=1e-6)


def test_invariance_to_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    # A level of forward mode and the choice of attention kernels belong to the process, and these ranks are threads
    # of one: at once, each would restore what the other had set.
    alone_in_it, forward_mode = threading.Lock(), tangents._forward_mode

    def one_by_one(*args: Any) -> Any:
        with alone_in_it:
            return forward_mode(*args)

    monkeypatch.setattr(tangents, "_forward_mode", one_by_one)
    model = Toy()
    batch = off_policy(model)
    alone = by_row(ONE.run(model, batch))
    for found in on_ranks(
        2, lambda ranks: by_row(replace(ONE, bench={"ranks": ranks, "micro_batch_tokens": 40}).run(model, batch))
    ):
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-9 * float(alone.abs().max()))


def test_tokens_that_the_loss_leaves_alone_have_no_influence() -> None:
    model = Toy()
    batch = off_policy(model, spread=1.0)
    muted = plain(weight={"sign": Sign(positive=1.0, negative=0.0)})
    tokens = Watched(objective=muted, optim=ONE.optim).run(model, batch).entries[0].tokens
    negative, kept = tokens.advantage < 0, tokens.influence != 0
    assert negative.any() and not kept[negative].any()
    clipped = (tokens.advantage > 0) & (tokens.ratio > 1.2)
    assert clipped.any() and not kept[clipped].any()
    assert (tokens.coefficient[negative | clipped] == 0).all()
    assert quadrants(tokens)["neutral"][negative | clipped].all()


def test_a_sample_of_prompts_stands_for_all_of_them() -> None:
    """Averaged over many draws, the sum over the responses to sampled prompts is the sum over all."""
    model = Toy()
    batch = off_policy(model)
    whole = Watched(optim=ONE.optim).run(model, batch).entries[0].members["policy"]
    draws = [
        Watched(optim=ONE.optim, rows=6, bench={"context": replace(CONTEXT, seed=seed)}).run(model, batch)
        for seed in range(60)
    ]
    sums = torch.tensor([draw.entries[0].members["policy"] for draw in draws], dtype=torch.float64)
    assert all(draw.entries[0].tokens.share == 2.0 for draw in draws)
    assert abs(float(sums.mean()) - whole) < 4 * float(sums.std()) / len(draws) ** 0.5
    assert draws[0].entries[0].gradient == pytest.approx(whole, abs=ROUNDING)


def test_what_half_batches_agree_on() -> None:
    def tokens(*by_group: float, first: int = 0) -> Any:
        values = torch.tensor(by_group, dtype=torch.float64)
        groups = first + torch.arange(len(by_group)) * 3
        return SimpleNamespace(influence=values, group=groups, share=2.0)

    assert agreement([tokens(1.0, 2.0, 2.0)]) == pytest.approx(2 * 2 * 2.0)  # halves 3 and 2, each counted twice
    assert agreement([tokens(-1.0, -2.0)]) == pytest.approx(-4.0)
    assert agreement([tokens(1.0, -2.0)]) == 0


def test_half_batches_are_those_of_the_step_where_each_update_looks_at_one_prompt() -> None:
    def update(prompt: int, value: float) -> Any:
        influence = torch.tensor([value, value], dtype=torch.float64)
        return SimpleNamespace(influence=influence, group=torch.tensor([prompt, prompt]), share=1.0)

    # Prompts 2, 5 and 9 in three updates: halves (2, 9) and (5) with sums 2 + 4 and 3 x 2.
    assert agreement([update(5, 3.0), update(2, 1.0), update(9, 2.0)]) == pytest.approx(2 * 6.0)
    assert agreement([update(5, 3.0)]) is None


def test_estimators_by_hand() -> None:
    """One token with p = 1/4, H = 1, effective coefficient 2, ratio times advantage 3."""
    log_p = torch.tensor([0.25], dtype=torch.float64).log()
    one = torch.ones(1, dtype=torch.float64)
    tokens: Any = SimpleNamespace(
        logprobs=log_p, entropy=one, coefficient=2 * one, ratio=1.5 * one, advantage=2 * one, sum_p2_logp_h=0.1 * one
    )
    gap = float(log_p) + 1
    expected = {
        "covariance": 0.0,
        "steer_published": -2 * 0.75 * gap,
        "steer_released": -3 * 0.75 * gap,
        "exact": -2 * (0.25 * gap - 0.1),
        "advantage": -2.0,
        "probability": -0.25,
        "surprisal": -2 * float(log_p),
    }
    assert {name: float(estimate(tokens)) for name, estimate in ESTIMATORS.items()} == pytest.approx(expected)


def test_entropy_gradient_leaves_the_gradient_alone() -> None:
    model = Toy()
    actor, batch = policy(model), on_policy(model)
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    entropy_gradient(actor, batch, Ranks())
    direction = {name: torch.ones_like(value) for name, value in trained_parameters(actor).items()}
    terms_along(actor, batch, direction, Ranks())
    assert all((value.grad == 1).all() for value in model.parameters())


def test_no_update_is_no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen policy (learning rate 0) has a ledger of zeros, and its entropy was measured."""
    model = Toy()
    ledger = replace(ONE, optim=OptimConfig(lr=0.0)).run(model, on_policy(model))
    found = ledger.metrics()
    zero = {"predicted", "policy", "momentum", "weight_decay", "positive_likely"}
    assert {found[f"ledger/{name}"] for name in zero} == {0.0}
    assert abs(found["ledger/measured"]) < 1e-14
    assert ledgers.contest([entry.tokens for entry in ledger.entries]) == {}
