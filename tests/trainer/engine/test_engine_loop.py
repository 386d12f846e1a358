"""Training with real vLLM in this process: determinism, reuse of the engine, and that a skipped sync is caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import MOVING, VLLM, metrics, record
from whole_runs import preempted_once, trained

from trainer.storage.record import RunFolder
from trainer.update.logprob_gap import EngineMismatch


@pytest.fixture
def pool(bench: Any) -> Any:
    bench.named("vllm")
    return bench.pool


def sampled_by_vllm(path: Path, pool: Any, changes: dict[str, Any] | None = None) -> RunFolder:
    before = pool._engine
    folder = trained(path, pool, VLLM | MOVING | (changes or {}))
    assert pool._engine is before, "the engine of the tests fits, so it is reused"
    return folder


@pytest.mark.slow
def test_the_same_bytes_from_an_engine_that_served_another_run(pool: Any, tmp_path: Path) -> None:
    first = sampled_by_vllm(tmp_path / "1", pool)
    other = sampled_by_vllm(tmp_path / "2", pool, {"seed": 1, "optim.updates_per_rollout": 4})
    again = sampled_by_vllm(tmp_path / "3", pool)
    assert record(again) == record(first) != record(other)
    for line in metrics(first)[:-1] + metrics(other)[:-1]:
        assert line["engine/logprob_gap_max"] < 1e-4


def test_weights_that_did_not_arrive_are_noticed(pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, load = pool._engine, type(pool._engine).load_weights

    def stamp_only(self: Any, weights: Any, version: int) -> None:
        if version == 0:
            load(self, weights, version)
        self.weight_version = version

    monkeypatch.setattr(type(engine), "load_weights", stamp_only)
    with pytest.raises(EngineMismatch, match="sampler and trainer disagree"):
        sampled_by_vllm(tmp_path, pool)


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_with_vllm(pool: Any, tmp_path: Path) -> None:
    whole = sampled_by_vllm(tmp_path / "whole", pool)
    assert record(preempted_once(1, tmp_path / "parts", pool, VLLM | MOVING)) == record(whole)
