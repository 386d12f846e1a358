"""TRL's ``GRPOTrainer`` on our task and model, as its users on a CPU run it. A child process under the peers' Python.

Started by ``step_vs_trl.py`` and ``realistic.py`` with a request on standard input; prints one JSON line. TRL keeps its
own defaults except for what makes the two sides comparable: batch, optimiser, number of updates, float32, no KL term,
no checkpoint, no evaluation, entropy (which it always computes) logged at every step.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.common import NUM_THREADS, versions


class Clock(TrainerCallback):
    """Wall time and log line at the end of each optimiser step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *arguments: Any, **more: Any) -> None:
        """Called by transformers after every optimiser step."""
        self.times.append(time.perf_counter())


def grpo_config(request: dict[str, Any], folder: str) -> GRPOConfig:
    """512 responses a rollout batch, cut into ``updates`` disjoint mini-batches of ``micro_batch`` rows at a time."""
    responses, updates, micro = request["responses"], request["updates"], request["micro_batch"]
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=responses // updates // micro,
        steps_per_generation=responses // micro,
        num_generations=request["group_size"],
        max_completion_length=request["max_tokens"],
        max_steps=request["steps"] * updates,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        loss_type="dapo",
        beta=0.0,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        logging_steps=1,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        seed=0,
    )


def make_trainer(request: dict[str, Any], model: Any, tokenizer: Any, folder: str, clock: Clock) -> GRPOTrainer:
    """A trainer on the countdown problems with our verifier as its reward."""
    from trainer.tasks.countdown import Countdown

    task = Countdown()
    problems = {prompt.text: prompt for prompt in task.train_prompts()}

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        return [task.verify(problems[p], c).reward for p, c in zip(prompts, completions, strict=True)]

    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=grpo_config(request, folder),
        train_dataset=Dataset.from_list([{"prompt": text} for text in problems]),
        processing_class=tokenizer,
        callbacks=[clock],
    )


def steps(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every whole step: rollout, rewards and all of its updates."""
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(request, model, tokenizer, folder, clock)
        trainer.train()
    ends = clock.times[request["updates"] - 1 :: request["updates"]]
    last = [line for line in trainer.state.log_history if "reward" in line][-1]
    shown = {key: last[key] for key in ("entropy", "reward", "completions/mean_length")}
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    return {"seconds": seconds, "last": shown, "versions": versions()}


if __name__ == "__main__":
    torch.set_num_threads(NUM_THREADS)
    asked = json.load(sys.stdin)
    print(json.dumps(steps(asked)))
