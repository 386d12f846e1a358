"""What one step is made of: a model with random weights, rollouts with invented rewards, GRPO, a learner."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.gpu.shapes import PROMPT, Shape
from trainer.batch.types import Prompt, Rollout, Verdict
from trainer.contract.config import OptimConfig
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.objective import Objective
from trainer.objective.reductions import TokenMean
from trainer.objective.shaping.none import NoShaping
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.policy.model import share_prompts
from trainer.policy.policy import Policy
from trainer.runtime.ranks import Ranks
from trainer.update.gradient import Learner
from trainer.update.master_weights import MasterWeights


def build_model(shape: Shape, device: str, length: int) -> Any:
    """A model of this shape with random weights, in bfloat16."""
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def rollouts_of(prompts: list[tuple[int, ...]], completions: Any) -> list[Rollout]:
    """Rollouts with rewards that differ within every group."""
    return [
        Rollout(
            prompt=Prompt(id=str(group), text=""),
            prompt_ids=prompt,
            completion_ids=one.token_ids,
            sampler_logprobs=one.logprobs,
            sampler_entropies=one.entropies,
            finish_reason=one.finish_reason,
            text="",
            group=group,
            weight_version=0,
            verdict=Verdict(reward=float(number % 2)),
        )
        for group, prompt in enumerate(prompts)
        for number, one in enumerate(completions[group])
    ]


def plain_objective() -> Objective:
    return Objective(shaping=NoShaping(), advantage=GRPO(), surrogate=PPOClip(), reduction=TokenMean())


def new_learner(model: Any, device: str) -> Learner:
    """The learner of a run with ``model.dtype=bfloat16``: float32 masters, moments and gradients."""
    accelerator = Accelerator(cpu=device == "cpu")
    policy = Policy(
        model=model,
        temperature=1.0,
        head_chunk=4096,
        micro_batch_tokens=PROMPT,
        device=torch.device(device),
        shares_prompts=share_prompts(model),
    )
    masters = MasterWeights(model.parameters())
    optimizer = torch.optim.AdamW(masters.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    return Learner(
        policy=policy,
        optimizer=accelerator.prepare_optimizer(optimizer),
        accelerator=accelerator,
        ranks=Ranks(),
        optim=OptimConfig(lr=1e-6),
        dtype="bfloat16",
        masters=masters,
    )
