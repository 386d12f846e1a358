"""The configuration of one run: its slots, and its plain groups as frozen dataclasses.

Read by ``trainer`` and by ``sweeps``, so it must not import torch. A component (task, engine, surrogate, ...) keeps
its fields in its own file (:mod:`trainer.contract.component_source`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from trainer.contract.settings import Range, require

SINGLE_SLOTS = ("task", "engine", "rollout", "shaping", "advantage", "surrogate", "reduction", "evaluation")
"""Groups that hold exactly one component."""

LIST_SLOTS = ("weight", "regularizer", "controller")
"""Groups that hold any number of components, by name."""

PLAIN_GROUPS = ("model", "optim", "accounting", "checkpoint", "hardware", "tracking")
"""Groups whose dataclass is in this module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The language model that is trained."""

    path: str | None = None
    """Folder or hub name of a causal language model; None is the tiny model shipped with the project."""
    revision: str | None = None
    """Hub revision (branch, tag or commit)."""
    dtype: str = "float32"
    """Type of the weights that the model computes with: float32, bfloat16 or float16. Below float32 the optimiser moves
    float32 master weights (trainer/policy/precision.py)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless asked."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    attention: str | None = None
    """eager, sdpa or flash_attention_2 of transformers. null: one that computes a prompt once for all its responses,
    where the model allows it (hardware.share_prompts), else transformers' choice."""
    end_tokens: tuple[str, ...] = ()
    """Texts of tokens that end a response, beside those that the model's own files name."""
    pad_token: str | None = None
    """Text of the token in positions that hold nothing. null: the tokenizer's, else its end token."""
    lora_rank: Annotated[int, Range(0, 4096)] = 0
    """Rank r of a LoRA adapter, which is then all that is trained (trainer/policy/adapter.py); 0: all weights are."""
    lora_alpha: Annotated[float, Range(1e-6, 1e6)] = 32.0
    """The adapter's product is multiplied by ``lora_alpha / lora_rank``."""
    lora_dropout: float = 0.0
    """Only 0: the sampler has no dropout, so with one trainer and sampler would be two policies."""
    lora_targets: tuple[str, ...] = ()
    """Names of the linear layers that get an adapter, such as q_proj; empty: all but the output layer."""

    def __post_init__(self) -> None:
        known = ("float32", "bfloat16", "float16")
        require(self.dtype in known, "model.dtype", self.dtype, f"choose {', '.join(known[:-1])} or {known[-1]}")
        kinds, remedy = (None, "eager", "sdpa", "flash_attention_2"), "choose eager, sdpa, flash_attention_2 or null"
        require(self.attention in kinds, "model.attention", self.attention, remedy)
        remedy = "leave it at 0: the sampler has no dropout, so trainer and sampler would be two policies"
        require(self.lora_dropout == 0, "model.lora_dropout", self.lora_dropout, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW and how often it steps."""

    lr: Annotated[float, Range(0, 10)] = 3e-4
    """Learning rate after warm-up."""
    warmup_steps: int = 0
    """Optimiser updates over which the learning rate rises linearly from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this 2-norm; 0 switches clipping off."""
    updates_per_rollout: int = 1
    """Mini-batches a rollout batch is cut into per epoch (N_upd of docs/specification.md is this times ``epochs``)."""
    epochs: int = 1
    """Passes over each rollout batch."""

    def __post_init__(self) -> None:
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "give a number of updates, at least 0")
        updates = self.updates_per_rollout
        require(updates >= 1, "optim.updates_per_rollout", updates, "at least 1 update is needed")
        require(self.epochs >= 1, "optim.epochs", self.epochs, "at least 1 epoch is needed")
        norm = self.max_grad_norm
        require(norm >= 0, "optim.max_grad_norm", norm, "use 0 for no clipping, or a positive norm")
        require(self.eps > 0, "optim.eps", self.eps, "it keeps a division by zero away, so it is above 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "a decay is at least 0")
        require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "both betas lie in [0, 1)")

    @property
    def num_updates(self) -> int:
        """Optimiser steps per rollout batch."""
        return self.updates_per_rollout * self.epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingConfig:
    """How often the change of entropy is measured on the same contexts before and after the update, how often every
    update's change is accounted for token by token (the ledger), and how often all responses are kept."""

    every: int = 5
    """Steps between measurements; 0: never."""
    rows: int = 128
    """Responses measured, drawn at random from the rollout batch; 0: all of them."""
    ledger_every: int = 10
    """Steps between ledgers; 0: none but those of ``ledger_steps``."""
    ledger_steps: tuple[int, ...] = ()
    """Further steps that have a ledger."""
    ledger_rows: int = 128
    """Responses of a step that its ledger looks at, shared out over the updates; 0: all of them in every update."""
    rollouts_every: int = 0
    """Steps between those of which all responses are kept, token by token, in ``rollouts/``; 0: none."""

    def due(self, step: int) -> bool:
        """Whether the change of entropy is measured at ``step``."""
        return self.every > 0 and step % self.every == 0

    def rollouts_due(self, step: int) -> bool:
        """Whether the responses of ``step`` are kept."""
        return self.rollouts_every > 0 and step % self.rollouts_every == 0

    def ledger_due(self, step: int) -> bool:
        """Whether the updates of ``step`` are accounted for."""
        return step in self.ledger_steps or (self.ledger_every > 0 and step % self.ledger_every == 0)

    def __post_init__(self) -> None:
        require(self.every >= 0, "accounting.every", self.every, "use 0 for never, or a number of steps")
        require(
            self.rows >= 0, "accounting.rows", self.rows, "use 0 for all responses of the batch, or a number of them"
        )
        every, rows, steps = self.ledger_every, self.ledger_rows, list(self.ledger_steps)
        require(every >= 0, "accounting.ledger_every", every, "use 0 for never, or a number of steps")
        kept = self.rollouts_every
        require(kept >= 0, "accounting.rollouts_every", kept, "use 0 for never, or a number of steps")
        require(rows >= 0, "accounting.ledger_rows", rows, "use 0 for all responses, or a number of them")
        require(all(step >= 0 for step in steps), "accounting.ledger_steps", steps, "steps count from 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """How often the run can be resumed from. Does not move a curve."""

    every: int = 10
    """Steps between checkpoints; the last step always has one."""
    keep: int = 2
    """Newest checkpoints kept."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "checkpoint.every", self.every, "give a number of steps, at least 1")
        require(self.keep >= 1, "checkpoint.keep", self.keep, "keep at least 1 checkpoint, or nothing can be resumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareConfig:
    """Device, precision, threads and micro-batches: equal in law, but not in every bit, so part of a run's
    identity."""

    device: str = "auto"
    """cpu or cuda. auto: cuda if the jobs of the queue hold GPUs and torch was built for them; decided before the run
    is frozen."""
    mixed_precision: str = "no"
    """What float32 weights are computed with: no (float32), bf16 or fp16 (autocast)."""
    logprob_dtype: str = "float32"
    """Type that log-probs are rounded to before ratios are made of them: float32, bfloat16 or float16."""
    micro_batch_tokens: int = 16384
    """Positions in one forward and backward pass."""
    share_prompts: bool = True
    """Compute a prompt once for all its responses, and no padding, where the model's attention allows it."""
    head_chunk: int = 4096
    """Response tokens whose logits exist at one time."""
    num_threads: int | None = None
    """CPU threads of the trainer. null: by the size of the model, one for a small one; decided before the run is
    frozen."""
    processes: int = 1
    """Ranks started by ``accelerate launch`` inside the job."""
    sharding: Literal["none", "fsdp2", "fsdp2_offload"] = "none"
    """Whether every rank has all weights, gradients and moments (none), or its part of them, on its GPU (fsdp2) or in
    the memory of its host (fsdp2_offload)."""
    memory_gib: Annotated[float, Range(0.01, 1e6)] | None = None
    """Memory of the device that a run has to fit into, GiB: what a plan refuses by. null: not known of a GPU; on a CPU
    this machine's."""

    def __post_init__(self) -> None:
        require(self.device in ("auto", "cpu", "cuda"), "hardware.device", self.device, "choose auto, cpu or cuda")
        mixed = self.mixed_precision
        require(mixed in ("no", "bf16", "fp16"), "hardware.mixed_precision", mixed, "choose no, bf16 or fp16")
        known, remedy = ("float32", "bfloat16", "float16"), "choose float32, bfloat16 or float16"
        require(self.logprob_dtype in known, "hardware.logprob_dtype", self.logprob_dtype, remedy)
        require(self.micro_batch_tokens >= 1, "hardware.micro_batch_tokens", self.micro_batch_tokens, "give at least 1")
        require(self.head_chunk >= 1, "hardware.head_chunk", self.head_chunk, "give at least 1")
        threads = self.num_threads
        remedy = "give a number of threads, 1 to 1024, or null for as many as suit the model"
        require(threads is None or 1 <= threads <= 1024, "hardware.num_threads", threads, remedy)
        require(self.processes >= 1, "hardware.processes", self.processes, "at least 1 process is needed")
        alone = self.sharding != "none" and self.processes == 1
        remedy = "one process has nobody to share weights with: set hardware.processes=2 or more, or leave it at none"
        require(not alone, "hardware.sharding", self.sharding, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """The MLflow mirror of the run. ``metrics.jsonl`` in the run folder is the record; this is a copy."""

    uri: str | None = None
    """MLflow tracking URI; None: no mirror."""
    experiment: str = "rlvr-entropy"
    parent_run_id: str | None = None
    """Run of the sweep that this run is nested under."""
    run_name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    flush_every_s: Annotated[float, Range(0.01, 3600)] = 5.0
    """Seconds between two writes of the mirror thread."""
    samples: Annotated[int, Range(0)] = 8
    """Responses kept in samples.jsonl at each evaluation and every ten steps."""

    def __post_init__(self) -> None:
        require(bool(self.experiment), "tracking.experiment", self.experiment, "give the experiment a name")
