"""The training phase at a realistic shape: Qwen2.5-0.5B with random weights, prompts and responses of 128 tokens.

    python -m benchmarks.realistic [--prompts 2] [--group-size 4] [--steps 3] [--layers 24] [--dtype float32]

One optimiser step on given responses: forward with log-probs and exact entropy, GRPO loss, backward, gradient clipping,
AdamW. Ours goes through ``trainer.update.update.update``. TRL goes through ``GRPOTrainer.train()`` with its one method
that generates and scores replaced by one that returns the same given responses, so generation is on neither side. A
process each, taking turns. Tokens are all tokens of the batch, prompts once per response. Runs on a GPU where there is
one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from typing import Any

from benchmarks import peers
from benchmarks.common import MODEL, available_gib, child, ratio, save, spread, status_mib

SHAPE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
}
"""Qwen2.5-0.5B as published; the number of layers is an option."""
PROMPT, RESPONSE = 128, 128
GIB_FIXED, GIB_PER_RESPONSE = 9.0, 0.9
"""Weights, gradients and AdamW's two moments in float32, and what one response of 256 tokens may add."""


def make_model(request: dict[str, Any]) -> Any:
    """The same random weights on both sides."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    config = Qwen2Config(**SHAPE, num_hidden_layers=request["layers"])
    return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, request["dtype"])).to(device())


def device() -> str:
    """cuda where there is a GPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def tokens(request: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Prompt ids [P, 128], completion ids [P * G, 128] and a reward per response."""
    import torch

    generator = torch.Generator().manual_seed(1)
    prompts, group = request["prompts"], request["group_size"]
    ids = torch.randint(0, SHAPE["vocab_size"], (prompts, PROMPT), generator=generator)
    completions = torch.randint(0, SHAPE["vocab_size"], (prompts * group, RESPONSE), generator=generator)
    return ids, completions, (torch.arange(prompts * group) % 2).float()


def peak_gib() -> float:
    """Highest memory of this process: on the GPU of tensors, else resident."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else status_mib("VmHWM") / 1024


def our_learner(request: dict[str, Any]) -> Any:
    """Model, optimiser and accelerator of ours, as a run would make them."""
    import torch
    from accelerate import Accelerator

    from trainer.contract.config import OptimConfig
    from trainer.policy.cpu_matmul import use_onednn
    from trainer.policy.model import share_prompts
    from trainer.policy.policy import Policy
    from trainer.runtime.ranks import Ranks
    from trainer.update.gradient import Learner

    accelerator, model = Accelerator(cpu=device() == "cpu"), use_onednn(make_model(request)).eval()
    policy = Policy(
        model=model,
        temperature=1.0,
        head_chunk=4096,
        micro_batch_tokens=8192,
        device=torch.device(device()),
        shares_prompts=share_prompts(model),
    )
    return Learner(
        policy=policy,
        optimizer=accelerator.prepare_optimizer(torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)),
        accelerator=accelerator,
        ranks=Ranks(),
        optim=OptimConfig(lr=1e-6),
        dtype=request["dtype"],
    )


def our_rollouts(request: dict[str, Any], columns: list[tuple[float, ...]]) -> Any:
    """The responses of a request as rollouts, with these log-probs of the sampler."""
    from trainer.batch.types import Prompt, Rollout, Verdict

    prompts, completions, rewards = tokens(request)
    groups = [row // request["group_size"] for row in range(len(completions))]
    return [
        Rollout(
            prompt=Prompt(id=str(group), text=""),
            prompt_ids=tuple(prompts[group].tolist()),
            completion_ids=tuple(completions[row].tolist()),
            sampler_logprobs=logprobs,
            finish_reason="length",
            text="",
            group=group,
            weight_version=0,
            verdict=Verdict(reward=float(rewards[row])),
        )
        for row, (group, logprobs) in enumerate(zip(groups, columns, strict=True))
    ]


def run_ours(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each optimiser step of ours."""
    import torch

    from trainer.batch.collate import collate
    from trainer.loop import with_advantages
    from trainer.objective.advantages.grpo import GRPO
    from trainer.objective.base import Context
    from trainer.objective.objective import Objective
    from trainer.objective.reductions import TokenMean
    from trainer.objective.shaping.none import NoShaping
    from trainer.objective.surrogates.ppo_clip import PPOClip
    from trainer.update.update import update

    learner = our_learner(request)
    objective = Objective(shaping=NoShaping(), advantage=GRPO(), surrogate=PPOClip(), reduction=TokenMean())

    def batch_of(columns: list[tuple[float, ...]], context: Context) -> Any:
        return with_advantages(collate(our_rollouts(request, columns), pad_id=0), objective, context)

    seconds = []
    columns = [(0.0,) * RESPONSE] * len(tokens(request)[1])
    for step in range(request["steps"]):
        # The consistency check wants the sampler's log-probs: measured here, where the clock does not run.
        context = Context(seed=0, step=step, num_steps=9)
        batch = batch_of(columns, context)
        measured = learner.policy.measure(batch).logprobs
        columns = [tuple(row[own].tolist()) for row, own in zip(measured, batch.mask, strict=True)]
        batch = batch_of(columns, context)
        start = time.perf_counter()
        update(learner, objective, batch, context, {}, version=step)
        if device() == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak_gib": peak_gib()}


def run_trl(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each optimiser step of TRL."""
    import torch
    from transformers import AutoTokenizer

    from benchmarks.trl_grpo import Clock, make_trainer

    prompts, completions, rewards = (value.to(device()) for value in tokens(request))
    advantages = (rewards - 0.5) / 0.5
    prompts = prompts.repeat_interleave(request["group_size"], dim=0)
    given = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": advantages,
        "num_items_in_batch": torch.tensor(completions.numel(), device=device()),
    }
    count = len(completions)
    settings = {"responses": count, "updates": 1, "micro_batch": request["micro_batch"], "max_tokens": RESPONSE}
    settings |= {"group_size": request["group_size"], "steps": request["steps"]}
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    clock, starts = Clock(), []

    def generate_and_score(inputs: Any) -> dict[str, Any]:
        starts.append(time.perf_counter())
        return dict(given)

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(settings, make_model(request), tokenizer, folder, clock)
        trainer._generate_and_score_completions = generate_and_score
        trainer.train()
    seconds = [end - start for start, end in zip(starts, clock.times, strict=True)]
    return {"seconds": seconds, "peak_gib": peak_gib()}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns; the first step of each process does not count."""

    request = {name: getattr(options, name) for name in ("prompts", "group_size", "steps", "layers", "dtype")}
    count = options.prompts * options.group_size
    need = (GIB_FIXED + GIB_PER_RESPONSE * count) * options.layers / 24
    if need > available_gib():
        raise SystemExit(f"about {need:.0f} GiB are needed, {available_gib():.0f} are free: use fewer --prompts")
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    trl = {"micro_batch": count, "tokenizer": str(MODEL)}
    for _ in range(options.rounds):
        found["ours"].append(child("benchmarks.realistic", {"side": "ours", **request}))
        found["trl"].append(child("benchmarks.realistic", {"side": "trl", **request, **trl}, peers.python()))
        print({name: done[-1] for name, done in found.items()}, flush=True)
    seconds = {name: [s for result in done for s in result["seconds"][1:]] for name, done in found.items()}
    total = count * (PROMPT + RESPONSE)
    return {
        "request": request,
        "tokens": total,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "tokens_per_s": {name: total / spread(values)["median"] for name, values in seconds.items()},
        "peak_gib": {name: max(result["peak_gib"] for result in done) for name, done in found.items()},
        "faster": ratio(seconds["ours"], seconds["trl"]),
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name, value in (("prompts", 2), ("group-size", 4), ("steps", 3), ("layers", 24), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    if options.child:
        request = json.load(sys.stdin)
        stdout, sys.stdout = sys.stdout, sys.stderr
        result = {"ours": run_ours, "trl": run_trl}[request["side"]](request)
        print(json.dumps(result), file=stdout)
        return
    save("realistic", compare(options))


if __name__ == "__main__":
    main()
