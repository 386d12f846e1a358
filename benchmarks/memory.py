"""Predicted against measured peak memory of whole runs on this machine's CPU, one after another.

    python -m benchmarks.memory [--only shipped|20m|135m|lora] ...

Two steps with vLLM in the process; of the larger models fewer and shorter responses. Measured is ``memory/peak_gib``,
the highest resident memory of the training process; predicted are the parts that ``plan=true`` shows
(``sweeps/memory/parts.py``). 20m has random weights in the shape of Qwen3; 135m is SmolLM2, which ``make real-model``
brings; lora is 135m with an adapter of rank 16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, environment, save
from sweeps.compose.compose import Composed, compose
from sweeps.grid.cells import cells, resolve_all
from sweeps.memory.model_size import planned_size
from sweeps.memory.parts import GIB, memory_parts
from sweeps.runs.run_folder import write_run
from trainer.contract.cache import located
from trainer.contract.identity import SCHEMA

SETTINGS = (
    *("tracking.uri=null", "steps=2", "evaluation=none", "accounting=none", "checkpoint.every=100"),
    "hardware.device=cpu",
)
SMOLLM2 = "cache:models/SmolLM2-135M-Instruct-Q4_1"
RUNS: dict[str, tuple[str, ...]] = {
    "shipped": (),
    "20m": (
        *("hardware.micro_batch_tokens=2048", "rollout.prompts_per_step=8"),
        *("rollout.group_size=8", "rollout.max_tokens=64"),
    ),
    "135m": (
        *(f"model.path={SMOLLM2}", "hardware.micro_batch_tokens=512", "engine.kv_cache_gib=0.25"),
        *("rollout.prompts_per_step=4", "rollout.group_size=4", "rollout.max_tokens=32"),
    ),
}
RUNS["lora"] = (*RUNS["135m"], "model.lora_rank=16")
MAKE_20M = """
import sys, torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
sizes = dict(vocab_size=49152, hidden_size=256, intermediate_size=1024, num_hidden_layers=8, head_dim=64)
heads = dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=2048)
torch.manual_seed(0)
Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, eos_token_id=tokenizer.eos_token_id)).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""


def sums(folder: Path) -> tuple[str, ...]:
    """Overrides for additions as a task, which any tokenizer can read."""
    rows = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(2, 10) for b in range(2, 10)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("task=math", f"task.path={folder / 'sums.jsonl'}", "task.extract=number")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run one of :data:`RUNS` in a process of its own; its predicted parts and its peak, GiB."""
    overrides = [*SETTINGS, f"output={folder}", *RUNS[name], *(sums(folder) if name != "shipped" else ())]
    if name == "20m":
        made = str(folder / "model")
        subprocess.run([sys.executable, "-c", MAKE_20M, str(located(SMOLLM2)), made], check=True, env=environment())
        overrides.append(f"model.path={made}")
    composed = Composed(config=compose(overrides), overrides=tuple(overrides))
    (cell,) = cells(resolve_all([composed]))
    run = folder / "run"
    run.mkdir()
    write_run(run, {"schema": SCHEMA, **cell.config, "signature": cell.signature})
    subprocess.run([sys.executable, "-m", "trainer", str(run)], cwd=ROOT, env=environment(), check=True)
    lines = [json.loads(line)["metrics"] for line in (run / "timings.jsonl").read_text().splitlines()]
    model = cell.config["model"]
    size = planned_size(model["path"], model["revision"])
    assert size is not None
    parts = memory_parts(cell.config, size)
    return {
        "parameters": size.parameters,
        "parts_gib": {part: value / GIB for part, value in asdict(parts).items()},
        "predicted_gib": parts.total / GIB,
        "measured_gib": max(line["memory/peak_gib"] for line in lines if "memory/peak_gib" in line),
    }


def main() -> None:
    """Measure, print a line each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    found = {}
    for name in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = measured(name, Path(scratch))
        print(
            f"{name}: predicted {found[name]['predicted_gib']:.2f} GiB, measured {found[name]['measured_gib']:.2f} GiB"
        )
    save("memory", found)


if __name__ == "__main__":
    main()
