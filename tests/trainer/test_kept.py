"""Rollouts kept: every response of a step with its tokens' numbers, whole files, and no byte of the curve moved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from runs import COIN, CURVES, MOVING
from whole_runs import trained

from trainer.contract.config import AccountingConfig
from trainer.contract.settings import ConfigError
from trainer.engine.base import EnginePool
from trainer.storage.record import RunFolder
from trainer.storage.rollouts import kept_steps, write_step


@pytest.fixture(scope="module")
def engines() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


SETTINGS = COIN | MOVING | {"optim.updates_per_rollout": 2, "steps": 3, "evaluation.every": 0, "checkpoint.every": 2}
SETTINGS |= {"accounting.ledger_every": 2, "accounting.ledger_rows": 4, "tracking.samples": 16}


def kept_every(every: int, path: Path, engines: EnginePool) -> RunFolder:
    return trained(path, engines, SETTINGS | {"accounting.rollouts_every": every})


@pytest.fixture(scope="module")
def kept(engines: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return kept_every(1, tmp_path_factory.mktemp("kept"), engines)


def rows(folder: RunFolder, step: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(kept_steps(folder.path)[step]).to_pylist()
    return found


def test_every_response_of_every_due_step_is_there_token_by_token(kept: RunFolder) -> None:
    assert list(kept_steps(kept.path)) == [0, 1, 2]
    for step in (0, 1, 2):
        found = rows(kept, step)
        assert len(found) == 16 and {row["step"] for row in found} == {step}
        for row in found:
            lengths = {len(row[name]) for name in ("tokens", "token_ids", "logprobs", "entropy", "advantage")}
            assert lengths == {len(row["tokens"])} and row["tokens"]
            assert row["correct"] == (row["reward"] > 0.5) and max(row["logprobs"]) <= 0 <= min(row["entropy"])
            assert "".join(row["tokens"]).startswith(row["response"])


def test_their_means_are_the_metrics_of_the_step(kept: RunFolder) -> None:
    for line in map(json.loads, kept.metrics.read_text().splitlines()):
        found = rows(kept, line["step"])
        entropy = [value for row in found for value in row["entropy"]]
        logprobs = [value for row in found for value in row["logprobs"]]
        assert sum(entropy) / len(entropy) == pytest.approx(line["metrics"]["policy/entropy"], rel=1e-5)
        assert -sum(logprobs) / len(logprobs) == pytest.approx(line["metrics"]["policy/surprisal"], rel=1e-5)
        assert sum(row["reward"] for row in found) / 16 == pytest.approx(line["metrics"]["rollout/reward"])


def test_influence_is_that_of_the_ledger_where_it_looked(kept: RunFolder) -> None:
    looked = {step: [row for row in rows(kept, step) if row["influence"] is not None] for step in (0, 1, 2)}
    assert looked[1] == [] and 0 < len(looked[0]) < 16, "a ledger every other step, of some of the responses"
    for row in looked[0]:
        assert len(row["influence"]) == len(row["tokens"])
    # The same tokens in tokens.jsonl, to six digits.
    ledger = [json.loads(line) for line in kept.tokens.read_text().splitlines()]
    for step in (0, 2):
        expected = {(tuple(r["tokens"]), tuple(r["influence"])) for r in ledger if r["step"] == step}
        digits = {(tuple(r["tokens"]), tuple(float(f"{v:.6g}") for v in r["influence"])) for r in looked[step]}
        close = [
            any(tokens == other and values == pytest.approx(more, rel=1e-5, abs=1e-12) for other, more in expected)
            for tokens, values in digits
        ]
        assert all(close) and len(digits) == len(expected)


def test_keeping_rollouts_moves_no_byte_and_is_off_by_default(
    kept: RunFolder, engines: EnginePool, tmp_path: Path
) -> None:
    off = kept_every(0, tmp_path, engines)
    assert AccountingConfig().rollouts_every == 0 and not (off.path / "rollouts").exists()
    for name in (*CURVES, "tokens.jsonl"):
        there = kept.path / name
        assert not there.exists() or there.read_bytes() == (off.path / name).read_bytes()


def test_a_run_that_goes_back_forgets_later_files_and_makes_the_same_ones_again(
    kept: RunFolder, engines: EnginePool, tmp_path: Path
) -> None:
    again = kept_every(1, tmp_path, engines)
    files = {path.name: path.read_bytes() for path in kept_steps(kept.path).values()}
    assert {path.name: path.read_bytes() for path in kept_steps(again.path).values()} == files
    (again.path / "rollouts" / ".step-000002.parquet.host.1.tmp").write_bytes(b"torn")
    write_step(again.path, 7, [])
    again.truncate(1)
    assert sorted(path.name for path in (again.path / "rollouts").iterdir()) == [
        "step-000000.parquet",
        "step-000001.parquet",
    ]
    again.truncate(-1)
    assert kept_steps(again.path) == {}


def test_bad_settings_and_a_file_in_the_way_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"accounting.rollouts_every=-1 cannot be used: use 0 for never"):
        AccountingConfig(rollouts_every=-1)
    (tmp_path / "rollouts").write_text("")
    with pytest.raises(ConfigError, match="is a file and should be a folder"):
        RunFolder(tmp_path).require_shape()
