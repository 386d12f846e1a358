"""The memory of one rank by part: pure functions of a resolved configuration and the size of its model.

An estimate from above, for what is alive at once while a mini-batch is differentiated. ``docs/models.md`` has it
beside measurements; what types the parts have is decided in ``trainer/policy/precision.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from sweeps.memory.model_size import ModelSize
from sweeps.memory.shape import ModelShape
from trainer.contract.about import members
from trainer.contract.component_source import class_body

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MIXED = {"no": None, "bf16": "bfloat16", "fp16": "float16"}

PROCESS_GIB = {"cpu": 0.9, "cuda": 1.0}
"""What a process takes before it loads a model: resident with torch and vLLM on a CPU, the context of a GPU."""

ENGINE_COPIES = 2
"""Weights of vLLM on a CPU: as they were loaded, and packed for its products."""

TILE = {"cpu": 2**21, "cuda": 2**26}
"""Logits that exist at a time (``trainer/policy/token_stats.py``) ..."""
TILES = 4
"""... in a tile, its exponentials, their gradient and a factor."""
NARROWEST = 64
"""Columns of the thinnest tile."""

PROMPT_TOKENS = 512
"""Of a prompt, from above: a question in a chat template."""

SHORT = 64
"""Attention over so many keys keeps its scores, on a CPU (``trainer/policy/shared_prompt.py``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryParts:
    """Bytes of one rank."""

    process: float
    weights: float
    gathered: float = 0.0
    """Of sharded weights and gradients: what is whole at a time, and what they are passed on in."""
    masters: float = 0.0
    """Float32 master weights of a model of 16 bits."""
    adam: float
    """Two moments of everything that is trained, float32."""
    gradients: float
    reference: float = 0.0
    """A frozen copy of the model, if a regularizer measures from one; of a LoRA run, of its adapter."""
    activations: float
    logits: float
    """A tile of logits, a few times over."""
    engine: float
    """The sampler's copy of the weights."""
    kv_cache: float
    """Keys and values of the sampler; on a GPU what vLLM's share leaves beside the weights."""

    @property
    def total(self) -> float:
        return float(sum(astuple(self)))


def trained(config: Mapping[str, Any], size: ModelSize) -> int:
    """Numbers that the optimiser moves: all weights, or a LoRA adapter."""
    model = config["model"]
    rank = int(model.get("lora_rank") or 0)
    return size.shape.adapter_parameters(rank, tuple(model.get("lora_targets") or ())) if rank else size.parameters


def memory_parts(config: Mapping[str, Any], size: ModelSize) -> MemoryParts:
    """The parts for a resolved configuration (``hardware.device`` cpu or cuda) and its model.

    With P parameters of w bytes, T of them trained (all, or a LoRA adapter's), e bytes of the sampler's type::

        weights w P (+ 2 P for products in 16 bits under autocast), masters 4 T if w = 2 and all are trained,
        AdamW 8 T, gradients 4 T, reference w P (LoRA: 4 T), engine e P, twice on a CPU

    With ``hardware.sharding=fsdp2`` a rank has its share of weights (those for products in 16 bits excepted), masters,
    AdamW, gradients and reference; with ``fsdp2_offload`` these are in the memory of the host, not of the GPU.
    """
    model, hardware = config["model"], config["hardware"]
    device, mixed = str(hardware["device"]), MIXED.get(hardware.get("mixed_precision", "no"))
    wide, lora = BYTES[model.get("dtype", "float32")], bool(model.get("lora_rank"))
    moved = trained(config, size)
    sharding = hardware.get("sharding", "none")
    sharded = sharding != "none"
    # What lies in the memory of the host counts where that is the device's.
    kept = 0 if sharding == "fsdp2_offload" and device == "cuda" else 1
    ranks = int(hardware["processes"]) if sharded else 1
    engine, cache = _engine(config, size, device)
    return MemoryParts(
        process=PROCESS_GIB[device] * GIB,
        weights=(kept * wide / ranks + (2 if mixed and wide == 4 else 0)) * size.parameters
        + (4 * moved if lora else 0),
        gathered=gathered(size, wide) if sharded else 0,
        masters=0 if lora or wide == 4 else kept * 4 * moved / ranks,
        adam=kept * 8 * moved / ranks,
        gradients=kept * 4 * moved / ranks,
        reference=(4 * moved if lora else kept * wide * size.parameters / ranks) if needs_reference(config) else 0,
        activations=activations(config, size.shape, narrow=bool(mixed) or wide == 2),
        logits=4 * TILES * min(_tile(device, hardware), int(hardware["head_chunk"]) * size.shape.vocabulary),
        engine=engine,
        kv_cache=cache,
    )


def gathered(size: ModelSize, wide: int) -> float:
    """Bytes of what FSDP2 makes whole: with E numbers of ``wide`` bytes in embedding and output layer, B in a block::

        wide (2 E + 3 B) + (wide + 4) max(E, B)

    E and two blocks, one of them ahead of time; the gradients of E and of one block; and, of the larger of the two,
    what is received into and the float32 sums that are sent.
    """
    shape = size.shape
    ends = min(size.parameters, shape.vocabulary * shape.hidden * (1 if shape.tied else 2))
    block = (size.parameters - ends) / shape.layers
    return wide * (2 * ends + 3 * block) + (wide + 4) * max(ends, block)


def _tile(device: str, hardware: Mapping[str, Any]) -> int:
    return max(TILE[device], NARROWEST * int(hardware["head_chunk"]))


def activations(config: Mapping[str, Any], shape: ModelShape, *, narrow: bool) -> float:
    """Bytes that one micro-batch keeps for its backward pass, and those of the block that is being differentiated.

    Per token and block, in numbers, with d, m, h, k, a = hidden, intermediate, heads, key heads, head dimension::

        4 d + 4 m + (3 h + 4 k) a, + (h + k) a where heads are normalised, + 64 * 2 h scores on a CPU

    (norms in and out; gate, its activation, up, their product; queries, keys and values before and after the rotation,
    and the attention's output). In 16 bits norms keep 4 d more in float32. A recomputed block keeps its input alone.
    """
    hardware, model = config["hardware"], config["model"]
    d, m, h, k, a = shape.hidden, shape.intermediate, shape.heads, shape.kv_heads, shape.head_dim
    numbers = 4 * d + 4 * m + (3 * h + 4 * k) * a + (h + k) * a * shape.head_norms
    numbers += 2 * h * SHORT * (hardware["device"] == "cpu")
    width = 2 if narrow else 4
    block = width * numbers + (4 * 4 * d if narrow else 0)
    if rank := int(model.get("lora_rank") or 0):
        inputs = [size[0] for name, size in shape.linear_layers.items() if name in _targets(model, shape)]
        block += 4 * (rank * len(inputs) + (sum(inputs) if narrow else 0))
    ends = 3 * 4 * d  # the embedding, the last hidden state and its gradient
    kept = shape.layers * width * d + block if model.get("gradient_checkpointing") else shape.layers * block
    return float(tokens_at_once(config) * (kept + block + ends))


def tokens_at_once(config: Mapping[str, Any]) -> int:
    """Tokens of the largest micro-batch: ``hardware.micro_batch_tokens``, or all of a mini-batch where that is less.

    A mini-batch has its share of the step's responses, each of ``rollout.max_tokens`` at most, and their prompts,
    which are not known here: :data:`PROMPT_TOKENS` each, once for all responses where they are shared.
    """
    most, rollout = int(config["hardware"]["micro_batch_tokens"]), config["rollout"]
    prompts = -(-int(rollout["prompts_per_step"]) // int(config["optim"]["updates_per_rollout"]))
    responses = prompts * int(rollout["group_size"])
    shared = config["hardware"].get("share_prompts") and config["model"].get("attention") is None
    return min(most, responses * int(rollout["max_tokens"]) + (prompts if shared else responses) * PROMPT_TOKENS)


def _targets(model: Mapping[str, Any], shape: ModelShape) -> tuple[str, ...]:
    return tuple(model.get("lora_targets") or shape.linear_layers)


def _engine(config: Mapping[str, Any], size: ModelSize, device: str) -> tuple[float, float]:
    """Bytes of (weights, key-value cache) of the sampler."""
    engine, hardware, model = config["engine"], config["hardware"], config["model"]
    computed = MIXED.get(hardware.get("mixed_precision", "no")) or model.get("dtype", "float32")
    wide = BYTES[engine.get("dtype") or computed]
    weights = float(wide * size.parameters)
    if not str(engine["_target_"]).endswith(".VLLMEngine"):
        own = (
            int(config["rollout"]["max_tokens"]) * cache_per_token(size.shape, wide) + 4 * TILES * size.shape.vocabulary
        )
        return weights, float(int(engine.get("batch_size", 1)) * own)
    if device == "cpu":
        return ENGINE_COPIES * weights, float(engine["kv_cache_gib"]) * GIB
    share = float(engine["gpu_memory_frac"]) * float(hardware.get("memory_gib") or 0.0) * GIB
    return weights, max(0.0, share - weights)


def cache_per_token(shape: ModelShape, wide: int) -> int:
    """Bytes of the keys and values of one token: ``2 * layers * key heads * head dimension`` numbers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * wide


def needs_reference(config: Mapping[str, Any]) -> bool:
    """Whether a member measures from a frozen copy of the model, as its class says."""
    targets = [str(node["_target_"]) for node in members(config).values()]
    return any(_says(target, name) for target in targets for name in ("needs_reference", "needs_states"))


def _says(target: str, name: str) -> bool:
    """Whether the class at an import path sets ``name`` to true, read from its source."""
    fields = [node for node in class_body(target)[0].body if isinstance(node, ast.AnnAssign)]
    return any(ast.unparse(node.target) == name and ast.unparse(node.value or node) == "True" for node in fields)
