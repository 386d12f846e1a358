"""The memory of a rank by part, worked out by hand for Qwen2.5-7B and for a model of a few numbers."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from sweeps.memory.model_size import ModelSize
from sweeps.memory.parts import (
    SHORT,
    TILE,
    MemoryParts,
    cache_per_token,
    memory_parts,
    needs_reference,
    tokens_at_once,
)
from sweeps.memory.shape import KNOWN, ModelShape
from trainer.contract.paths import ROOT

SHAPE = KNOWN["Qwen/Qwen2.5-Math-7B"]
SIZE = ModelSize(parameters=SHAPE.parameters, shape=SHAPE)
P = 7_615_616_512
GIB = 2**30
VLLM = {"_target_": "trainer.engine.vllm.VLLMEngine", "kv_cache_gib": 1.0, "gpu_memory_frac": 0.45, "dtype": None}
KL = {"kl": {"_target_": "trainer.objective.regularizers.kl_reference.KLReference"}}
BONUS = {"bonus": {"_target_": "trainer.objective.regularizers.entropy_bonus.EntropyBonus"}}


def config(model: dict[str, Any] | None = None, hardware: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """A run of Qwen2.5-7B in bfloat16 on one GPU of 80 GB, with changes."""
    base = {"device": "cuda", "mixed_precision": "bf16", "memory_gib": 79, "micro_batch_tokens": 16384}
    return {
        "model": {"dtype": "bfloat16", "gradient_checkpointing": True} | (model or {}),
        "hardware": base | {"head_chunk": 4096, "processes": 1} | (hardware or {}),
        "engine": VLLM,
        "rollout": {"prompts_per_step": 512, "group_size": 8, "max_tokens": 3072},
        "optim": {"updates_per_rollout": 16},
        "regularizer": {},
    } | rest


def test_qwen_7b_by_hand() -> None:
    assert memory_parts(config(), SIZE) == MemoryParts(
        process=1.0 * GIB,
        weights=2 * P,
        masters=4 * P,
        adam=8 * P,
        gradients=4 * P,
        # A block, numbers a token: 4 x 3584 + 4 x 18 944 + (3 x 28 + 4 x 4) x 128 = 102 912, two bytes each, and
        # 16 x 3584 bytes of norms in float32: 263 168. Inputs of 28 blocks 2 x 3584 each, the block that is recomputed,
        # its gradients, and 12 x 3584 at the ends: 200 704 + 2 x 263 168 + 43 008 = 770 048 bytes a token.
        activations=770_048 * 16384,
        logits=GIB,  # 4 tiles of 2^26 numbers of 4 bytes
        engine=2 * P,
        kv_cache=pytest.approx(0.45 * 79 * GIB - 2 * P),
    )


def test_without_recomputing_every_block_is_kept() -> None:
    kept = memory_parts(config({"gradient_checkpointing": False}), SIZE)
    assert kept.activations == (29 * 263_168 + 43_008) * 16384


def test_float32_under_autocast_has_products_in_16_bits_and_no_masters() -> None:
    parts = memory_parts(config({"dtype": "float32"}), SIZE)
    assert (parts.weights, parts.masters, parts.adam, parts.engine) == (6 * P, 0, 8 * P, 2 * P)
    plain = memory_parts(config({"dtype": "float32"}, {"mixed_precision": "no"}), SIZE)
    assert (plain.weights, plain.engine) == (4 * P, 4 * P)


def test_sharded_weights_are_an_eighth_and_what_is_whole_at_a_time() -> None:
    parts = memory_parts(config(regularizer=KL, hardware={"processes": 8, "sharding": "fsdp2"}), SIZE)
    assert (parts.weights, parts.masters, parts.adam) == (2 * P / 8, 4 * P / 8, P)
    assert (parts.gradients, parts.reference) == (4 * P / 8, 2 * P / 8)
    # Embedding and output layer: 2 x 152 064 x 3584 = 1 089 994 752 numbers; a block, with 1/28 of the last norm:
    # (7 615 616 512 - 1 089 994 752) / 28 = 233 057 920. 2 (2 E + 3 B) + 6 E = 10 E + 6 B bytes.
    assert parts.gathered == 10 * 1_089_994_752 + 6 * 233_057_920
    assert memory_parts(config(hardware={"processes": 8}), SIZE) == memory_parts(config(), SIZE)


def test_weights_in_the_memory_of_the_host_leave_the_gpu_what_is_whole_at_a_time() -> None:
    shared = config(regularizer=KL, hardware={"processes": 8, "sharding": "fsdp2"})
    away = config(regularizer=KL, hardware={"processes": 8, "sharding": "fsdp2_offload"})
    on_gpu, on_host = memory_parts(shared, SIZE), memory_parts(away, SIZE)
    # Of 2 + 4 + 8 + 4 + 2 bytes a parameter an eighth.
    assert on_gpu.total - on_host.total == pytest.approx(20 * P / 8)
    assert on_host.gathered == on_gpu.gathered and on_host.adam == on_host.weights == 0
    cpu = {"processes": 8, "device": "cpu"}
    shared, away = (config(hardware=cpu | {"sharding": name}) for name in ("fsdp2", "fsdp2_offload"))
    assert memory_parts(away, SIZE) == memory_parts(shared, SIZE)


def test_a_reference_is_a_copy_of_the_model_and_of_lora_one_of_the_adapter() -> None:
    assert memory_parts(config(regularizer=BONUS), SIZE).reference == 0
    assert memory_parts(config(regularizer=KL), SIZE).reference == 2 * P
    adapter = 80_740_352  # see test_shape
    parts = memory_parts(config({"lora_rank": 32}, regularizer=KL), SIZE)
    assert parts.reference == 4 * adapter
    assert (parts.weights, parts.masters, parts.adam) == (2 * P + 4 * adapter, 0, 8 * adapter)
    assert parts.gradients == 4 * adapter
    # 32 numbers at 7 layers, and their inputs in float32: 5 x 3584 + 3584 + 18 944, 4 bytes each.
    more = 4 * (7 * 32 + 6 * 3584 + 18_944)
    assert parts.activations == (770_048 + 2 * more) * 16384


def test_a_cpu_keeps_scores_and_two_copies_in_vllm() -> None:
    # d 4, m 6, h 2, k 1, a 2: 16 + 24 + 20 + 2 x 2 x 64 = 316 numbers a token and block.
    shape = ModelShape(vocabulary=10, hidden=4, intermediate=6, layers=2, heads=2, kv_heads=1, head_dim=2, tied=True)
    hardware = {"device": "cpu", "mixed_precision": "no", "micro_batch_tokens": 100}
    run = config({"dtype": "float32", "gradient_checkpointing": False}, hardware)
    parts = memory_parts(run, ModelSize(parameters=300, shape=shape))
    assert parts.activations == 100 * (3 * 4 * 316 + 12 * 4)
    assert (parts.weights, parts.adam, parts.engine, parts.kv_cache) == (1200, 2400, 2400, GIB)
    assert parts.logits == 4 * 4 * 4096 * 10  # fewer than a tile
    slow = run | {"engine": {"_target_": "trainer.engine.transformers.TransformersEngine", "batch_size": 8}}
    # Keys and values of 3072 tokens, 2 x 2 x 1 x 2 numbers each, and 4 rows of 10 logits.
    assert memory_parts(slow, ModelSize(parameters=300, shape=shape)).kv_cache == 8 * (3072 * 8 * 4 + 160)


def test_keys_and_values_of_a_token() -> None:
    assert cache_per_token(SHAPE, 2) == 57_344  # 2 x 28 x 4 x 128 numbers of two bytes


def test_the_total_is_the_sum() -> None:
    parts = MemoryParts(process=1, weights=2, adam=3, gradients=4, activations=5, logits=6, engine=7, kv_cache=8)
    assert parts.total == 36


def test_who_needs_a_reference_is_read_from_the_classes() -> None:
    assert needs_reference({"regularizer": BONUS | KL}) and not needs_reference({"regularizer": BONUS})
    assert not needs_reference({"regularizer": None})
    for slot, target in (("surrogate", "surrogates.flowrl.FlowRL"), ("shaping", "shaping.rep_exp.RepExp")):
        assert needs_reference({slot: {"_target_": f"trainer.objective.{target}"}})


def test_numbers_of_the_trainer_are_the_trainers() -> None:
    """What sweeps may not import is read from the source."""

    def constant(file: str, name: str) -> object:
        nodes = ast.parse((ROOT / file).read_text()).body
        values = [node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
        return eval(ast.unparse(values[0]))

    assert constant("trainer/policy/token_stats.py", "TILE") == TILE
    assert constant("trainer/policy/shared_prompt.py", "SHORT") == SHORT


def test_a_small_mini_batch_is_the_largest_micro_batch() -> None:
    """Eight prompts in two updates: 4 x 16 responses of 16 tokens are 1024 tokens, and their prompts 4 x 512 shared,
    or 64 x 512 for each response anew."""
    config: dict[str, Any] = {
        "hardware": {"micro_batch_tokens": 16384, "share_prompts": True},
        "model": {"attention": None},
        "optim": {"updates_per_rollout": 2},
        "rollout": {"prompts_per_step": 8, "group_size": 16, "max_tokens": 16},
    }
    assert tokens_at_once(config) == 1024 + 4 * 512
    assert tokens_at_once(config | {"model": {"attention": "sdpa"}}) == 16384  # 1024 + 64 * 512 are more than that
    assert tokens_at_once(config | {"hardware": {"micro_batch_tokens": 100, "share_prompts": True}}) == 100
