"""Weights shared out over two ranks, through everything: Submitit, accelerate, vLLM in each rank, and a checkpoint in
parts that vLLM starts from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import VLLM, run_config

from trainer.policy.model import load_model, load_tokenizer
from trainer.session.devices import engine_setup
from trainer.setup.build import build_run

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
    assert_vllm_loads(written)


def assert_vllm_loads(checkpoint: Path) -> None:
    """What vLLM samples from the checkpoint has the log-probs that transformers gives it."""
    settings = build_run(run_config(VLLM | {"model.path": str(checkpoint)}))
    setup = engine_setup(settings, load_tokenizer(settings.model), torch.device("cpu"))
    engine: Any = settings.engine.start(setup)
    prompt = tuple(load_tokenizer(settings.model)("4,7,3,2=26:")["input_ids"])
    ((found,),) = engine.generate([prompt], samples=1, temperature=1.0, max_tokens=24, seeds=[5])
    engine.close()
    with torch.no_grad():
        logits = load_model(settings.model)(input_ids=torch.tensor([prompt + found.token_ids])).logits[0]
    expected = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(found.token_ids)[:, None])
    assert found.logprobs == pytest.approx(expected[:, 0].tolist(), abs=1e-4)
