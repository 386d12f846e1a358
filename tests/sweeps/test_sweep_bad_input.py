"""Whatever a person gets wrong: one clear sentence, exit code 2, no traceback, nothing queued, nothing written."""

from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

BAD = [
    (["-m", "factor=clip_hgih"], "factor=clip_hgih does not exist: did you mean 'clip_high'?"),
    (["-m", "fctor=clip_high"], "fctor is neither a group nor a setting: did you mean 'factor'?"),
    (["surrogate=ppo"], "surrogate=ppo does not exist: did you mean 'ppo_clip'?"),
    (["weight=[sgn]"], "weight=sgn does not exist: did you mean 'sign'?"),
    (["optim.lrr=1"], "optim.lrr is not a setting: did you mean 'optim.lr'?"),
    (
        ["-m", "surrogate.clip_hihg=0.2,0.4"],
        "surrogate.clip_hihg is not a setting: did you mean 'surrogate.clip_high'?",
    ),
    (["clip_high=0.3"], "clip_high is neither a group nor a setting: did you mean 'surrogate.clip_high'?"),
    (["+optim.epoch=3"], "optim.epoch is not a setting of OptimConfig: did you mean 'epochs'?"),
    (["weight.sign.positive=0"], "weight.sign.positive belongs to weight=sign, which is not chosen: add weight=[sign]"),
    (["factor=clip_high"], "factor=clip_high is a sweep: put -m before it (python sweep.py -m factor=clip_high)"),
    (["-m", "factor=clip_high,clip_low"], "a sweep has one factor"),
    (["optim.lr=1,2"], "optim.lr=1,2 names several values: put -m before it"),
    (["seed=range(3)"], "seed=range(3) names several values: put -m before it"),
    (["optim.lr=[1"], "a part of the command line cannot be read"),
    (["optim.lr"], "a part of the command line cannot be read"),
    (["optim=5"], "optim=5 does not exist: choose one of adamw"),
    (["model.path=${nowhere}"], "${nowhere} names nothing in the configuration"),
    (["-m", "factor=clip_high", "optim.updates_per_rollout=1"], "every ratio is 1 and no threshold acts"),
    (["-m", "optim.lr=-1,1"], "optim.lr=-1.0 cannot be used: a learning rate is at least 0 (in -1)"),
    (
        ["surrogate=unclipped", "surrogate.clip_high=0.3"],
        "surrogate.clip_high is not a setting of Unclipped: choose surrogate=ce_gppo or cispo or dcpo or",
    ),
    (
        ["-m", "factor=clip_high", "surrogate=unclipped"],
        "surrogate.clip_high is not a setting of Unclipped: choose surrogate=ce_gppo or cispo or dcpo or",
    ),
    (
        ["-m", "factor=clip_regime", "surrogate=kl_cov"],
        "surrogate.clip_low and surrogate.clip_high are not settings of KLCov: choose surrogate=ce_gppo or cispo or",
    ),
    (["method=small/kl_covv"], "method=small/kl_covv does not exist: did you mean 'small/kl_cov'?"),
    (["hardware.memory_gib=1"], "the shipped model on cpu cannot fit: process 0.9 + "),
    (["launcher.slots=0"], "launcher.slots=0 cannot be used: give a whole number, at least 1"),
    (["launcher.slots=two"], "launcher.slots='two' cannot be used: give a whole number, at least 1"),
    (["seed=-1"], "seed=-1 cannot be used: give a whole number, at least 0"),
    (["retry=some"], "retry='some' cannot be used: choose one of all, failed, lost, or null"),
    (["study.name=../up"], "study.name='../up' cannot be used"),
    (["-m", "output=a,b"], "cannot differ between the cells of one sweep"),
    (["-m", "checkpoint.every=1,2"], "are the same experiment"),
    (
        ["tracking.uri=file:///somewhere"],
        "tracking.uri='file:///somewhere' is a folder, which MLflow no longer writes to",
    ),
    (["launcher._target_=os.path.Path"], "launcher._target_='os.path.Path' is not a queue of this project"),
    (["optim._target_=trainer.contract.config.Optim"], "names no class"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_a_mistake_is_one_sentence(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert sweep(*arguments) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_server_that_does_not_answer(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], fake: list[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert sweep(f"tracking.uri={uri}", base=[fake[0]]) == 2
    assert f"tracking.uri='{uri}' does not answer" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert sweep("output=taken/here") == 2
    assert "taken is a file; choose a folder" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_full_disk(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 2**20, 2**20))
    assert sweep("-m", "seed=0,1") == 2
    assert "is on a disk with 1 MiB left, but 2 runs need at least 202" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_runs_are_registered(
    sweep: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "run.yaml")

    monkeypatch.setattr("sweeps.plan.register.write_run", full)
    assert sweep() == 2
    assert "cannot be written (No space left on device): nothing was queued" in capsys.readouterr().err


def test_a_folder_that_holds_another_experiment_is_not_overwritten(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("plan=true") == 0
    folder = tmp_path / "outputs" / capsys.readouterr().out.split("runs/")[1].split()[0]
    folder = tmp_path / "outputs" / "runs" / folder.name
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text("seed: 7\n")
    assert sweep() == 2
    assert "belongs to another configuration" in capsys.readouterr().err
    assert (folder / "run.yaml").read_text() == "seed: 7\n"


def test_a_trainer_that_cannot_check_is_reported(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import a_module_that_is_not_there")
    assert sweep(base=["launcher.trainer=[broken.py]", "tracking=none"]) == 2
    assert "the trainer could not check the configuration: ModuleNotFoundError" in capsys.readouterr().err
