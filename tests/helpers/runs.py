"""Run configurations and folders for tests: everything at its default, only smaller.

Called by the tests of the trainer. It must not train anything itself, and it must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.contract import run_yaml
from trainer.contract.component_source import component_defaults
from trainer.contract.identity import SCHEMA, signature
from trainer.storage.record import RunFolder

TARGETS = {
    "task": "trainer.tasks.countdown.Countdown",
    "engine": "trainer.engine.transformers.TransformersEngine",
    "rollout": "trainer.objective.rollouts.standard.Standard",
    "shaping": "trainer.objective.shaping.none.NoShaping",
    "advantage": "trainer.objective.advantages.grpo.GRPO",
    "surrogate": "trainer.objective.surrogates.ppo_clip.PPOClip",
    "reduction": "trainer.objective.reductions.TokenMean",
    "evaluation": "trainer.evaluation.evaluate.EvaluationConfig",
    "model": "trainer.contract.config.ModelConfig",
    "optim": "trainer.contract.config.OptimConfig",
    "accounting": "trainer.contract.config.AccountingConfig",
    "checkpoint": "trainer.contract.config.CheckpointConfig",
    "hardware": "trainer.contract.config.HardwareConfig",
    "tracking": "trainer.contract.config.TrackingConfig",
}

SMALL = {
    "steps": 4,
    "task.num_prompts": 16,
    "task.num_heldout": 4,
    "task.num_ood": 4,
    "rollout.prompts_per_step": 4,
    "rollout.group_size": 4,
    "rollout.max_tokens": 24,
    "evaluation.every": 2,
    "evaluation.prompts": 2,
    "evaluation.samples": 2,
    "evaluation.ks": [1, 2],
    "accounting.every": 2,
    "checkpoint.every": 1,
    "hardware.device": "cpu",
    "hardware.num_threads": 1,
}

VLLM = {
    "engine._target_": "trainer.engine.vllm.VLLMEngine",
    "engine.kv_cache_gib": 0.1,
    # Room for a sequence of more than the 128 tokens that vLLM's prefix cache keeps together on a CPU.
    "evaluation.max_tokens": 200,
}

MOVING = {
    "regularizer.bonus._target_": "trainer.objective.regularizers.entropy_bonus.EntropyBonus",
    "regularizer.bonus.coef": 0.01,
    "optim.lr": 3e-3,
}
"""Weights move in every update, even where all rewards of a step are equal."""

COIN = {"shaping._target_": "trainer.objective.shaping.random_reward.RandomReward"}
"""Rewards that differ within a group, which those of the shipped model hardly do in so small a batch."""

CURVES = ("metrics.jsonl", "samples.jsonl", "reliability.jsonl")
"""The files of a run folder that are functions of configuration and seed; without an evaluation there is no last."""


def run_config(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A small resolved configuration with ``changes`` by dotted key; a new ``_target_`` brings its own defaults."""
    config: dict[str, Any] = {"schema": SCHEMA, "seed": 0, "weight": {}, "regularizer": {}, "controller": {}}
    config |= {group: _component(target) for group, target in TARGETS.items()}
    items = (SMALL | dict(changes or {})).items()
    for key, value in sorted(items, key=lambda item: not item[0].endswith("._target_")):
        *path, last = key.split(".")
        node = config
        for name in path:
            node = node.setdefault(name, {})
        if last == "_target_":
            node.clear()
            node.update(_component(value))
        else:
            node[last] = value
    return config | {"signature": signature(config)}


def write_run(path: Path, changes: Mapping[str, Any] | None = None) -> RunFolder:
    """A run folder that is ready to start."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.yaml").write_text(run_yaml.dumps(run_config(changes)))
    return RunFolder(path)


def record(folder: RunFolder) -> dict[str, bytes]:
    """Everything that must not depend on how often a run was interrupted: curves, weights, optimiser, state."""
    last = max(folder.checkpoints.glob("step-*"))
    curves = CURVES if folder.config()["evaluation"]["every"] else CURVES[:-1]
    files = [folder.path / name for name in curves] + [last / name for name in ("model.safetensors", "state.json")]
    content = {path.name: path.read_bytes() for path in files}
    checksums = json.loads((last / "manifest.json").read_text())["files"]
    content["optimizer.pt"] = checksums["optimizer.pt"]["sha256"].encode()
    return content | {"checkpoint": last.name.encode()}


def steps(folder: RunFolder) -> list[int]:
    """The steps in ``metrics.jsonl``."""
    return [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]


def metrics(folder: RunFolder) -> list[dict[str, float]]:
    """The metrics of each recorded step."""
    return [json.loads(line)["metrics"] for line in folder.metrics.read_text().splitlines()]


def _component(target: str) -> dict[str, Any]:
    return {"_target_": target, **component_defaults(target)}
