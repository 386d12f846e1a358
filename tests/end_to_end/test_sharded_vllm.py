"""Weights shared out over two ranks, through everything: Submitit, accelerate, vLLM in each rank, a checkpoint in
parts, and a run whose vLLM starts from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
RANKS_DIFFER_BY = 1e-3
"""Rounding of sums in another order, carried through two updates and a sampler that may turn one near tie around."""


def run(output: Path, *words: str) -> tuple[Path, list[dict[str, Any]]]:
    """A run's folder and its metrics, by step."""
    before = set(output.glob("runs/*"))
    fixed = ("study=smoke", "seed=3", "accounting.ledger_every=0", "evaluation=none", f"output='{output}'")
    command = [sys.executable, "sweep.py", *fixed, *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = set(output.glob("runs/*")) - before
    return folder, [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_ranks_with_shared_weights_and_vllm_equal_one(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    _, alone = run(tmp_path)
    folder, both = run(tmp_path, "hardware.processes=2", "hardware.sharding=fsdp2")
    for one, two in zip(alone, both, strict=True):
        for key in ("rollout/reward", "policy/entropy", "optim/grad_norm"):
            if key in one:
                assert two[key] == pytest.approx(one[key], rel=RANKS_DIFFER_BY), key
    written = folder / "checkpoints" / "step-000002"
    assert len(list(written.glob("model-0000?-of-00002.safetensors"))) == 2
    _, after = run(tmp_path, f"model.path='{written}'", "steps=1")
    assert after[0]["policy/entropy"] == pytest.approx(both[-1]["policy/entropy"], rel=0.3), "not the base model's"
