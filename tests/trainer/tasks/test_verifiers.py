"""Verifiers in processes of their own: what hangs, crashes, raises or prints costs its own score and no more. They are
written into a copy of the package, as a user would write them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.batch.types import Prompt, Rollout, Verdict
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError
from trainer.metrics.rollout import rollout_metrics
from trainer.tasks.base import BatchTask, verify_all
from trainer.tasks.fitted import Fitted
from trainer.tasks.jsonl import JsonlTask
from trainer.tasks.verifier_pool import VerifierPool
from trainer.tasks.verifiers.length import Length
from trainer.tasks.verifiers.tags import Tags
from trainer.tasks.weighted import checked_weights, combined

TAGS = "trainer.tasks.verifiers.tags.Tags"
LENGTH = "trainer.tasks.verifiers.length.Length"
GUIDE = (ROOT / "docs" / "add_a_verifier.md").read_text()
GOOD = "<think>1 + 1</think><answer>2</answer>"

ODD = """
import os, signal, sys, time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    weight: float = 0.1

    def score(self, response, data):
        print("noise")
        os.write(1, b'{"odd": 1}\\n')
        if response == "hang":
            time.sleep(1000)
        if response == "spin":
            while True:
                pass
        if response == "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
            time.sleep(1000)
        if response == "child":
            os.system("sleep 1000 & sleep 1000")
        if response == "exit":
            os._exit(0)
        if response == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if response == "memory":
            return len(bytearray(8 << 30))
        if response == "raise":
            raise RuntimeError("no")
        if response == "quit":
            sys.exit(1)
        if response == "text":
            return "much"
        if response == "nan":
            return float("nan")
        if response == "large":
            return 2.0
        return 0.5 if data["question"] == "q" else -1
"""

SCRIPT = """
import json, sys, time
from trainer.tasks.verifier_pool import VerifierPool
responses = json.loads(sys.stdin.read())
pool = VerifierPool({"odd": {"_target_": "trainer.tasks.verifiers.odd.Odd"}}, 1.0, 2)
pool.scores([("warm", {"question": "q"})] * 2)
started = time.monotonic()
scores = pool.scores([(response, {"question": "q"}) for response in responses])
print(json.dumps([[score["odd"] for score in scores], time.monotonic() - started]))
pool.close()
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a verifier needs, with one that does everything wrong."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    for name in ("trainer", "sweeps", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "sweep.py", copy)
    (copy / "trainer" / "tasks" / "verifiers" / "odd.py").write_text(ODD)
    return copy


def run(checkout: Path, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *command], input=given, cwd=checkout, env=env, capture_output=True, text=True, timeout=120
    )


def test_a_verifier_that_misbehaves_fails_alone(checkout: Path) -> None:
    bad = ["hang", "spin", "deaf", "child", "exit", "crash", "memory", "raise", "quit", "text", "nan", "large"]
    mixed = [each for response in bad for each in ("fine", response)]
    done = run(checkout, "-c", SCRIPT, given=json.dumps([*mixed, "fine"]))
    assert done.returncode == 0, done.stderr
    scores, seconds = json.loads(done.stdout)
    assert scores == [0.5, None] * len(bad) + [0.5]
    assert seconds < 60
    assert not any(b"sleep\x001000" in line for line in map(_command_line, Path("/proc").glob("[0-9]*/cmdline")))


def _command_line(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended in between
        return b""


def test_the_guide_works_as_written(checkout: Path, tmp_path: Path) -> None:
    for path in ("trainer/tasks/verifiers/checks.py", "conf/task/math_checks.yaml"):
        found = re.search(rf"`{re.escape(path)}`.*?```\w+\n(.*?)```", GUIDE, re.DOTALL)
        assert found is not None, path
        (checkout / path).write_text(found[1])
    by_hand = re.search(r"```python\n(from trainer.tasks.verifiers.checks.*?)```", GUIDE, re.DOTALL)
    assert by_hand is not None and run(checkout, "-c", by_hand[1]).returncode == 0
    data = tmp_path / "train.jsonl"
    data.write_text('{"question": "1+1?", "answer": "2"}\n')
    script = (
        "from trainer.tasks.jsonl import JsonlTask\n"
        "node = {'_target_': 'trainer.tasks.verifiers.checks.Checks', 'weight': 0.3}\n"
        f"task = JsonlTask(path={str(data)!r}, verifiers={{'checks': node}})\n"
        "prompt = task.train_prompts()[0]\n"
        "print([task.verify(prompt, text).reward for text in ('2, I check', '2', '3, I check', '3')])\n"
    )
    done = run(checkout, "-c", script)
    assert done.stdout.strip() == "[1.3, 1.0, 0.3, 0.0]", done.stderr
    shown = run(checkout, "sweep.py", "--cfg", "job", "task=math_checks", "task.verifiers.checks.weight=0.3")
    assert "word: check" in shown.stdout and "weight: 0.3" in shown.stdout, shown.stderr


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "1+1?", "answer": "2"}\n')
    return str(path)


def test_scores_are_added_with_their_weights(file: str) -> None:
    verifiers = {"tags": {"_target_": TAGS, "weight": 0.25}, "length": {"_target_": LENGTH, "free": 50, "limit": 150}}
    task = JsonlTask(path=file, extract="tags", verifiers=verifiers)
    (prompt,) = task.train_prompts()
    assert prompt.data["question"] == "1+1?"
    texts = [GOOD, "<answer>2</answer>", "<think>1</think><answer>3</answer>", "<answer>2</answer>" + "x" * 82]
    expected = [1.25, 1.0, 0.25, 1.0 - 0.1 * 0.5]  # the last is 100 characters long
    verdicts = verify_all(Fitted(task=task, left_out=frozenset()), [(prompt, text) for text in texts])
    assert [verdict.reward for verdict in verdicts] == pytest.approx(expected)
    assert [verdict.answer for verdict in verdicts] == ["2", "2", "3", "2"]
    assert not any(verdict.failed for verdict in verdicts)
    assert isinstance(task, BatchTask) and task.verify(prompt, GOOD) == verdicts[0]


def test_a_verifier_named_answer_decides(file: str) -> None:
    task = JsonlTask(path=file, extract="tags", verifiers={"answer": {"_target_": TAGS}})
    (prompt,) = task.train_prompts()
    right, wrong = task.verify(prompt, GOOD.replace("2", "7")), task.verify(prompt, "<answer>2</answer>")
    assert (right.reward, right.answer, wrong.reward, wrong.answer) == (1.0, "7", 0.0, "2")
    assert right.solution is not None and wrong.solution is None


@pytest.mark.parametrize(
    ("verifiers", "sentence"),
    [
        ({"a": {"_target_": TAGS, "weight": 0.3}, "b": {"_target_": TAGS, "weight": -0.2}}, "add up to 0.5 in size"),
        ({"a": {"_target_": TAGS, "wieght": 0.3}}, "task.verifiers.a.wieght is not a setting of Tags"),
        ({"a": {"_target_": "trainer.tasks.verifiers.tags.Nope"}}, "names no class"),
        ({"a": {"_target_": "trainer.contract.config.ModelConfig"}}, r"ModelConfig, which has no weight and score\(\)"),
        ({"a": {"_target_": LENGTH, "free": 9, "limit": 9}}, "free=9 is not below limit=9"),
        ({"a": 3}, "task.verifiers.a has no _target_"),
    ],
)
def test_bad_verifiers_are_one_sentence(file: str, verifiers: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        JsonlTask(path=file, verifiers=verifiers)
    assert "\n" not in str(refused.value)


def test_failures_are_counted_and_absent_without_verifiers() -> None:
    verdict = combined(Verdict(reward=1.0), {"a": None, "b": -1.0}, {"a": 0.2, "b": 0.1})
    assert verdict == Verdict(reward=0.9, failed=True)
    rollouts = [_rollout(verdict), _rollout(Verdict(reward=0.0, failed=False))]
    assert rollout_metrics(rollouts)["rollout/verifier_failed_frac"] == 0.5
    assert "rollout/verifier_failed_frac" not in rollout_metrics([_rollout(Verdict(reward=0.0))])


def _rollout(verdict: Verdict) -> Rollout:
    prompt = Prompt(id="p", text="q")
    return Rollout(
        prompt=prompt,
        prompt_ids=(1,),
        completion_ids=(2,),
        sampler_logprobs=(0.0,),
        finish_reason="stop",
        text="",
        group=0,
        weight_version=0,
        verdict=verdict,
    )


@pytest.mark.parametrize(
    ("response", "score"),
    [
        (GOOD, 1),
        (f"\n{GOOD}\n", 1),
        ("<think>\nlong\n</think>\n\n<answer>\\frac{1}{2}</answer>", 1),
        ("<answer>2</answer>", 0),
        (GOOD + GOOD, 0),
        (GOOD + " so", 0),
        ("<think><think></think><answer>2</answer>", 0),
        ("<answer>2</answer><think>1</think>", 0),
        ("", 0),
    ],
)
def test_tags(response: str, score: float) -> None:
    assert Tags().score(response, {}) == score


def test_tags_take_linear_time() -> None:
    started = time.process_time()
    for text in ("<think>" * 20_000, "<think>" + "<" * 100_000, "<think></think>" + " " * 100_000):
        assert Tags().score(text, {}) == 0
    assert time.process_time() - started < 2


@pytest.mark.parametrize(("length", "score"), [(0, 0.0), (10, 0.0), (15, -0.5), (20, -1.0), (99, -1.0)])
def test_length(length: int, score: float) -> None:
    assert Length(free=10, limit=20).score("x" * length, {}) == score


def test_many_answers_are_scored_in_order_by_several_processes() -> None:
    pool = VerifierPool({"length": {"_target_": LENGTH, "free": 0, "limit": 1000}}, 10.0, 2)
    try:
        found = pool.scores([("x" * number, {}) for number in range(500)])
    finally:
        pool.close()
    assert [score["length"] for score in found] == pytest.approx([-number / 1000 for number in range(500)])


def test_no_verifiers_weigh_nothing() -> None:
    assert checked_weights({}) == {}
