"""Kinds of mistakes that a person can type, against the trainer's own check (run in this process, so that it is fast):
exit code 2, a sentence for each problem, no traceback, nothing written, nothing queued."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.__main__ import check

BASE = ("tracking=none", "engine=transformers", "hardware.device=cpu")

KINDS: dict[str, list[tuple[list[str], str]]] = {
    "numbers": [
        (["optim.lr=nan"], "optim.lr=nan cannot be used: give a finite number"),
        (["optim.lr=inf"], "optim.lr=inf cannot be used: give a finite number"),
        (["-m", "optim.lr=1e-3,nan"], "optim.lr=nan cannot be used: give a finite number"),
        (["optim.betas=[0.9,nan]"], "optim.betas[1]=nan cannot be used: give a finite number"),
        (["evaluation.ks=[1,inf]"], "evaluation.ks[1]=inf cannot be used: give a finite number"),
        (["optim.lr=1_000"], "optim.lr=1000.0 cannot be used: give a number, at least 0, at most 10"),
        (["optim.weight_decay=1e30"], "optim.weight_decay=1e+30 cannot be used: give a number (of at most"),
        (["seed=nan"], "seed=nan cannot be used: give a finite number"),
        (["seed=1.5"], "seed=1.5 cannot be used: give a whole number, at least 0"),
        (["seed=99999999999999999999"], "seed=99999999999999999999 cannot be used: give a whole number"),
        (["steps=1e9"], "steps=1000000000 cannot be used: give a whole number, at least 0, at most 10000000"),
        (["steps=[1]"], "steps=[1] cannot be used: give a whole number"),
        (["tracking.samples=-3"], "tracking.samples=-3 cannot be used: give a whole number, at least 0"),
        (["tracking.flush_every_s=-1"], "tracking.flush_every_s=-1.0 cannot be used: give a number, at least 0.01"),
        (["rollout.group_size=1"], "rollout.group_size=1 leaves nothing to compare a response with"),
        (["rollout.prompts_per_step=10000000"], "is over 1048576 responses a step: give less"),
        (["rollout.temperature=0"], "rollout.temperature=0.0 cannot be used: give a temperature above 0"),
        (["checkpoint.every=0"], "checkpoint.every=0 cannot be used"),
        (["accounting.every=1.5"], "accounting.every=1.5 cannot be used: give a whole number"),
        (["max_hours=nan"], "max_hours=nan cannot be used: give hours, more than 0"),
        (["max_hours=-1"], "max_hours=-1 cannot be used: give hours, more than 0"),
        (["launcher.slots=1.5"], "launcher.slots=1.5 cannot be used: give a whole number"),
        (["launcher.grace_s=-1"], "launcher.grace_s=-1.0 cannot be used: give a number, at least 0"),
        (["evaluation.ks=[1,64]"], "every k lies between 1 and evaluation.samples=16"),
        (["evaluation.ks=[]"], "every k lies between 1 and evaluation.samples=16"),
        (["task.num_prompts=0"], "task.num_prompts=0 cannot be used: give a whole number, 1 to 4096"),
        (["optim.updates_per_rollout=64"], "needs at least that many prompts a step"),
    ],
    "wrong types": [
        (["seed=abc"], "seed='abc' cannot be used: give a whole number"),
        (["seed="], "seed='' cannot be used: give a whole number"),
        (["seed=null"], "seed=None cannot be used: give a whole number"),
        (["seed=True"], "seed=True cannot be used: give a whole number"),
        (["optim.lr=null"], "optim.lr=None cannot be used: give a number"),
        (["optim.lr=true"], "optim.lr=True cannot be used: give a number"),
        (['optim.lr="1e-4"'], "optim.lr='1e-4' cannot be used: give a number"),
        (["optim.lr=0x10"], "optim.lr='0x10' cannot be used: give a number"),
        (["optim.lr=1e-4x"], "optim.lr='1e-4x' cannot be used: give a number"),
        (["surrogate.clip_high={a:1}"], "surrogate.clip_high={'a': 1} cannot be used: give a number, or null"),
        (["plan=no"], "plan='no' cannot be used: give true or false"),
        (["yes=1"], "yes=1 cannot be used: give true or false"),
        (["retry=true"], "retry=True cannot be used: choose one of all, failed, lost, or null"),
        (["model.trust_remote_code=maybe"], "model.trust_remote_code='maybe' cannot be used: give true or false"),
        (["model.path=7"], "model.path='7' is no folder here"),
        (["tracking.experiment="], "tracking.experiment='' cannot be used: give the experiment a name"),
        (["tracking.uri=7"], "tracking.uri='7' is a folder, which MLflow no longer writes to"),
        (["output=7"], "output=7 cannot be used: give a text"),
        (["output=null"], "output=None cannot be used: give a text"),
        (["output="], "output='' cannot be used: give the folder that runs go to"),
        (["evaluation.ks=4"], "evaluation.ks=4 cannot be used: give a list, 'evaluation.ks=[4]'"),
        (["evaluation.suites=heldout"], "give a list, 'evaluation.suites=[heldout]'"),
        (["launcher.trainer=abc"], "give a list, 'launcher.trainer=[abc]'"),
        (["launcher.trainer=[]"], "launcher.trainer=[] cannot be used: name what starts the trainer"),
        (["tracking.tags=abc"], "give a mapping, 'tracking.tags={NAME: VALUE}'"),
        (["tracking.tags={a: 1}"], "tracking.tags.a=1 cannot be used: give a text"),
        (["model.dtype=fp32"], "model.dtype='fp32' cannot be used: choose float32, bfloat16 or float16"),
        (["hardware.device=gpu"], "hardware.device='gpu' cannot be used"),
    ],
    "names": [
        (["Seed=1"], "Seed is neither a group nor a setting: did you mean 'seed'?"),
        (["SEED=1"], "SEED is neither a group nor a setting: did you mean 'seed'?"),
        (["optim.LR=1"], "optim.LR is not a setting: did you mean 'optim.lr'?"),
        (["method=GRPO"], "method=GRPO does not exist: did you mean 'grpo'?"),
        (["method=../study/smoke"], "method=../study/smoke does not exist"),
        (["method=/grpo"], "method=/grpo does not exist: did you mean 'grpo'?"),
        (["method=[grpo]"], "method takes one choice and no list: method=grpo"),
        (["engine=nope"], "engine=nope does not exist: choose one of transformers, vllm"),
        (
            ["hardware="],
            "hardware is left empty: choose one of a100x8, auto, cpu, gpu, h100x1, h100x8, h200x1, rtx4090, or",
        ),
        (["surrogate=null"], "surrogate is left empty: choose one of"),
        (["surrogate=[]"], "surrogate takes one choice and no list"),
        (["weight=null"], "weight is left empty: choose one of"),
        (["weight=[sign,sign]"], "weight=[sign,sign] names one choice twice: leave one of them out"),
        (["weight={sign:{positive:1}}"], "weight.sign.positive belongs to weight=sign, which is not chosen"),
        (["+launcher.nope=1"], "launcher.nope is not a setting of LocalQueue"),
        (["launcher._target_=sweeps.queues.nope.Queue"], "names no file of the project"),
        (["~optim"], "optim is missing from the configuration: choose one with optim=NAME (adamw)"),
        (["~optim.lr"], "optim.lr is missing from the configuration: give optim.lr=VALUE instead of deleting it"),
        (["~seed"], "seed is missing from the configuration: give seed=VALUE"),
        (["~nope"], "nope cannot be deleted: it is not in the configuration"),
        (["+seed=1"], "seed is in the configuration already: leave out the + before it"),
        (["hydra.nope=1"], "hydra.nope is no setting"),
        (["hydra.run.dir=x"], "choose their place with output=FOLDER"),
        (["hydra/launcher=basic"], "runs are queued by sweep.py itself"),
        (["--seed=1"], "--seed=1 is no option: settings have no dashes in front"),
        (["-x"], "-x is no option: settings have no dashes in front"),
        (["optim.lr 1"], "a part of the command line cannot be read"),
        (["'"], "a part of the command line cannot be read"),
        (["seed=${oc.env:NOPE_NOPE}"], "seed refers to what cannot be found"),
        (["optim.lr=???"], "optim.lr has no value yet: give one, optim.lr=VALUE"),
    ],
    "mappings and files": [
        (["task.suite_paths={heldout: t.jsonl}"], "task.suite_paths is not a setting of Countdown: choose task=dapo"),
        (["task=math", "task.suite_pths={a: b}"], "task.suite_pths is not a setting: did you mean 'task.suite_paths'?"),
        (["task=math"], "path is null; set task.path"),
        (["task=math", "task.path=no.jsonl"], "no.jsonl"),
        (["task=math", "task.path='t ü.jsonl'", "task.suite_paths={a: no.jsonl}"], "no.jsonl"),
        (["model.path='an empty folder'"], "model.path='an empty folder' holds no model"),
        (["output='a file'"], "a file is a file; choose a folder"),
        (["output='a file/below'"], "a file is a file; choose a folder"),
        (["tracking.uri=garbage"], "tracking.uri='garbage' is a folder"),
        (["tracking.uri=htp://x"], "tracking.uri='htp://x' is no address that MLflow knows"),
        (["study.name='a b'"], "study.name='a b' cannot be used"),
    ],
    "sweeps": [
        (["-m", "seed=range(0)"], "seed=range(0) is empty, so there is nothing to run: give at least one value"),
        (["-m", "seed=range(3,1)"], "seed=range(3,1) is empty"),
        (["-m", "method=glob(zz*)"], "method=glob(zz*) is empty"),
        (["-m", "seed=choice()"], "a part of the command line cannot be read"),
        (["-m", "seed=1,"], "a part of the command line cannot be read"),
        (["-m", "factor=clip_high", "factor=clip_low"], "factor is chosen several times (clip_high and clip_low)"),
        (["-m", "factor=[clip_high,clip_low]"], "factor takes one choice and no list"),
        (["-m", "factor=clip_high", "surrogate.clip_high=0.2,wide"], "surrogate.clip_high='wide' cannot be used"),
        (["-m", "factor=clip_high", "optim=adamw"], "every ratio is 1 and no threshold acts"),
        (["-m", "factor=clip_regime", "clip_regime=higher,hgher"], "clip_regime=hgher does not exist"),
        (["-m", "factor=method", "method=grpo,nope"], "method=nope does not exist"),
        (["-m", "optim.lr=1e-3,1e-3"], "is asked for twice: leave out a value that is repeated"),
        (["-m", "optim.epochs=2,2.0"], "are the same experiment"),
        (["-m", "tracking.samples=1,2"], "tracking.samples=2 cannot be used: it cannot differ between the cells"),
        (["-m", "search=clip,aer"], "put -m before it"),
        (["launcher=slurm"], "log in to a cluster's submit host, or use launcher=local"),
    ],
}
ROWS = [row for rows in KINDS.values() for row in rows]


class Here:
    """The trainer's check in the place of its process."""

    returncode = 0

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def communicate(self, request: str) -> tuple[str, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self.returncode = check(request)
        return said.getvalue(), ""


@pytest.fixture
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.plan.check.subprocess", SimpleNamespace(Popen=Here, PIPE=None))


def test_there_are_enough() -> None:
    assert len(ROWS) >= 77 and len({" ".join(words) for words, _ in ROWS}) == len(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "sentence"), ROWS, ids=[" ".join(words) for words, _ in ROWS])
def test_a_sentence_and_nothing_written(
    sweep: Callable[..., int],
    checked_here: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "an empty folder").mkdir()
    (tmp_path / "t ü.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    before = {(path, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    given = {word.partition("=")[0] for word in words}
    base = [word for word in BASE if word.partition("=")[0] not in given]
    assert sweep(*words, base=base) == 2
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(said) == 1 and said[0].startswith("error: ") and sentence in said[0], err
    assert out == "" and "Traceback" not in err
    assert {(path, path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_a_folder_that_must_not_be_written(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], checked_here: None
) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert sweep("output=closed/here", base=BASE) == 2
    assert "closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["weight=sign"],  # one member of a list without its brackets
        ["surrogate={}"],  # nothing added to a choice
        ["seed=1", "seed=2"],  # of a value the last counts, as everywhere in Hydra
        ["study.name=7"],  # names are texts, whatever they look like
        ["tracking.experiment=5"],
        ["seed=1e3"],  # a whole number in another form: the same experiment as 1000
        ["max_hours=inf"],  # no limit
        ["-m"],  # a sweep of one cell
        ["task.num_prompts=4"],  # fewer prompts than a step takes: they come again
        ["task=math", "task.path='t ü.jsonl'", "task.suite_paths={held: 't ü.jsonl'}", "rollout.prompts_per_step=1"],
        ["task=math", "task.path='t ü.jsonl'", "task.suite_paths.held='t ü.jsonl'", "rollout.prompts_per_step=1"],
        ["tracking.tags={team: a, why: 'a b'}"],
        ["study=smoke", "evaluation=none"],
    ],
    ids=" ".join,
)
def test_what_looks_odd_and_is_none_the_less_meant(
    sweep: Callable[..., int],
    checked_here: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    (tmp_path / "t ü.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    assert sweep(*words, "plan=true", base=BASE) == 0, capsys.readouterr().err


@pytest.mark.parametrize("pair", [("seed=1000", "seed=1e3"), ("optim.epochs=2", "optim.epochs=2.0")])
def test_one_number_in_two_forms_is_one_experiment(
    sweep: Callable[..., int], checked_here: None, capsys: pytest.CaptureFixture[str], pair: tuple[str, str]
) -> None:
    folders = []
    for word in (*pair, "optim.lr=1", "optim.lr=1.0"):
        assert sweep(word, "plan=true", base=BASE) == 0
        folders.append(capsys.readouterr().out.split("runs/")[1].split()[0])
    assert folders[0] == folders[1] and folders[2] == folders[3]
