"""Tests and measurements on one GPU, with torch and transformers alone: no network, no vLLM, no tracker.

    python -m benchmarks.gpu [--limit 240] [--responses 256] [--tokens 512] [--output benchmarks/records]

Every part is a process of its own with a share of the time limit, so none takes another down; what failed is in the
record as such. Parts: ``ceilings`` (a large matrix product and a large copy), ``tests`` (``pytest -m gpu``) and one
step of each shape with random weights: sampling with the transformers engine, one update of GRPO, weight sync. Writes
a dated JSON and Markdown record, and prints its table last.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, environment, git, machine, versions

PROMPT = 128
"""Tokens of every prompt."""
GROUP = 16
"""Responses to each prompt."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder of Qwen2's kind; the embedding is the output layer too."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int = 151_936
    micro_batch_tokens: int = 16_384

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def body(self) -> int:
        """Weights of all matrix products but the output layer's."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        """Weights of the output layer."""
        return self.vocabulary * self.width

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token, bytes in 16 bits."""
        return 2 * 2 * self.layers * self.key_heads * self.head_width


SHAPES = {
    "tiny": Shape(layers=2, width=64, inner=128, heads=4, key_heads=2, vocabulary=512),
    "qwen2.5-0.5b": Shape(layers=24, width=896, inner=4864, heads=14, key_heads=2),
    "qwen2.5-1.5b": Shape(layers=28, width=1536, inner=8960, heads=12, key_heads=2, micro_batch_tokens=8192),
}


def train_flops(shape: Shape, *, computed: int, responses: int, pairs: int) -> float:
    """Model FLOPs of one forward and backward pass: ``6 weights`` a token, of the output layer at response tokens only,
    and ``12 heads head_width`` a layer for every pair of a token and one it looks at."""
    attention = 12 * shape.layers * shape.width * pairs
    return 6.0 * (shape.body * computed + shape.head * responses) + attention


def decode_bytes(shape: Shape, *, rows: int, prompt: int, tokens: int) -> float:
    """Bytes that decoding has to read at least: all weights once a step, and every row's keys and values so far."""
    weights = 2.0 * (shape.body + shape.head) * tokens
    seen = sum(prompt + step for step in range(tokens))
    return weights + float(shape.cache_bytes) * rows * seen


def best_seconds(work: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Shortest of some repetitions after a warm-up."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(3):
        once()
    return min(once() for _ in range(repeats))


def ceilings(device: str, **_: Any) -> None:
    """What the card reaches in a matrix product in bfloat16 and in a copy."""
    import torch

    side, size = (8192, 2**32) if device != "cpu" else (512, 2**24)
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = best_seconds(lambda: left @ right, device)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source), device)
    say({"matmul_tflops": 2 * side**3 / product / 1e12, "copy_gb_s": 2 * size / copy / 1e9, **card(device)})


def card(device: str) -> dict[str, Any]:
    import torch

    if device == "cpu":
        return {"card": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "card": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def build_model(shape: Shape, device: str, length: int) -> Any:
    """A model of this shape with random weights, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

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


class Phases:
    """Seconds and peak memory of the phases of a step; the record so far is printed after each."""

    def __init__(self, device: str) -> None:
        self.device, self.found = device, dict[str, Any]()

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        import torch

        gpu = self.device != "cpu"
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        result = work()
        if gpu:
            torch.cuda.synchronize()
            self.found[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.found[f"{name}_s"] = time.perf_counter() - start
        say(self.found)
        return result

    def note(self, **more: Any) -> None:
        self.found |= more
        say(self.found)


def step(device: str, *, shape: str, responses: int, tokens: int, matmul_tflops: float, copy_gb_s: float) -> None:
    """One step of a shape: sample, update, sync."""
    import copy

    import torch

    from trainer.batch.collate import collate
    from trainer.engine.base import EngineSetup
    from trainer.engine.transformers import _Transformers
    from trainer.loop import with_advantages
    from trainer.objective.base import Context

    made, phases = SHAPES[shape], Phases(device)
    responses = max(GROUP, responses // GROUP * GROUP)
    phases.note(responses=responses, tokens=tokens, prompt_tokens=PROMPT, **card(device))
    model = phases("build", lambda: build_model(made, device, PROMPT + tokens + 1))
    phases.note(parameters=sum(value.numel() for value in model.parameters()))
    setup = EngineSetup(
        model_path="",
        dtype="bfloat16",
        trust_remote_code=False,
        max_length=PROMPT + tokens,
        end_tokens=(1,),
        device=device,
    )
    engine = _Transformers(copy.deepcopy(model).requires_grad_(False), setup, responses)
    phases("sync_first", lambda: engine.load_weights(model.state_dict().items(), 0))
    generator = torch.Generator().manual_seed(0)
    prompts = [
        tuple(torch.randint(3, made.vocabulary, (PROMPT,), generator=generator).tolist())
        for _ in range(responses // GROUP)
    ]

    def generate(count: int) -> Any:
        return engine.generate(
            prompts, samples=GROUP, temperature=1.0, max_tokens=count, seeds=list(range(len(prompts)))
        )

    phases("generate_warm_up", lambda: generate(8))
    completions = phases("generate", lambda: generate(tokens))
    sampled = sum(len(one.token_ids) for group in completions for one in group)
    read = decode_bytes(made, rows=responses, prompt=PROMPT, tokens=tokens)
    phases.note(
        sampled_tokens=sampled,
        generate_tokens_s=sampled / phases.found["generate_s"],
        decode_bandwidth_frac=read / phases.found["generate_s"] / 1e9 / copy_gb_s,
    )
    if device != "cpu":
        torch.cuda.empty_cache()
    rollouts = rollouts_of(prompts, completions)
    objective, start = plain_objective(), Context(seed=0, step=0, num_steps=1)
    batch = phases("pack", lambda: with_advantages(collate(rollouts, pad_id=0), objective, start))
    size = made.micro_batch_tokens
    learner = new_learner(model, device)
    while True:  # a size that does not fit is halved, and the record says which one did
        learner = replace(learner, policy=replace(learner.policy, micro_batch_tokens=size))
        phases.note(micro_batch_tokens=size, shares_prompts=learner.policy.shares_prompts)
        try:
            update_once(phases, learner, objective, batch, start)
            break
        except torch.cuda.OutOfMemoryError:
            phases.note(**{f"out_of_memory_at_{size}": True})
            size //= 2
            if size < PROMPT + tokens:
                raise
        learner.forget_gradient()
        model.zero_grad()
        torch.cuda.empty_cache()
    lengths = batch.lengths.double()
    computed = int(batch.lengths.sum()) - (GROUP - 1) * (PROMPT - 1) * len(prompts) * learner.policy.shares_prompts
    pairs = int((lengths * (lengths + 1) / 2).sum())
    flops = train_flops(made, computed=computed, responses=sampled, pairs=pairs)
    seconds = phases.found["update_s"]
    phases("optimizer", lambda: optimizer_step(learner))
    phases("sync", lambda: engine.load_weights(learner.policy.model.state_dict().items(), 1))
    total = sum(phases.found[f"{name}_s"] for name in ("generate", "pack", "update", "sync"))
    phases.note(
        computed_tokens=computed,
        update_tokens_s=computed / seconds,
        update_tflops=flops / seconds / 1e12,
        update_peak_frac=flops / seconds / 1e12 / matmul_tflops,
        step_s=total,
        step_tokens_s=sampled / total,
        done=True,
    )


def rollouts_of(prompts: list[tuple[int, ...]], completions: Any) -> list[Any]:
    """Rollouts with rewards that differ within every group."""
    from trainer.batch.types import Prompt, Rollout, Verdict

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


def plain_objective() -> Any:
    from trainer.objective.advantages.grpo import GRPO
    from trainer.objective.objective import Objective
    from trainer.objective.reductions import TokenMean
    from trainer.objective.shaping.none import NoShaping
    from trainer.objective.surrogates.ppo_clip import PPOClip

    return Objective(shaping=NoShaping(), advantage=GRPO(), surrogate=PPOClip(), reduction=TokenMean())


def new_learner(model: Any, device: str) -> Any:
    """The learner of a run with ``model.dtype=bfloat16``: float32 masters, moments and gradients."""
    import torch
    from accelerate import Accelerator

    from trainer.contract.config import OptimConfig
    from trainer.policy.model import share_prompts
    from trainer.policy.policy import Policy
    from trainer.runtime.ranks import Ranks
    from trainer.update.gradient import Learner
    from trainer.update.master_weights import MasterWeights

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


def update_once(phases: Phases, learner: Any, objective: Any, batch: Any, context: Any) -> None:
    """A small update first, which allocates the optimiser's state and picks kernels; then the whole batch."""
    import torch

    from trainer.update.logprob_gap import logprob_gap
    from trainer.update.update import update

    few = batch.rows(torch.arange(min(GROUP, batch.num_rows)))
    phases("update_warm_up", lambda: update(learner, objective, few, context, {}, version=0))
    done, stats = phases("update", lambda: update(learner, objective, batch, context, {}, version=1))
    largest, mean = logprob_gap(done)
    entropy = float(done.old_entropy[done.mask].mean())
    phases.note(
        logprob_gap_max=largest, logprob_gap_mean=mean, entropy=entropy, grad_norm=stats.means()["policy/grad_norm"]
    )


def optimizer_step(learner: Any) -> None:
    import torch

    for parameter in learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.step()
    learner.forget_gradient()


def say(found: dict[str, Any]) -> None:
    """Print the record so far; the last line that was printed counts."""
    print(json.dumps(found), flush=True)


def run_part(name: str, seconds: float, request: dict[str, Any]) -> dict[str, Any]:
    """A part in a process of its own; what it had found stays where it fails or runs out of time."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", json.dumps(request)]
    return {"name": name} | finished(command, seconds, last_line)


def run_tests(seconds: float) -> dict[str, Any]:
    """``pytest -m gpu``, with the outcome of every test."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        command += [f"--basetemp={scratch}/pytest", f"--junitxml={report}"]
        return {"name": "tests"} | finished(command, seconds, lambda output: outcomes(report, output))


def finished(command: list[str], seconds: float, read: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    start, error = time.perf_counter(), ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as wrong:
        try:
            ran = subprocess.run(
                command, cwd=ROOT, env=environment(), stdout=out, stderr=wrong, timeout=max(seconds, 1), check=False
            )
            failed = ran.returncode != 0
        except subprocess.TimeoutExpired:
            failed, error = True, f"ended after its {seconds:.0f} s"
        output, said = (read_all(file) for file in (out, wrong))
    found = read(output)
    if failed and not error:
        error = ((said.strip() or output.strip()).splitlines() or ["no word"])[-1][-400:]
    return found | {"wall_s": time.perf_counter() - start, "error": error, "tail": said[-3000:] if failed else ""}


def read_all(file: Any) -> str:
    file.seek(0)
    return str(file.read())


def last_line(output: str) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def outcomes(report: Path, output: str) -> dict[str, Any]:
    """passed, failed or skipped for each test, and what failed ones say."""
    if not report.is_file():
        return {"output": output[-3000:]}
    tests = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag: child for child in case}
        bad = next((kinds[kind] for kind in ("failure", "error", "skipped") if kind in kinds), None)
        own = {value.attrib["name"]: value.attrib["value"] for value in case.iter("property")}
        tests[case.attrib["name"]] = {
            "outcome": "passed" if bad is None else bad.tag,
            "seconds": float(case.attrib.get("time", 0)),
            **({"message": (bad.attrib.get("message") or "")[:600]} if bad is not None else {}),
            **({"text": (bad.text or "")[-2500:]} if bad is not None and bad.tag != "skipped" else {}),
            **own,
        }
    return {"tests": tests}


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All parts, each within what is left of the time."""
    end = time.monotonic() + options.limit

    def left() -> float:
        return end - time.monotonic()

    shared = {"device": options.device}
    parts = [run_part("ceilings", min(60.0, left()), shared | {"kind": "ceilings"})]
    known = {key: parts[0].get(key, float("nan")) for key in ("matmul_tflops", "copy_gb_s")}
    if not options.no_tests:
        parts.append(run_tests(min(0.45 * options.limit, left())))
    for number, shape in enumerate(options.shapes):
        request = shared | {"kind": "step", "shape": shape, "responses": options.responses, "tokens": options.tokens}
        parts.append(run_part(shape, left() / (len(options.shapes) - number), request | known))
    return parts


COLUMNS = {
    "generate_s": "sample s",
    "update_s": "update s",
    "sync_s": "sync s",
    "step_s": "step s",
    "generate_tokens_s": "sampled/s",
    "update_tokens_s": "trained/s",
    "update_peak_frac": "of peak",
    "decode_bandwidth_frac": "of bandwidth",
    "generate_peak_gib": "sample GiB",
    "update_peak_gib": "update GiB",
    "logprob_gap_mean": "gap mean",
}


def table(parts: list[dict[str, Any]]) -> str:
    """The record as Markdown."""
    lines = []
    for part in parts:
        if part["name"] == "ceilings":
            lines.append(
                f"{part.get('card', '?')}: {part.get('matmul_tflops', float('nan')):.0f} TFLOP/s in a bfloat16 product "
                f"of 8192^2, {part.get('copy_gb_s', float('nan')):.0f} GB/s in a copy of 4 GiB (read and written)."
            )
        elif part["name"] == "tests":
            tests = part.get("tests", {})
            counts = {kind: sum(one["outcome"] == kind for one in tests.values()) for kind in ("passed", "skipped")}
            bad = [name for name, one in tests.items() if one["outcome"] in ("failure", "error")]
            lines.append(f"Tests: {counts['passed']} passed, {counts['skipped']} skipped, {len(bad)} failed.")
            lines += [f"- failed: {name}: {tests[name].get('message', '').splitlines()[:1]}" for name in bad]
    shapes = [part for part in parts if part["name"] in SHAPES]
    if shapes:
        lines += ["", "| shape | responses x tokens | " + " | ".join(COLUMNS.values()) + " |"]
        lines.append("|---" * (len(COLUMNS) + 2) + "|")
        for part in shapes:
            cells = [f"{part[key]:.3g}" if key in part else "-" for key in COLUMNS]
            size = f"{part.get('responses', '?')} x {part.get('tokens', '?')}"
            lines.append(f"| {part['name']} | {size} | " + " | ".join(cells) + " |")
    lines += ["", *(f"FAILED {part['name']}: {part['error']}" for part in parts if part["error"])]
    return "\n".join(lines).rstrip()


def write_record(parts: list[dict[str, Any]], output: Path) -> Path:
    """``DATE-gpu.json`` and ``.md``; returns the path of the first."""
    now = datetime.datetime.now(datetime.UTC)
    document = {
        "command": "python -m benchmarks.gpu " + " ".join(sys.argv[1:]),
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git("describe", "--always", "--dirty"),
        "machine": machine(),
        "versions": versions(),
        "parts": parts,
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{now:%Y-%m-%d-%H%M}-gpu.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    heading = (
        f"# GPU check, {document['date']}\n\n`{document['command']}`, commit {document['commit'] or 'unknown'}\n\n"
    )
    path.with_suffix(".md").write_text(heading + table(parts) + "\n")
    return path


def main() -> int:
    """Measure, write the record, print its table; 1 if any part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=240, help="seconds in all")
    parser.add_argument("--responses", type=int, default=256, help=f"responses in a step, a multiple of {GROUP}")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a response")
    parser.add_argument("--shapes", nargs="*", default=["qwen2.5-0.5b", "qwen2.5-1.5b"], choices=list(SHAPES))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "records")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        request = dict(options.part)
        {"ceilings": ceilings, "step": step}[request.pop("kind")](**request)
        return 0
    parts = measured(options)
    path = write_record(parts, options.output)
    print(table(parts))
    print(f"wrote {path}")
    return int(any(part["error"] for part in parts))


if __name__ == "__main__":
    sys.exit(main())
