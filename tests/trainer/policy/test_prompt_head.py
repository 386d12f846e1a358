"""The network on prompts: numbers by hand, its dropout, and that whoever stores or samples a plain model misses it."""

from __future__ import annotations

import torch
from testbench import Toy

from trainer.policy import adapter, prompt_head
from trainer.policy.prompt_head import PromptHead, add_head, head_weights


@torch.no_grad()
def filled(head: PromptHead) -> PromptHead:
    """Identities in the hidden layers; then (1, 2, ...) and a bias of 0.5."""
    for linear in head.hidden:
        linear.weight.copy_(torch.eye(linear.weight.shape[0]))  # type: ignore[operator, union-attr]
        linear.bias.zero_()  # type: ignore[operator, union-attr]
    head.last.weight.copy_(torch.arange(1.0, head.last.weight.shape[1] + 1)[None])
    head.last.bias.fill_(0.5)
    return head.double()


def test_numbers_by_hand() -> None:
    features = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    # One layer: 3 - 2 + 0.5. Two: GELU keeps the order, the layer norm of two numbers is (1, -1): 1 - 2 + 0.5.
    with torch.no_grad():
        assert float(filled(PromptHead(2, layers=1, dropout=0.0))(features)) == 1.5
        assert abs(float(filled(PromptHead(2, layers=2, dropout=0.0))(features)) + 0.5) < 1e-4


def test_dropout_depends_on_the_seed_of_the_row_alone_and_keeps_the_mean() -> None:
    head = filled(PromptHead(4, layers=2, dropout=0.25))
    features = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    seeds = torch.arange(4000)
    with torch.no_grad():
        drawn = head(features.expand(4000, -1), seeds)
        assert torch.equal(drawn[[7, 3]], head(features.expand(2, -1), torch.tensor([7, 3])))
        # Each of four numbers is there or not: sixteen different sums, and their mean is the one without dropout.
        assert len(drawn.unique()) == 16
        assert abs(float(drawn.mean() - head(features))) < 0.1


def test_it_is_drawn_from_its_seed_and_leaves_the_global_generator_alone() -> None:
    models = [Toy(), Toy(), Toy()]
    before = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        add_head(model, lambda width: PromptHead(width, layers=3, dropout=0.1), seed)
    assert torch.equal(torch.get_rng_state(), before)
    one, same, other = (head_weights(model)[f"{prompt_head.NAME}.last.weight"] for model in models)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == torch.float64 and one.shape == (1, 6)


def test_none_is_made_where_nobody_asks() -> None:
    model = Toy()
    add_head(model, lambda width: None, 0)
    assert head_weights(model) == {} and prompt_head.state(model) == {}


def test_a_plain_model_is_sampled_and_stored_and_the_network_comes_back_from_beside_it() -> None:
    model, again = Toy(), Toy(seed=1)
    for each, seed in ((model, 1), (again, 2)):
        add_head(each, lambda width: PromptHead(width, layers=3, dropout=0.1), seed)
    stored, kept = dict(adapter.merged(model)), prompt_head.state(model)
    assert stored.keys() == Toy().state_dict().keys()
    adapter.resume(again, stored, kept)
    prompt_head.resume(again, kept)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
