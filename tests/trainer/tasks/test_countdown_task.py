"""The task ``countdown``: solvable, disjoint, nested and seed-fixed problems; clear refusals."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import pytest

from trainer.batch.types import Prompt
from trainer.tasks.base import Task
from trainer.tasks.countdown import POOL_SIZE, Countdown
from trainer.tasks.countdown_problems import Problem, ProblemSpace, problems, reachable, solve, split_of
from trainer.tasks.countdown_steps import spell


def shortest(numbers: tuple[int, ...], depth: int = 0) -> dict[int, int]:
    """Fewest steps to every reachable value, by trying all ordered pairs (independent of the trainer's code)."""
    best: dict[int, int] = {}
    for first, second in permutations(range(len(numbers)), 2):
        a, b = numbers[first], numbers[second]
        rest = tuple(v for i, v in enumerate(numbers) if i not in (first, second))
        results = [a + b, a * b] + ([a - b] if a > b else []) + ([a // b] if a % b == 0 else [])
        for result in set(results):
            best[result] = min(best.get(result, 99), depth + 1)
            for value, steps in shortest((*rest, result), depth + 1).items():
                best[value] = min(best.get(value, 99), steps)
    return best


def identity(prompt: Prompt) -> tuple[tuple[int, ...], int]:
    numbers, target = prompt.data["numbers"], prompt.data["target"]
    return tuple(sorted(numbers)), target  # type: ignore[arg-type, return-value]


def everything(task: Countdown) -> dict[str, set[tuple[tuple[int, ...], int]]]:
    suites = {"train": task.train_prompts(), **task.suites()}
    return {name: {identity(prompt) for prompt in prompts} for name, prompts in suites.items()}


def test_is_a_task_and_prompts_spell_their_data() -> None:
    task = Countdown(num_prompts=4)
    assert isinstance(task, Task)
    for prompt in task.train_prompts():
        numbers, target = prompt.data["numbers"], prompt.data["target"]
        assert prompt.text == ",".join(map(str, numbers)) + f"={target}:"  # type: ignore[call-overload]


def test_every_problem_is_solvable_and_not_too_easy() -> None:
    task = Countdown(num_prompts=60, num_heldout=30, num_ood=10)
    for name, least, count in (("train", 2, 4), ("heldout", 2, 4), ("ood", 3, 5)):
        for numbers, target in everything(task)[name]:
            assert len(numbers) == count and 10 <= target <= 99 and all(1 <= n <= 9 for n in numbers)
            assert least <= shortest(numbers)[target]


def test_splits_are_disjoint_for_any_settings_and_seeds() -> None:
    # Same kind of problem in all three suites and different seeds: only the hash split keeps them apart.
    def suites(problem_seed: int) -> dict[str, set[tuple[tuple[int, ...], int]]]:
        sizes = {"num_prompts": 1500, "num_heldout": 300, "num_ood": 300}
        return everything(Countdown(problem_seed=problem_seed, ood_num_numbers=4, ood_min_steps=2, **sizes))

    first, second = suites(0), suites(1)
    assert [len(first[name]) for name in ("train", "heldout", "ood")] == [1500, 300, 300]
    for one in (first, second):
        assert not one["train"] & (second["heldout"] | second["ood"])
        assert not one["heldout"] & (second["train"] | second["ood"])
    assert first["train"] != second["train"]


def test_split_ignores_the_order_of_numbers() -> None:
    for target in range(10, 60):
        assert len({split_of(Problem(numbers=order, target=target)) for order in permutations((2, 3, 5, 8))}) == 1


@pytest.mark.parametrize("subset", ["random", "clustered"])
def test_subsets_nest_and_ids_are_unique(subset: str) -> None:
    sizes = [Countdown(num_prompts=n, subset=subset).train_prompts() for n in (8, 32, 128)]  # type: ignore[arg-type]
    assert sizes[0] == sizes[1][:8] and sizes[1] == sizes[2][:32]
    assert len({prompt.id for prompt in sizes[2]}) == 128 == len({identity(prompt) for prompt in sizes[2]})


def test_clustered_is_less_diverse_and_all_of_it_is_the_pool() -> None:
    def distinct_values(prompts: Iterable[Prompt]) -> tuple[int, float]:
        keys = [identity(prompt) for prompt in prompts]
        targets = [target for _, target in keys]
        return len({numbers for numbers, _ in keys}), max(targets) - min(targets)

    random_few = distinct_values(Countdown(num_prompts=128).train_prompts())
    clustered_few = distinct_values(Countdown(num_prompts=128, subset="clustered").train_prompts())
    assert clustered_few[0] < random_few[0] and clustered_few[1] < 0.7 * random_few[1]
    everything_random = {p.id for p in Countdown(num_prompts=POOL_SIZE).train_prompts()}
    assert {p.id for p in Countdown(num_prompts=POOL_SIZE, subset="clustered").train_prompts()} == everything_random


def test_same_settings_same_problems() -> None:
    assert Countdown().train_prompts() == Countdown().train_prompts()
    assert Countdown().suites() == Countdown().suites()
    # Pinned: published figures refer to these very problems.
    assert [prompt.text for prompt in Countdown(num_prompts=3).train_prompts()] == PINNED


PINNED = ["5,7,1,6=84:", "6,1,8,4=81:", "7,4,4,8=18:"]


def test_reachable_agrees_with_an_independent_search() -> None:
    for numbers in ((4, 7, 3, 2), (1, 1, 5, 9), (6, 6, 6, 6)):
        best = shortest(numbers)
        for steps in (1, 2, 3):
            assert reachable(numbers, steps) == {value for value, fewest in best.items() if fewest <= steps}


def test_problems_end_when_the_space_is_exhausted() -> None:
    # Numbers 1 or 2 only: 3 numbers reach few targets, and the iterator must stop rather than search for ever.
    space = ProblemSpace(num_numbers=3, number_min=1, number_max=2, target_min=4, target_max=8, min_steps=2)
    found = [problem.key for split in ("pretrain", "train", "heldout", "ood") for problem in problems(space, split, 0)]
    # 1,1,2: (1+1)*2=4, 1+1+2=4 -> 4. 1,2,2: 1+2+2=5, (1+2)*2=6. 2,2,2: 6 and 8; 4=2+2 takes one step.
    # 1,2,2 -> 4 takes one step; 1,1,1 reaches at most 3.
    assert sorted(found) == ["1,1,2=4", "1,2,2=5", "1,2,2=6", "2,2,2=6", "2,2,2=8"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_prompts": 0}, "task.num_prompts=0 cannot be used: give a whole number, 1 to 4096"),
        ({"num_prompts": 5000}, "task.num_prompts=5000 cannot be used"),
        ({"num_numbers": 9}, "task.num_numbers=9 cannot be used: give a whole number, 3 to 6"),
        ({"min_steps": 4}, "task.min_steps=4 cannot be used: give a whole number, 1 to 3"),
        ({"target_min": 100}, "task.target_min=100 cannot be used"),
        ({"number_min": 10}, "task.number_min=10 cannot be used"),
        ({"subset": "sorted"}, "set it to random, clustered, spread"),
    ],
)
def test_out_of_range_is_one_sentence(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Countdown(**options)  # type: ignore[arg-type]


def test_too_small_a_space_names_what_to_widen() -> None:
    with pytest.raises(ValueError, match=r"hold only \d+ train problems, 512 are asked for; widen number_max"):
        Countdown(num_numbers=3, number_max=4).train_prompts()


@pytest.mark.parametrize(
    "task",
    [Countdown(), Countdown(num_numbers=3, num_prompts=256), Countdown(num_numbers=5, num_prompts=32, min_steps=3)],
    ids=["default", "easy", "hard"],
)
def test_every_training_prompt_has_an_expert_that_the_verifier_accepts(task: Countdown) -> None:
    for prompt in task.train_prompts():
        text = task.expert(prompt)
        assert text is not None and task.verify(prompt, text).reward == 1.0, prompt.text
        # As short as can be: with one step less nothing reaches the target.
        steps = text.count(",") + 1
        assert prompt.data["target"] not in reachable(prompt.data["numbers"], steps - 1)  # type: ignore[arg-type]


def test_experts_by_hand_and_where_there_is_none() -> None:
    for numbers, target, text in (
        ((4, 7, 3), 28, "7*4=28"),
        ((4, 7, 2), 26, "7*4=28,28-2=26"),
        ((2, 9, 9, 9), 1, "9/9=1"),
    ):
        assert spell(solve(numbers, target) or ()) == text
    assert solve((1, 1, 1), 9) is None
    assert solve((5,), 5) is None
    assert Countdown().expert(Prompt(id="x", text="", data={"numbers": [1, 1, 1], "target": 9})) is None
