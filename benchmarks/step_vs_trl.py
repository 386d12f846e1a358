"""Seconds per training step against TRL's ``GRPOTrainer``: same model, task, batch, optimiser and number of updates.

    python -m benchmarks.step_vs_trl [--rounds 2] [--steps 12]

512 responses a step (32 prompts, 16 each, at most 40 tokens), the shipped model in float32, exact entropy on both
sides, no evaluation, no checkpoint, no tracker. The sides take turns, each block a fresh process whose first steps do
not count. A step is the wall time from the end of one to the end of the next. TRL generates with transformers, as it
does for whoever installs it on a CPU; the number of rows it takes at a time is the best of those tried here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import ours, peers
from benchmarks.common import MODEL, child, ratio, save, spread

UPDATES = (1, 4)
MICRO_BATCHES = {1: (512, 128), 4: (128, 64)}
"""Rows TRL computes at a time, to choose from."""
WARM_UP = 2
OVERRIDES = ("evaluation=none", "tracking=none", "checkpoint.every=100000")


def run_ours(updates: int, steps: int) -> dict[str, Any]:
    """One block of ours: seconds of the steps that count, and the last metrics."""
    with tempfile.TemporaryDirectory() as scratch:
        run = ours.make_run(Path(scratch) / "run", *OVERRIDES, f"steps={steps}", f"optim.updates_per_rollout={updates}")
        ours.train(run)
        last = ours.records(run, "metrics.jsonl")[-1]["metrics"]
        keys = ("policy/entropy", "rollout/reward", "rollout/length_mean")
        return {"seconds": ours.step_seconds(run)[WARM_UP:], "last": {key: last.get(key) for key in keys}}


def run_trl(updates: int, steps: int, micro_batch: int) -> dict[str, Any]:
    """One block of TRL."""
    request = {"model": str(MODEL), "responses": 512, "group_size": 16, "max_tokens": 40}
    request |= {"updates": updates, "steps": steps, "micro_batch": micro_batch}
    found = child("benchmarks.trl_grpo", request, peers.python())
    return {**found, "seconds": found["seconds"][WARM_UP:]}


def compare(updates: int, rounds: int, steps: int) -> dict[str, Any]:
    """Blocks in turns; the ratio of medians over all their steps."""
    tried = {size: run_trl(updates, WARM_UP + 4, size)["seconds"] for size in MICRO_BATCHES[updates]}
    best = min(tried, key=lambda size: spread(tried[size])["median"])
    blocks: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for _ in range(rounds):
        blocks["ours"].append(run_ours(updates, steps))
        blocks["trl"].append(run_trl(updates, steps, best))
        print(updates, {name: spread(done[-1]["seconds"]) for name, done in blocks.items()}, flush=True)
    seconds = {name: [value for block in done for value in block["seconds"]] for name, done in blocks.items()}
    return {
        "updates": updates,
        "trl_micro_batch": best,
        "trl_tried": {str(size): spread(values) for size, values in tried.items()},
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "faster": ratio(seconds["ours"], seconds["trl"]),
        "last": {name: done[-1]["last"] for name, done in blocks.items()},
        "trl_versions": blocks["trl"][-1]["versions"],
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    save("step_vs_trl", {"compared": [compare(updates, options.rounds, options.steps) for updates in UPDATES]})


if __name__ == "__main__":
    main()
