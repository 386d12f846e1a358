"""Shapes of models from their config.json, and how many numbers they make: those that the makers publish."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.memory.shape import KNOWN, ModelShape, shape_of

PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B-Base": 596_049_920,
    "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "Qwen/Qwen3-8B-Base": 8_190_735_360,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
}
"""Parameters as the hub counts them in the weight files."""

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


def test_named_models_have_as_many_parameters_as_their_makers_say() -> None:
    assert {name: shape.parameters for name, shape in KNOWN.items()} == PUBLISHED


def test_parameters_by_hand() -> None:
    # A block: q and o 4 x 4, k and v 4 x 2, three of 4 x 6, two norms of 4: 32 + 16 + 72 + 8 = 128. Two blocks, 10 x 4
    # embeddings, a last norm of 4: 256 + 40 + 4.
    shape = shape_of(SMALL)
    assert shape.parameters == 300
    assert shape_of(SMALL | {"tie_word_embeddings": False}).parameters == 340
    # Biases of q, k, v: 4 + 2 + 2 numbers a block. Norms of queries and keys: 2 + 2 numbers a block.
    assert shape_of(SMALL | {"model_type": "qwen2"}).parameters == 316
    assert shape_of(SMALL | {"model_type": "qwen3"}).parameters == 308


def test_an_adapter_by_hand() -> None:
    # in + out: q, o 8, k, v 6, gate, up, down 10: 58 numbers a block and rank.
    shape = shape_of(SMALL)
    assert shape.adapter_parameters(3) == 2 * 3 * 58
    assert shape.adapter_parameters(3, ("q_proj", "down_proj")) == 2 * 3 * 18
    assert KNOWN["Qwen/Qwen2.5-Math-7B"].adapter_parameters(32) == 80_740_352


def test_what_is_not_named_follows_from_what_is() -> None:
    bare = {"hidden_size": 512, "num_attention_heads": 8}
    shape = shape_of({"text_config": bare})
    assert (shape.head_dim, shape.kv_heads, shape.intermediate) == (64, 8, 2048)
    assert shape_of({"hidden_size": 512}).heads == 4
    with pytest.raises(ValueError, match="invalid literal"):
        shape_of({"hidden_size": "wide"})
    assert shape_of({"head_dim": 32, "hidden_size": 64}) != ModelShape()
