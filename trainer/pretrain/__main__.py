"""``python -m trainer.pretrain``: the recipe that made the shipped tiny base model, and the figures of its card.

Called from the command line and, in miniature, by a test. It must stay deterministic (same options, same machine and
thread count: same bytes) and is no part of a run: the trainer loads the finished folder like any other model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from trainer.pretrain.data import IGNORED, batches, encode, traces
from trainer.pretrain.evaluate import figures, sample_suite
from trainer.pretrain.habits import writers
from trainer.pretrain.model import build_model, build_tokenizer
from trainer.tasks.countdown import Countdown


def option(default: Any, words: str) -> Any:
    """A field with its default and the words that ``--help`` shows for it."""
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Options of the recipe; each is a command-line flag of the same name."""

    output: str = option("countdown-tiny", "folder that receives the model")
    steps: int = option(2400, "optimiser steps")
    batch_size: int = option(128, "traces per step")
    learning_rate: float = option(3e-3, "peak; warmed up over 5 percent of the steps, then a cosine to 0")
    weight_decay: float = option(0.05, "of matrices; vectors have none")
    writers: int = option(16, "writers of the traces, the first the most frequent")
    skilled_every: int = option(4, "every so many writers one is skilled: its traces reach the target")
    school: float = option(0.6, "share of the traces, the first ones, in which every writer is skilled")
    skew: float = option(1.2, "exponent of the preference of the others for some operators and values; 0 has none")
    number_max: int = option(9, "largest given number")
    hidden: int = option(128, "width of the model; heads are 32 wide")
    layers: int = option(4, "layers of the model")
    seed: int = option(0, "of weights, traces and their order, or of an evaluation's samples")
    threads: int = option(1, "CPU threads; the bytes of the result depend on it")
    evaluate: str = option("", "evaluate this model folder and stop, instead of training")
    prompts: int = option(256, "prompts per suite of an evaluation")
    samples: int = option(16, "samples per prompt of an evaluation")
    num_numbers: int = option(4, "given numbers of the training and held-out problems of an evaluation")
    min_steps: int = option(2, "fewest steps that may solve a training or held-out problem of an evaluation")

    def __post_init__(self) -> None:
        for name in ("steps", "writers", "skilled_every", "batch_size", "threads", "prompts", "samples", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"pretrain {name} is {getattr(self, name)}; set it to 1 or more")
        if not 0 <= self.school <= 1:
            raise ValueError(f"pretrain school is {self.school}; set it between 0 and 1")
        if not 0 <= self.skew <= 8:
            raise ValueError(f"pretrain skew is {self.skew}; set it between 0 and 8")
        if self.hidden < 32 or self.hidden % 32:
            raise ValueError(f"pretrain hidden is {self.hidden}; set it to a multiple of 32, the width of a head")
        if self.evaluate and not Path(self.evaluate).is_dir():
            raise ValueError(f"pretrain evaluate: {self.evaluate} is not a folder; give the folder of a saved model")


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % of the steps, then half a cosine from ``peak`` to 0."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(config: PretrainConfig) -> PreTrainedModel:
    """Train from scratch and return the model; prints the loss in nats per response token."""
    torch.set_num_threads(config.threads)
    tokenizer = build_tokenizer()
    model = build_model(config.hidden, config.layers, config.seed)
    count = config.steps * config.batch_size
    started = time.monotonic()
    hands = writers(config.writers, config.skilled_every, config.skew)
    rows = [encode(trace, tokenizer) for trace in traces(count, config.number_max, hands, config.school, config.seed)]
    data = batches(rows, config.batch_size, tokenizer.pad_token_id, config.seed)
    print(f"{count} traces in {time.monotonic() - started:.0f} s, {model.num_parameters()} parameters", flush=True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    model.train()
    for step, (inputs, targets) in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(data), config.learning_rate)
        # Right padding and a causal mask: real positions never see padding, so no attention mask is needed.
        logits = model(input_ids=inputs).logits
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == len(data) - 1:
            elapsed = time.monotonic() - started
            print(f"step {step}/{len(data)} loss {loss.item():.4f} after {elapsed:.0f} s", flush=True)
    model.eval()
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write weights, configuration and tokenizer in Hugging Face format."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 1.0
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def evaluate(config: PretrainConfig) -> dict[str, dict[str, float]]:
    """Figures of the model folder ``config.evaluate`` by suite."""
    torch.set_num_threads(config.threads)
    model = AutoModelForCausalLM.from_pretrained(config.evaluate, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(config.evaluate)
    task = Countdown(
        num_prompts=config.prompts,
        num_heldout=config.prompts,
        num_ood=config.prompts,
        num_numbers=config.num_numbers,
        min_steps=config.min_steps,
    )
    suites = {"train": task.train_prompts(), **task.suites()}
    return {
        name: figures(sample_suite(model, tokenizer, task, prompts, config.samples, 48, config.seed))
        for name, prompts in suites.items()
    }


def parse_arguments(arguments: list[str] | None = None) -> PretrainConfig:
    """One flag per field of :class:`PretrainConfig`; a value out of range ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.pretrain",
        description="Make the tiny base model, or print the figures of its card.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for each in fields(PretrainConfig):
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(each.default), default=each.default, help=each.metadata["help"])
    try:
        return PretrainConfig(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))


def main(arguments: list[str] | None = None) -> None:
    """Train and save, or evaluate and print one JSON line per suite."""
    config = parse_arguments(arguments)
    if config.evaluate:
        for suite, row in evaluate(config).items():
            print(json.dumps({"suite": suite} | {key: round(value, 4) for key, value in row.items()}), flush=True)
        return
    save(train(config), Path(config.output))


if __name__ == "__main__":
    main()
