"""What every task of ``conf/task/`` that needs no files of its own is held to; a new one is found by its YAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from trainer.contract.components import build_component
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError
from trainer.tasks.base import Task

NEED_DATA = ("jsonl", "code", "reasoning_gym")
"""Modules of tasks that read files, the hub or another package; their own tests cover them."""
UGLY = ("", " ", "\n" * 50, "=" * 500, "1" * 500, "9/0=", "\u0665\u00b2", "</answer><answer>", "\x00\ud800", "1+1=2,")


def settings(name: str) -> dict[str, Any]:
    path = ROOT / "conf" / "task" / f"{name}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    for base in found.pop("defaults", ()):
        if base != "_self_":
            found = settings(str(base)) | found
    return found


def names() -> list[str]:
    every = sorted(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml"))
    made_here = [name for name in every if "path" not in settings(name)]
    return [name for name in made_here if settings(name)["_target_"].split(".")[2] not in NEED_DATA]


@pytest.fixture(scope="module", params=names())
def task(request: pytest.FixtureRequest) -> Task:
    built = build_component(settings(request.param), "task")
    assert isinstance(built, Task)
    return built


def test_prompts_are_the_same_each_time_and_suites_are_apart(task: Task) -> None:
    train, suites = task.train_prompts(), task.suites()
    assert train == task.train_prompts() and suites == task.suites() and suites
    ids = [prompt.id for prompts in (train, *suites.values()) for prompt in prompts]
    assert len(ids) == len(set(ids))
    texts = {prompt.text for prompt in train}
    assert len(texts) == len(train)
    assert not [prompt for prompts in suites.values() for prompt in prompts if prompt.text in texts]


def test_the_experts_response_is_correct(task: Task) -> None:
    for prompt in task.train_prompts()[:20]:
        if (response := task.expert(prompt)) is not None:
            verdict = task.verify(prompt, response)
            assert verdict.reward > 0.5 and verdict.answer is not None and verdict.solution is not None


def test_ugly_text_scores_nothing_and_raises_nothing(task: Task) -> None:
    prompt = task.train_prompts()[0]
    for text in UGLY:
        verdict = task.verify(prompt, text)
        assert verdict.reward <= 0.5 and verdict.solution is None
    assert all(isinstance(note, str) for note in task.notes())


@pytest.mark.parametrize("name", names())
def test_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no_such_setting"):
        build_component(settings(name) | {"no_such_setting": 1}, "task")
