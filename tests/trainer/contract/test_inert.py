"""What is outside a run's identity moves no byte: both values of every such setting are run and compared.

A setting that is added outside identity and not listed here fails; so does one that turns out to matter.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import CURVES, MOVING, run_config, write_run
from whole_runs import trained

from trainer.__main__ import main
from trainer.contract import run_yaml
from trainer.contract.config import CheckpointConfig, HardwareConfig, TrackingConfig
from trainer.contract.identity import NOT_IDENTITY, signature
from trainer.engine.base import EnginePool
from trainer.storage.record import RunFolder

SETTINGS = MOVING | {"steps": 3, "optim.updates_per_rollout": 2, "accounting.every": 1}

INERT: dict[str, Any] = {
    "checkpoint.every": 3,
    "checkpoint.keep": 1,
    "tracking.uri": "sqlite:///{folder}/mlflow.db",
    "tracking.experiment": "another",
    "tracking.parent_run_id": "0" * 32,
    "tracking.run_name": "1_000",
    "tracking.tags": {"mood": "on"},
    "tracking.flush_every_s": 0.01,
    "tracking.samples": 1,
}
"""Another value than that of ``SETTINGS`` for every setting of the groups outside identity."""

OTHER_KEYS: dict[str, Any] = {
    "entropy_target": 0.1,
    "factor": {"name": "clip_high", "key": "surrogate.clip_high", "held": []},
    "hydra": {"verbose": True},
    "launcher": {"_target_": "sweeps.queues.slurm.SlurmQueue", "cpus": 3},
    "max_hours": 1,
    "method": "siren",
    "output": "elsewhere",
    "plan": True,
    "provenance": {"git": {"revision": "38930e831968", "dirty": True}},
    "retry": "all",
    "search": {"n_trials": 3},
    "signature": "38930e831968",
    "study": {"name": "1e5", "level": "on", "level_index": 3, "label": "on"},
    "yes": True,
}
"""Keys outside identity that the trainer does not read, or only to tell others."""

GROUPS = {"checkpoint": CheckpointConfig, "tracking": TrackingConfig}

MOVES: dict[str, Any] = {
    "hardware.mixed_precision": "bf16",
    "hardware.logprob_dtype": "bfloat16",
    "hardware.micro_batch_tokens": 64,
    "hardware.head_chunk": 7,
    "hardware.share_prompts": False,
    "hardware.num_threads": 2,
}
"""Another value for every setting of ``hardware`` but those that need another machine: equal in law (but for the
precision), not in every bit."""


@pytest.fixture(scope="module")
def engines() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def plain(engines: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return curves(tmp_path_factory.mktemp("plain"), SETTINGS, engines)


def curves(path: Path, changes: dict[str, Any], engines: EnginePool) -> dict[str, bytes]:
    return bytes_of(trained(path, engines, changes))


def bytes_of(folder: RunFolder) -> dict[str, bytes]:
    return {name: (folder.path / name).read_bytes() for name in CURVES}


def test_every_setting_outside_identity_is_tried_here() -> None:
    fields = {f"{group}.{field.name}" for group, kind in GROUPS.items() for field in dataclasses.fields(kind)}
    assert fields == INERT.keys()
    assert {*GROUPS, *OTHER_KEYS, "schema"} == NOT_IDENTITY
    config = run_config(SETTINGS)
    for key, value in INERT.items():
        group, _, name = key.partition(".")
        assert config[group][name] != value, f"{key} has this value already"


@pytest.mark.slow
@pytest.mark.parametrize("key", INERT)
def test_a_setting_outside_identity_moves_no_byte(
    key: str, engines: EnginePool, plain: dict[str, bytes], tmp_path: Path
) -> None:
    value = INERT[key].format(folder=tmp_path) if key == "tracking.uri" else INERT[key]
    changed = SETTINGS | {key: value}
    assert signature(run_config(changed)) == signature(run_config(SETTINGS))
    found = curves(tmp_path / "run", changed, engines)
    if key == "tracking.samples":  # how many responses are kept to be read is no part of the curve
        assert found.pop("samples.jsonl") != plain["samples.jsonl"]
    assert found == {name: plain[name] for name in found}


@pytest.mark.slow
def test_the_mlflow_mirror_and_all_other_keys_move_no_byte(plain: dict[str, bytes], tmp_path: Path) -> None:
    """The whole program, as a job starts it, with everything else said at once."""
    config = run_config(SETTINGS)
    others = OTHER_KEYS | {"tracking": config["tracking"] | {"uri": f"sqlite:///{tmp_path}/mlflow.db"}}
    assert signature(config | others) == signature(config)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text(run_yaml.dumps(config | others))
    assert main([str(tmp_path / "run")]) == 0
    assert bytes_of(RunFolder(tmp_path / "run")) == plain


@pytest.mark.slow
def test_the_cores_of_the_machine_move_no_byte(plain: dict[str, bytes], tmp_path: Path) -> None:
    """One core and one OpenMP thread, as on a small machine: threads are those that the configuration says."""
    folder = write_run(tmp_path / "run", SETTINGS)
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "--cpu-list", core, sys.executable, "-m", "trainer", str(folder.path)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert bytes_of(folder) == plain


def test_hardware_is_inside_identity_setting_by_setting() -> None:
    assert MOVES.keys() == {f"hardware.{field.name}" for field in dataclasses.fields(HardwareConfig)} - {
        "hardware.device",
        "hardware.processes",
        "hardware.sharding",  # of several ranks, whose sums are in another order
        "hardware.memory_gib",  # what the device has: a plan compares with it, and no run reads it
    }
    changes: list[dict[str, Any]] = [{key: value} for key, value in MOVES.items()]
    changes += [{"hardware.device": "cuda"}, {"hardware.processes": 2}, {"hardware.sharding": "fsdp2"}, {}]
    assert len({signature(run_config(change)) for change in changes}) == len(changes)


@pytest.mark.slow
@pytest.mark.parametrize("key", MOVES)
def test_hardware_moves_bytes(key: str, engines: EnginePool, plain: dict[str, bytes], tmp_path: Path) -> None:
    """Why these are inside. Where this fails because the bytes are equal, the setting may move out."""
    found = curves(tmp_path / "run", SETTINGS | {key: MOVES[key]}, engines)
    if key == "hardware.num_threads":
        return  # on a model as small as this most operators use one thread anyway
    assert found["metrics.jsonl"] != plain["metrics.jsonl"]
