"""One gradient, however the work is cut: on a real transformers model, and on three real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import gloo_rank
import pytest
import torch
from testbench import SUM_TOLERANCE, VOCABULARY, Bench, Toy, off_policy, on_policy, on_ranks, plain, policy, widened
from torch import nn

from trainer.batch.types import TokenBatch
from trainer.contract.paths import ROOT
from trainer.objective.objective import Objective
from trainer.objective.reductions import SequenceMean
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.weights.sign import Sign
from trainer.policy.model import check_head, share_prompts
from trainer.runtime.ranks import Ranks

QWEN_TOLERANCE = 2e-5
"""Relative to the largest gradient. The model computes in float32, where a matrix product of another shape rounds
otherwise; a lost row or a shifted position moves gradients by more than 1e-2."""

HELPERS = Path(__file__).resolve().parent.parent / "helpers"


@pytest.fixture(scope="module", params=["plain", "shared prompts"])
def qwen(request: pytest.FixtureRequest) -> nn.Module:
    """A random Qwen3 with two layers and tied embeddings, with its own attention and with ours."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.3,
        attn_implementation="sdpa",
    )
    model = Qwen3ForCausalLM(config).eval()
    check_head(model)
    if request.param == "shared prompts":
        assert share_prompts(model)
    return model


@pytest.fixture(scope="module")
def mixed() -> Objective:
    """Every slot busy."""
    return plain(
        weight={"sign": Sign(positive=0.5, negative=1.25)},
        regularizer={"bonus": EntropyBonus(coef=0.05)},
        surrogate=PPOClip(clip_low=0.15, clip_high=0.25, dual_clip=2.0),
        reduction=SequenceMean(),
    )


@pytest.fixture(scope="module", params=["on_policy", "off_policy"])
def batch(request: pytest.FixtureRequest, qwen: nn.Module) -> TokenBatch:
    make = on_policy if request.param == "on_policy" else off_policy
    return make(qwen, 2, groups=5, group_size=4)


@pytest.mark.parametrize("tokens", [1, 17, 40, 90])
@pytest.mark.parametrize("chunk", [3, 4096])
def test_micro_batch_and_head_chunk(
    qwen: nn.Module, mixed: Objective, batch: TokenBatch, tokens: int, chunk: int
) -> None:
    whole = Bench(qwen).step(mixed, batch)
    parts = Bench(qwen, micro_batch_tokens=tokens, head_chunk=chunk).step(mixed, batch)
    assert whole.size > 1e-3
    assert parts.distance(whole) <= QWEN_TOLERANCE * whole.size
    assert parts.stats.means() == pytest.approx(whole.stats.means(), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(parts.batch.old_logprobs, whole.batch.old_logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(parts.batch.old_entropy, whole.batch.old_entropy, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extra", [1, 9])
def test_padding(qwen: nn.Module, mixed: Objective, batch: TokenBatch, extra: int) -> None:
    whole = Bench(qwen).step(mixed, batch)
    assert Bench(qwen).step(mixed, widened(batch, extra)).distance(whole) <= QWEN_TOLERANCE * whole.size


def test_padding_tokens_are_never_read(qwen: nn.Module, mixed: Objective, batch: TokenBatch) -> None:
    whole = Bench(qwen).step(mixed, batch)
    real = torch.arange(batch.inputs.shape[1]) < batch.lengths[:, None]
    other = replace(batch, inputs=batch.inputs.where(real, 7), targets=batch.targets.where(real, 3))
    assert Bench(qwen).step(mixed, other).distance(whole) == 0.0


def test_row_order(qwen: nn.Module, mixed: Objective, batch: TokenBatch) -> None:
    whole = Bench(qwen).step(mixed, batch)
    order = torch.randperm(batch.num_rows, generator=torch.Generator().manual_seed(1))
    assert Bench(qwen).step(mixed, batch.rows(order)).distance(whole) <= QWEN_TOLERANCE * whole.size


@pytest.mark.parametrize("world", [2, 3])
def test_ranks(qwen: nn.Module, mixed: Objective, batch: TokenBatch, world: int) -> None:
    alone = Bench(qwen, micro_batch_tokens=60).step(mixed, batch)
    for outcome in on_ranks(world, lambda ranks: Bench(qwen, micro_batch_tokens=60, ranks=ranks).step(mixed, batch)):
        assert outcome.distance(alone) <= QWEN_TOLERANCE * alone.size
        assert outcome.stats.means() == pytest.approx(alone.stats.means(), rel=1e-5, abs=1e-7)


def test_a_batch_of_one_position_per_row_and_a_wide_one_describe_the_same_tokens(
    qwen: nn.Module, batch: TokenBatch
) -> None:
    terms = policy(qwen).measure(batch)
    for row in range(batch.num_rows):
        alone = policy(qwen).measure(batch.rows(torch.tensor([row])))
        width = alone.logprobs.shape[1]
        torch.testing.assert_close(alone.logprobs[0], terms.logprobs[row, :width], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.entropy[0], terms.entropy[row, :width], rtol=0, atol=1e-5)


def test_terms_are_those_of_the_models_own_logits(qwen: nn.Module, batch: TokenBatch) -> None:
    # Position t describes targets[:, t]: the model's logits at t, divided by the temperature.
    with torch.no_grad():
        log_p = (qwen(input_ids=batch.inputs).logits.double() / 0.9).log_softmax(dim=-1)
    terms = policy(qwen, temperature=0.9).measure(batch)
    logprobs = log_p.gather(2, batch.targets[..., None]).squeeze(2)
    entropy = -(log_p.exp() * log_p).sum(dim=-1)
    torch.testing.assert_close(terms.logprobs[batch.mask].double(), logprobs[batch.mask], rtol=0, atol=1e-5)
    torch.testing.assert_close(terms.entropy[batch.mask].double(), entropy[batch.mask], rtol=0, atol=1e-5)


def test_positions_count_from_zero_and_the_head_has_its_bias() -> None:
    # The toy model divides by position + 1 where Qwen3 turns by differences of positions only.
    model = Toy()
    batch = on_policy(model)
    positions = torch.arange(batch.inputs.shape[1]).expand(batch.inputs.shape)
    with torch.no_grad():
        hidden = model.base_model(input_ids=batch.inputs, position_ids=positions, use_cache=False).last_hidden_state
        log_p = (model.head(hidden) / 0.9).log_softmax(dim=-1)
    expected = log_p.gather(2, batch.targets[..., None]).squeeze(2)
    terms = policy(model, temperature=0.9).measure(batch)
    torch.testing.assert_close(terms.logprobs[batch.mask].double(), expected[batch.mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_shares_of_the_ranks_are_disjoint_and_complete_and_measure_adds_up(world: int) -> None:
    model = Toy()
    batch = on_policy(model)
    actor = policy(model, micro_batch_tokens=25)
    shares = [
        index
        for rank in range(world)
        for part in actor.micro_batch_indices(batch, rank=rank, world=world)
        for index in part.tolist()
    ]
    assert sorted(shares) == list(range(batch.num_rows))
    whole = actor.measure(batch, {"sum_p2_logp_h"})
    parts = [actor.measure(batch, {"sum_p2_logp_h"}, rank=rank, world=world) for rank in range(world)]
    # Close, not equal: a rank multiplies other rows together, and kernels may sum those in another order.
    same = partial(torch.testing.assert_close, rtol=0, atol=1e-6)
    same(torch.stack([part.logprobs for part in parts]).sum(dim=0), whole.logprobs)
    same(torch.stack([part.entropy for part in parts]).sum(dim=0), whole.entropy)
    same(torch.stack([part.extras["sum_p2_logp_h"] for part in parts]).sum(dim=0), whole.extras["sum_p2_logp_h"])


def test_the_reference_model_is_a_frozen_copy() -> None:
    model = Toy()
    batch = on_policy(model)
    reference = policy(model).frozen_copy()
    before = reference.measure(batch).logprobs
    for parameter in model.parameters():
        parameter.data.add_(1.0)
    assert torch.equal(reference.measure(batch).logprobs, before)
    assert not any(parameter.requires_grad for parameter in reference.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow  # three processes that import everything: 10 s and more on two shared cores
def test_three_processes_over_gloo_with_whole_and_with_sharded_weights(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}
    paths = os.pathsep.join([str(ROOT), str(HELPERS)])
    command = [sys.executable, str(HELPERS / "gloo_rank.py"), str(tmp_path / "result")]
    environment = os.environ | address | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    running = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(3)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    alone = gloo_rank.outcomes(Ranks(), shard=False)
    # A sum of three parts instead of one, in that type.
    tolerance = {"float32": 1e-6, "offload": 1e-6, "bfloat16": 2**-7, "autocast": 2**-7}
    for rank in range(3):
        result = torch.load(tmp_path / f"result.{rank}", weights_only=True)
        expected = [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert (result["world"], result["gathered"], result["any"]) == (3, expected, True)
        for name, outcome in alone.items():
            relative = tolerance.get(name, SUM_TOLERANCE)
            assert result["gradients"][name].keys() == outcome.gradient.keys()
            for key, value in result["gradients"][name].items():
                torch.testing.assert_close(value, outcome.gradient[key], rtol=0, atol=relative * max(outcome.size, 1))
            assert result["means"][name] == pytest.approx(outcome.stats.means(), rel=max(10 * relative, 1e-6)), name


def test_every_rank_has_as_many_micro_batches_and_a_row_is_in_one_of_them() -> None:
    actor, batch = policy(Toy(), micro_batch_tokens=40), on_policy(Toy())
    dealt = [actor.micro_batch_indices(batch, rank=rank, world=5) for rank in range(5)]
    assert {len(parts) for parts in dealt} == {len(dealt[0])}
    assert not dealt[4][-1].numel()  # they do not go round
    assert sorted(row for parts in dealt for index in parts for row in index.tolist()) == list(range(batch.num_rows))


def test_a_process_alone_is_one_rank() -> None:
    ranks = Ranks()
    assert ranks.is_main
    assert ranks.gather("x") == ["x"]
    assert ranks.any(False) is False
    assert ranks.any(True) is True
    tensor = torch.ones(2)
    assert ranks.sum(tensor) is tensor
