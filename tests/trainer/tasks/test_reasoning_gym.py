"""Procedural tasks of reasoning-gym by name; skipped where the package is not installed."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from trainer.contract.settings import ConfigError
from trainer.tasks import reasoning_gym
from trainer.tasks.base import BatchTask, Task
from trainer.tasks.reasoning_gym import ReasoningGymTask
from trainer.tasks.verifiers import gym

SUMS: dict[str, Any] = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}


@pytest.fixture
def installed() -> None:
    pytest.importorskip("reasoning_gym", reason=gym.INSTALL)


@pytest.mark.usefixtures("installed")
class TestInstalled:
    def task(self, **settings: Any) -> ReasoningGymTask:
        return ReasoningGymTask(**{"settings": SUMS, "num_prompts": 6, "num_heldout": 2, **settings})

    def test_problems_are_distinct_fixed_and_nest(self) -> None:
        task, larger = self.task(), self.task(num_prompts=9)
        assert isinstance(task, Task) and isinstance(task, BatchTask) and task.notes() == []
        prompts, held = task.train_prompts(), task.suites()["heldout"]
        assert len({prompt.text for prompt in (*prompts, *held)}) == 8
        assert prompts == self.task().train_prompts() == larger.train_prompts()[:6]
        assert held == larger.suites()["heldout"]
        assert self.task(problem_seed=1).train_prompts() != prompts
        assert prompts[0].text.endswith("</answer>.\n")

    def test_its_own_scorer_judges(self) -> None:
        task = self.task()
        prompts = task.train_prompts()
        pairs = [(prompt, f"<think></think>{task.expert(prompt)}") for prompt in prompts]
        assert [verdict.reward for verdict in task.verify_all(pairs)] == [1.0] * 6
        answer = int(str(prompts[0].data["answer"]))
        for text in (f"<answer>{answer + 1}</answer>", str(answer), "", "<answer></answer>", "<answer>\ud800</answer>"):
            assert task.verify(prompts[0], text).reward == 0.0
        verdict = task.verify(prompts[0], f"<answer>{answer}.0</answer>")
        assert verdict.answer == str(answer) and verdict.failed is False

    def test_partial_credit_is_the_score(self) -> None:
        # countdown's scorer gives 0.05 for an expression that misses the target.
        task = ReasoningGymTask(name="countdown", num_prompts=2, num_heldout=1, partial_credit=True)
        strict = ReasoningGymTask(name="countdown", num_prompts=2, num_heldout=1)
        (prompt, _) = task.train_prompts()
        score = task.verify(prompt, "<answer>1 + 1</answer>").reward
        assert 0 < score < 0.5 and strict.verify(prompt, "<answer>1 + 1</answer>").reward == 0.0

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            (
                {"name": "chain_sums"},
                "task.name='chain_sums' is no data set of reasoning-gym: did you mean 'chain_sum'",
            ),
            ({"settings": {"min_termz": 2}}, "min_termz"),
            ({"settings": {"min_terms": -2}}, "min_terms must be positive"),
            ({"prompt_template": "no"}, "prompt_template lacks"),
        ],
    )
    def test_bad_settings_are_one_sentence(self, settings: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence) as refused:
            self.task(**settings).train_prompts()
        assert "\n" not in str(refused.value)

    def test_too_easy_a_level_is_one_sentence(self) -> None:
        task = self.task(settings=SUMS | {"max_digits": 1}, num_prompts=900)
        with pytest.raises(
            ConfigError, match=r"distinct problems among 18040, 902 are asked for; choose a harder level"
        ):
            task.train_prompts()


def test_without_the_package_a_sentence_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("reasoning_gym"):
            raise ImportError("No module named 'reasoning_gym'")
        return real(name, *args, **options)

    gym.dataset.cache_clear()
    reasoning_gym._distinct.cache_clear()
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ConfigError, match="run `make reasoning-gym`"):
        ReasoningGymTask().train_prompts()
