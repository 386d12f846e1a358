"""The forward pass without padding against the plain one: same terms, same gradients, fewer tokens."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from testbench import PAD, VOCABULARY, make_rollouts, policy
from torch import nn

from trainer.batch.collate import collate, shared_micro_batches
from trainer.policy import shared_prompt
from trainer.policy.model import share_prompts

TOLERANCE = 2e-5
"""Float32 in two orders of summation; a token out of place moves terms by more than 1e-2."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def model(family: str, **settings: Any) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(SIZES | settings))
    made: nn.Module = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    return made


@pytest.mark.parametrize("family", ["Qwen3", "Qwen2", "Llama", "Phi3"])
@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("short", [0, shared_prompt.SHORT], ids=["fused kernel", "whole matrices"])
def test_terms_and_gradients_are_those_of_the_plain_pass(
    family: str, given: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prompt, "SHORT", short)
    plain = model(family)
    shared = copy.deepcopy(plain)
    assert share_prompts(shared)
    batch = collate(make_rollouts(1, groups=3, group_size=4, given=given), pad_id=PAD)
    results = []
    for network in (plain, shared):
        actor = policy(network)
        assert actor.shares_prompts is (network is shared)
        terms = actor.terms(batch, {"sum_p2_logp_h"})
        (terms.logprobs.sum() + (terms.entropy * torch.arange(batch.inputs.shape[1])).sum()).backward()
        results.append((terms, [parameter.grad for parameter in network.parameters()]))
    (expected, grads), (found, shared_grads) = results
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found.extras["sum_p2_logp_h"], expected.extras["sum_p2_logp_h"], rtol=0, atol=TOLERANCE)
    largest = max(float(grad.abs().max()) for grad in grads)
    for one, other in zip(grads, shared_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Gemma2", {"head_dim": 8, "attn_logit_softcapping": 5.0}),
        ("Mistral", {"sliding_window": 3}),
    ],
)
def test_a_model_whose_attention_is_another_keeps_its_own(family: str, settings: dict[str, Any]) -> None:
    network = model(family, **settings)
    before = network.config._attn_implementation  # type: ignore[union-attr]
    rows = torch.arange(8)[None]
    expected = network(input_ids=rows, use_cache=False).logits
    shares = share_prompts(network)
    assert not shares
    assert network.config._attn_implementation == before  # type: ignore[union-attr]
    torch.testing.assert_close(network(input_ids=rows, use_cache=False).logits, expected)


def test_a_prompt_lies_on_the_line_once() -> None:
    # Two rows of prompt (1, 2), one of prompt (3): s = 1 2 | 5 6, 1 2 | 7, 3 | 8 9 4; the last token is never fed.
    inputs = torch.tensor([[1, 2, 5], [1, 2, 0], [3, 8, 9]])
    packed = shared_prompt.pack_tokens(inputs, torch.tensor([3, 2, 3]), torch.tensor([2, 2, 1]))
    assert packed.tokens.tolist() == [1, 2, 3, 5, 8, 9]
    assert packed.positions.tolist() == [0, 1, 0, 2, 1, 2]
    assert packed.rows[0].tolist() == [0, 1, 3]
    assert packed.rows[1, :2].tolist() == [0, 1]
    assert packed.rows[2].tolist() == [2, 4, 5]
    assert packed.visible[2, 0].tolist() == [[True, True, False], [True, True, True]]
    assert packed.unpack_index.tolist() == [0, 1, 2, 4, 8, 9]


def test_rows_share_a_prompt_by_its_tokens_not_by_their_group() -> None:
    inputs = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 2, 3]])
    prompt_index, first = shared_prompt.distinct_prompts(inputs, torch.tensor([2, 2, 3]))
    assert prompt_index.tolist() == [0, 0, 1]
    assert first.tolist() == [0, 2]


def test_responses_of_no_token_of_their_own() -> None:
    # One sampled token after the prompt: it is predicted from the prompt's last token and never fed.
    network = model("Qwen3")
    assert share_prompts(network)
    rollouts = make_rollouts(2, groups=2, group_size=2, given=0)
    short = [replace(rollout, completion_ids=(3,), sampler_logprobs=(-1.0,)) for rollout in rollouts]
    batch = collate(short, pad_id=PAD)
    terms = policy(network).terms(batch)
    logits = network(input_ids=batch.inputs, use_cache=False).logits[batch.mask] / 0.9
    expected = logits.log_softmax(-1)[:, 3]
    torch.testing.assert_close(terms.logprobs[batch.mask], expected, rtol=0, atol=TOLERANCE)


def test_portions_count_each_prompt_once_and_keep_within_the_budget() -> None:
    lengths, prompts = torch.tensor([10, 9, 8, 7, 12]), torch.tensor([6, 6, 6, 3, 3])
    prompt_index = torch.tensor([0, 0, 0, 1, 1])
    # Own tokens 4 3 2 | 4 9; prompts 6 and 3: 6+4+3+2 = 15, then 3+4+9 = 16.
    parts = [part.tolist() for part in shared_micro_batches(lengths, prompts, prompt_index, 16)]
    assert parts == [[0, 1, 2], [3, 4]]
    assert [part.tolist() for part in shared_micro_batches(lengths, prompts, prompt_index, 13)] == [
        [0, 1],
        [2],
        [3],
        [4],
    ]
    assert [part.tolist() for part in shared_micro_batches(lengths, prompts, prompt_index, 1)] == [
        [0],
        [1],
        [2],
        [3],
        [4],
    ]
