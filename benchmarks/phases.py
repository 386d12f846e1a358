"""Seconds per training step by phase, beside the floor: what the machine could do it in.

    python -m benchmarks.phases [OUTPUT_FOLDER] [--since 5] [--steps 25]

Reads the timings that runs leave behind; without a folder it first makes two runs of the default, with 1 and 4 updates
per rollout. Medians over steps (the first five of each run are warm-up), then over runs; what does not come every step
is averaged over all steps. ``reached`` is the larger of operations and bytes per second as a fraction of this
machine's own ceilings, which are measured in the same minute.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import ours
from benchmarks.common import MODEL, NUM_THREADS, save
from benchmarks.floor import Load, ceilings, floor, shape_of
from trainer.update.logprob_gap import EXACT

OBSERVING = ("time/metrics_s", "time/accounting_s")
"""Diversity, calibration and accounting: what item 9 of the plan caps at a tenth of a step."""


def phases(run: Path, since: int) -> dict[str, float]:
    """Seconds per step of every phase of one run."""
    steps = [line["metrics"] for line in ours.steps(run) if line["step"] >= since]
    keys = sorted({key for step in steps for key in step if key.startswith("time/")})
    every = {key: statistics.median(step[key] for step in steps) for key in keys if all(key in step for step in steps)}
    return every | {key: sum(s.get(key, 0.0) for s in steps) / len(steps) for key in keys if key not in every}


@functools.cache
def _prompt_tokens(model: str, task: str) -> float:
    from transformers import AutoTokenizer

    from trainer.contract.components import build_component

    texts = [prompt.text for prompt in build_component(yaml.safe_load(task), "task").train_prompts()]
    return statistics.fmean(len(ids) for ids in AutoTokenizer.from_pretrained(model)(texts)["input_ids"])


def load_of(run: Path, since: int) -> tuple[Path, Load]:
    """The model of a run and what one of its steps works on."""
    config = yaml.safe_load((run / "run.yaml").read_text())
    model = Path(config["model"]["path"] or MODEL)
    records = [r["metrics"] for r in ours.records(run, "metrics.jsonl") if r["step"] >= since]
    lengths = [metrics["rollout/length_mean"] for metrics in records if "rollout/length_mean" in metrics]
    prompts = config["rollout"]["prompts_per_step"]
    return model, Load(
        prompts=prompts,
        prompt_tokens=_prompt_tokens(str(model), yaml.safe_dump(config["task"])),
        responses=prompts * config["rollout"]["group_size"],
        response_tokens=statistics.fmean(lengths),
        longest=config["rollout"]["max_tokens"],
        updates=config["optim"]["updates_per_rollout"] * config["optim"]["epochs"],
        old_pass=config["model"].get("dtype", "float32") not in EXACT or not records_entropy(config),
    )


def records_entropy(config: dict[str, Any]) -> bool:
    """Whether the run's engine told the entropies of what it sampled: both do on a CPU, vLLM does not on a GPU."""
    return config["hardware"].get("device", "auto") == "cpu" or not torch.cuda.is_available()


def table(runs: list[Path], since: int) -> dict[str, Any]:
    """Phases of like runs, with the fraction of the machine's ceilings that each reaches."""
    found = [phases(run, since) for run in runs]
    seconds = {
        key: statistics.median(run[key] for run in found if key in run) for key in sorted({k for r in found for k in r})
    }
    model, load = load_of(runs[0], since)
    shape = shape_of(model)
    tops, least = ceilings(shape), floor(shape, load)
    reached = {}
    for phase, count in least.items():
        took = seconds.get(f"time/{phase}_s", 0.0)
        if took > 0 and count["bytes"] > 0:
            operations = count["operations"] / took / tops["operations_per_s"]
            moved = count["bytes"] / took / tops["bytes_per_s"]
            reached[phase] = {**count, "seconds": took, "operations_reached": operations, "bytes_reached": moved}
    return {
        "updates": load.updates,
        "runs": len(runs),
        "response_tokens": load.response_tokens,
        "prompt_tokens": load.prompt_tokens,
        "seconds": seconds,
        "ceilings": tops,
        "floor": reached,
        "observing_share": sum(seconds.get(key, 0.0) for key in OBSERVING) / seconds["time/step_s"],
    }


def show(found: dict[str, Any]) -> None:
    """Print one table."""
    print(f"{found['updates']} update(s) per rollout, {found['runs']} run(s)")
    for key, value in sorted(found["seconds"].items(), key=lambda item: -item[1]):
        name = key.removeprefix("time/").removesuffix("_s")
        least = found["floor"].get(name)
        more = (
            f"{least['operations'] / 1e9:8.2f} GFLOP {least['bytes'] / 2**30:7.3f} GiB, reached "
            f"{least['operations_reached']:6.1%} of operations, {least['bytes_reached']:6.1%} of bytes"
            if least
            else ""
        )
        print(f"  {name:12s} {value:8.4f} s {value / found['seconds']['time/step_s']:6.1%}  {more}")
    print(f"  diversity, calibration and accounting: {found['observing_share']:.1%} of a step (at most 10 %)")


def main() -> None:
    """Measure if nothing is given, print the tables, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="output folder of finished runs")
    parser.add_argument("--since", type=int, default=5, help="first step that counts")
    parser.add_argument("--steps", type=int, default=25, help="length of the runs made here")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(NUM_THREADS)
    if options.folder:
        every = sorted(path.parent for path in options.folder.glob("runs/*/timings.jsonl"))
        updates = {run: load_of(run, options.since)[1].updates for run in every}
        for count in sorted(set(updates.values())):
            show(table([run for run in every if updates[run] == count], options.since))
        return
    with tempfile.TemporaryDirectory() as scratch:
        common = ("evaluation=none", "tracking=none", f"steps={options.steps}")
        runs = [
            ours.make_run(Path(scratch) / str(count), *common, f"optim.updates_per_rollout={count}") for count in (1, 4)
        ]
        ours.train(*runs)
        tables = [table([run], options.since) for run in runs]
    for found in tables:
        show(found)
    save("phases", {"tables": tables})


if __name__ == "__main__":
    main()
