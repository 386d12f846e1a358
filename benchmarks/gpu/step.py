"""One step of a shape with random weights: sampling with the transformers engine, one update of GRPO, weight sync."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.ingredients import build_model, new_learner, plain_objective, rollouts_of
from benchmarks.gpu.measure import Phases, card
from benchmarks.gpu.shapes import GROUP, PROMPT, SHAPES, Shape, decode_bytes, train_flops
from trainer.batch.collate import collate
from trainer.batch.types import TokenBatch
from trainer.engine.base import EngineSetup
from trainer.engine.transformers import _Transformers
from trainer.loop import with_advantages
from trainer.objective.base import Context
from trainer.objective.objective import Objective
from trainer.update.gradient import Learner
from trainer.update.logprob_gap import logprob_gap
from trainer.update.update import update

START = Context(seed=0, step=0, num_steps=1)


def step(device: str, *, shape: str, responses: int, tokens: int, matmul_tflops: float, copy_gb_s: float) -> None:
    """One step of a shape: sample, update, sync. ``matmul_tflops`` (TFLOP/s) and ``copy_gb_s`` (GB/s) are the ceilings
    that the phases are compared with."""
    dimensions, phases = SHAPES[shape], Phases(device)
    responses = max(GROUP, responses // GROUP * GROUP)
    phases.note(responses=responses, tokens=tokens, prompt_tokens=PROMPT, **card(device))
    model = phases("build", lambda: build_model(dimensions, device, PROMPT + tokens + 1))
    phases.note(parameters=sum(value.numel() for value in model.parameters()))
    engine = new_engine(model, device, responses, tokens)
    phases("sync_first", lambda: engine.load_weights(model.state_dict().items(), 0))
    prompts = random_prompts(dimensions, responses // GROUP)
    completions = sample(phases, engine, dimensions, prompts, tokens, copy_gb_s)
    if device != "cpu":
        torch.cuda.empty_cache()
    objective = plain_objective()
    rollouts = rollouts_of(prompts, completions)
    batch = phases("collate", lambda: with_advantages(collate(rollouts, pad_id=0), objective, START))
    learner = train(phases, new_learner(model, device), objective, batch, dimensions)
    phases("optimizer", lambda: optimizer_step(learner))
    phases("sync", lambda: engine.load_weights(learner.policy.model.state_dict().items(), 1))
    computed = computed_tokens(batch, len(prompts), learner.policy.shares_prompts)
    pairs = int((batch.lengths.double() * (batch.lengths.double() + 1) / 2).sum())
    sampled, seconds = phases.found["sampled_tokens"], phases.found["update_s"]
    flops = train_flops(dimensions, computed=computed, responses=sampled, pairs=pairs)
    total = sum(phases.found[f"{name}_s"] for name in ("generate", "collate", "update", "sync"))
    phases.note(
        computed_tokens=computed,
        update_tokens_s=computed / seconds,
        update_tflops=flops / seconds / 1e12,
        update_peak_frac=flops / seconds / 1e12 / matmul_tflops,
        step_s=total,
        step_tokens_s=sampled / total,
        done=True,
    )


def new_engine(model: Any, device: str, responses: int, tokens: int) -> _Transformers:
    """The transformers engine with weights of its own."""
    setup = EngineSetup(
        model_path="",
        dtype="bfloat16",
        trust_remote_code=False,
        max_length=PROMPT + tokens,
        end_tokens=(1,),
        device=device,
    )
    return _Transformers(copy.deepcopy(model).requires_grad_(False), setup, responses)


def random_prompts(shape: Shape, count: int) -> list[tuple[int, ...]]:
    """Prompts of :data:`PROMPT` random tokens."""
    generator = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(3, shape.vocabulary, (PROMPT,), generator=generator).tolist()) for _ in range(count)]


def sample(
    phases: Phases, engine: _Transformers, shape: Shape, prompts: list[tuple[int, ...]], tokens: int, copy_gb_s: float
) -> Any:
    """Completions of all prompts, after a short warm-up."""

    def generate(count: int) -> Any:
        return engine.generate(
            prompts, samples=GROUP, temperature=1.0, max_tokens=count, seeds=list(range(len(prompts)))
        )

    phases("generate_warm_up", lambda: generate(8))
    completions = phases("generate", lambda: generate(tokens))
    sampled = sum(len(one.token_ids) for group in completions for one in group)
    read = decode_bytes(shape, rows=len(prompts) * GROUP, prompt=PROMPT, tokens=tokens)
    phases.note(
        sampled_tokens=sampled,
        generate_tokens_s=sampled / phases.found["generate_s"],
        decode_bandwidth_frac=read / phases.found["generate_s"] / 1e9 / copy_gb_s,
    )
    return completions


def train(phases: Phases, learner: Learner, objective: Objective, batch: TokenBatch, shape: Shape) -> Learner:
    """The update, with the largest micro-batch that fits: one that does not is halved, and the record says which one
    did. The learner that did it."""
    size = shape.micro_batch_tokens
    while True:
        learner = replace(learner, policy=replace(learner.policy, micro_batch_tokens=size))
        phases.note(micro_batch_tokens=size, shares_prompts=learner.policy.shares_prompts)
        try:
            update_once(phases, learner, objective, batch)
            return learner
        except torch.cuda.OutOfMemoryError:
            phases.note(**{f"out_of_memory_at_{size}": True})
            size //= 2
            if size < batch.inputs.shape[1]:
                raise
        learner.forget_gradient()
        learner.policy.model.zero_grad()
        torch.cuda.empty_cache()


def update_once(phases: Phases, learner: Learner, objective: Objective, batch: TokenBatch) -> None:
    """A small update first, which allocates the optimiser's state and picks kernels; then the whole batch."""
    few = batch.rows(torch.arange(min(GROUP, batch.num_rows)))
    phases("update_warm_up", lambda: update(learner, objective, few, START, {}, version=0))
    after, stats = phases("update", lambda: update(learner, objective, batch, START, {}, version=1))
    largest, mean = logprob_gap(after)
    entropy = float(after.old_entropy[after.mask].mean())
    phases.note(
        logprob_gap_max=largest, logprob_gap_mean=mean, entropy=entropy, grad_norm=stats.means()["policy/grad_norm"]
    )


def optimizer_step(learner: Learner) -> None:
    """AdamW alone, with a gradient of zeros."""
    for parameter in learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.step()
    learner.forget_gradient()


def computed_tokens(batch: TokenBatch, prompts: int, shares_prompts: bool) -> int:
    """Positions that the forward pass computes: where prompts are shared, each but its last token once for its
    group."""
    return int(batch.lengths.sum()) - (GROUP - 1) * (PROMPT - 1) * prompts * shares_prompts
