"""Checks of model, prompts and machine that need no weights in memory; made before anything is queued.

A sweep asks for every level, so answers that depend only on the model or the task are kept.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from trainer.batch.types import Prompt
from trainer.contract.components import build_component
from trainer.contract.config import HardwareConfig, ModelConfig
from trainer.contract.settings import ConfigError, require
from trainer.policy.adapter import targets
from trainer.policy.model import context_length, end_tokens, load_config, load_tokenizer, model_path
from trainer.policy.precision import precision
from trainer.policy.prompts import PromptLength, misfits, prompt_ids
from trainer.policy.weights import check_shapes, check_weights
from trainer.setup.build import Run
from trainer.tasks.base import Task
from trainer.tasks.fitted import Fitted
from trainer.tasks.selected import selected


def examine(run: Run, config: Mapping[str, Any]) -> list[str]:
    """Sentences on prompts that are left out. Raises :class:`ConfigError` for a model that cannot be loaded or trained,
    and for prompts that do not fit into it.
    """
    sentence = model_problem(run.model)
    if sentence is not None:
        raise ConfigError(sentence)
    precision(run.model, run.hardware, run.engine.dtype)
    task = json.dumps(config["task"], sort_keys=True)
    return check_lengths(run, prompt_lengths(task, run.model, bool(run.evaluation.every)))[1]


@functools.cache
def model_problem(config: ModelConfig) -> str | None:
    """Why this model cannot be used, in one sentence; None if nothing is wrong with its files."""
    try:
        described = load_config(config)
        tokenizer = load_tokenizer(config)
        end_tokens(config, tokenizer)
        _check_vocabulary(config, tokenizer, described.get_text_config().vocab_size)
        folder = model_path(config, weights=False)
        if config.path is not None and "snapshots" in folder.parts and not any(folder.glob("*.safetensors")):
            return None  # on the hub still: its weights are looked at when they are here
        shapes = check_weights(folder)
        if not config.trust_remote_code:
            check_shapes(folder, shapes, _expected_shapes(described, config))
    except ConfigError as error:
        return str(error)
    return None


def _check_vocabulary(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Refuse a tokenizer that gives ids which the model has no embedding for."""
    text, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= rows:
        raise ConfigError(
            f"model.path={config.path!r} has the tokenizer of another model: its token {text!r} is number {largest}, "
            f"but the model knows {rows} tokens: copy the tokenizer of the model that it was made from"
        )


def _expected_shapes(described: Any, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of the architecture, which is built without memory for them."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(described)
    except Exception as error:  # whatever a wrong number, name or word in config.json makes of the model's own code
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"model.path={config.path!r} has a config.json that describes no model: {reason}") from error
    targets(model, config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def require_device(hardware: HardwareConfig) -> None:
    """Refuse a GPU where torch sees none."""
    cpu = hardware.device == "cpu" or not torch.cuda.is_available()
    remedy = "torch sees no GPU here; use hardware.device=cpu or install the CUDA build"
    require(not cpu or hardware.device != "cuda", "hardware.device", hardware.device, remedy)


def require_attention(model: ModelConfig) -> None:
    """Refuse kernels that are not installed."""
    there = model.attention != "flash_attention_2" or importlib.util.find_spec("flash_attn") is not None
    remedy = "the package flash_attn is not installed here: install it, or choose sdpa, eager or null"
    require(there, "model.attention", model.attention, remedy)


@functools.lru_cache(maxsize=4)
def prompt_lengths(task: str, model: ModelConfig, evaluated: bool) -> dict[str, tuple[PromptLength, ...]]:
    """Sizes of every prompt of a task (its node, as JSON) by suite; ``train`` first, the others if ``evaluated``."""
    return measured_prompts(selected(build_component(json.loads(task), "task"), model), model, evaluated)


def measured_prompts(task: Task, model: ModelConfig, evaluated: bool) -> dict[str, tuple[PromptLength, ...]]:
    """:func:`prompt_lengths` of a task."""
    tokenizer = load_tokenizer(model)

    def size(prompt: Prompt) -> PromptLength:
        where = str(prompt.data.get("where", prompt.id))
        return PromptLength(id=prompt.id, where=where, tokens=len(prompt_ids(tokenizer, prompt)))

    suites = {"train": task.train_prompts(), **(task.suites() if evaluated else {})}
    return {name: tuple(map(size, prompts)) for name, prompts in suites.items()}


def check_lengths(run: Run, lengths: Mapping[str, Sequence[PromptLength]]) -> tuple[frozenset[str], list[str]]:
    """Ids of prompts that leave no room for a response in the model's context, and a sentence on those of each suite.

    Raises :class:`ConfigError` where the task does not say ``bad_rows=drop``, and for a suite that would lose them all.
    """
    context = context_length(load_config(run.model))
    drops = getattr(run.task, "bad_rows", "refuse") == "drop"
    left_out: set[str] = set()
    sentences = []
    for suite, sizes in lengths.items():
        evaluated = suite != "train" and run.evaluation.max_tokens is not None
        key = "evaluation.max_tokens" if evaluated else "rollout.max_tokens"
        most = int(run.evaluation.max_tokens or 0) if evaluated else run.rollout.max_tokens
        where = "the training set" if suite == "train" else f"suite {suite!r}"
        too_long, sentence = misfits(where, sizes, key, most, context)
        if too_long and (not drops or len(too_long) == len(sizes)):
            raise ConfigError(f"{sentence}; lower {key}, leave them out, or take a model with a longer context")
        left_out |= {length.id for length in too_long}
        sentences += [f"{sentence}; they are left out (task.bad_rows=drop)"] if too_long else []
    return frozenset(left_out), sentences


def fitting(run: Run) -> tuple[Run, int]:
    """The run without prompts that do not fit (see :func:`check_lengths`), and the longest sequence of it, tokens."""
    lengths = measured_prompts(run.task, run.model, bool(run.evaluation.every))
    left_out, _ = check_lengths(run, lengths)
    longest = max(size.tokens for sizes in lengths.values() for size in sizes if size.id not in left_out)
    longest += max(run.rollout.max_tokens, run.evaluation.max_tokens or 0)
    return replace(run, task=Fitted(task=run.task, left_out=left_out)) if left_out else run, longest
