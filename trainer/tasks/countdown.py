"""Task ``countdown``: reach a target with given numbers, writing out every step.

Prompt ``4,7,3,2=26:``, response ``4*7=28,28-2=26``. Built by ``conf/task/countdown*.yaml``; read by the loop and by
evaluation. It must not depend on the seed of a run: ``problem_seed`` alone fixes the problems.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal, get_args

from trainer.batch.types import Prompt, Verdict
from trainer.contract.settings import ConfigError, Range, Seed
from trainer.tasks.countdown_problems import Problem, ProblemSpace, problems, solve
from trainer.tasks.countdown_steps import canonical, end_of_step, first_reached, parse, solves, spell
from trainer.tasks.countdown_subsets import clustered_order, clusters_by_numbers
from trainer.tasks.diversity import Selection, Subset, arranged, at_random, selection

POOL_SIZE = 4096
"""Training problems in the pool; ``num_prompts=4096`` is "all"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Countdown:
    """Numbers, a target, and a reward of 1 for correct written-out steps that end on it, else 0.

    A response is ``left operator right = result`` steps joined by commas, operators ``+ - * /`` with exact division,
    all values positive whole numbers; words before a step are passed over. Each given number and each intermediate is
    used at most once; numbers may stay unused. Training, held-out and out-of-domain problems are disjoint because a
    hash of (sorted numbers, target) gives each problem to one split. ``Verdict.answer`` is the last result;
    ``Verdict.solution`` one spelling for all orders and commutations of a correct solution; ``Verdict.anchor`` the end
    of the first step that reaches the target by correct steps alone.
    """

    num_prompts: int = 512
    """Distinct training prompts, 1 to 4096; subsets nest: the first 8 are among the first 32."""
    subset: Subset = "random"
    """``clustered``: whole groups of similar problems, low diversity at the same size; ``spread``: evenly from all of
    them, high diversity."""
    cluster_by: Literal["numbers", "embeddings"] = "numbers"
    """What makes problems similar: their numbers and targets, or K-means on the base model's embeddings of their
    prompts, as for other tasks."""
    clusters: Annotated[int, Range(1, 100_000)] = 64
    problem_seed: Seed = 0
    """Fixes every problem; the seed of a run only orders them."""
    num_numbers: int = 4
    """Given numbers per problem, 3 to 6."""
    number_min: int = 1
    number_max: int = 9
    """Range of the given numbers, both ends included."""
    target_min: int = 10
    target_max: int = 99
    """Range of targets, both ends included."""
    min_steps: int = 2
    """Fewest steps that any solution may take; 1 admits one-line problems."""
    num_heldout: int = 128
    """Held-out problems of the same kind."""
    num_ood: int = 128
    """Harder, out-of-domain problems."""
    ood_num_numbers: int = 5
    ood_target_min: int = 10
    ood_target_max: int = 99
    ood_min_steps: int = 3

    def __post_init__(self) -> None:
        limits = {
            "num_prompts": (1, POOL_SIZE),
            "num_numbers": (3, 6),
            "ood_num_numbers": (3, 6),
            "number_max": (2, 99),
            "number_min": (1, self.number_max),
            "target_max": (1, 999),
            "target_min": (1, self.target_max),
            "ood_target_max": (1, 999),
            "ood_target_min": (1, self.ood_target_max),
            "min_steps": (1, self.num_numbers - 1),
            "ood_min_steps": (1, self.ood_num_numbers - 1),
            "num_heldout": (1, 1024),
            "num_ood": (1, 1024),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"task.{name}={value!r} cannot be used: give a whole number, {low} to {high}")
        if self.subset not in get_args(Subset):
            raise ValueError(f"task countdown: subset is {self.subset!r}; set it to {', '.join(get_args(Subset))}")

    def train_prompts(self) -> list[Prompt]:
        """The first ``num_prompts`` of the pool in the order of ``subset``; ids count positions in the pool."""
        at_random(self.selection())
        if self.subset == "random":
            return self._prompts("train", self.num_prompts)
        pool = self._problems("train", POOL_SIZE, at_least=self.num_prompts)
        keys = [(sorted(problem.numbers), problem.target) for problem in pool]
        if self.subset == "clustered":
            order = clustered_order(keys, self.clusters)
        else:
            order = arranged(clusters_by_numbers(keys, self.clusters), self.subset)
        return [_prompt(f"train-{index}", pool[index]) for index in order[: self.num_prompts]]

    def selection(self) -> Selection | None:
        """With ``cluster_by=embeddings``."""
        return selection("random" if self.cluster_by == "numbers" else self.subset, self.num_prompts, self.clusters)

    def pool(self) -> list[Prompt]:
        """At most 4096 problems."""
        problems = self._problems("train", POOL_SIZE, at_least=self.num_prompts)
        return [_prompt(f"train-{index}", problem) for index, problem in enumerate(problems)]

    def suites(self) -> dict[str, list[Prompt]]:
        """``heldout``: same kind, unseen. ``ood``: harder, by default more numbers and more steps."""
        return {"heldout": self._prompts("heldout", self.num_heldout), "ood": self._prompts("ood", self.num_ood)}

    def notes(self) -> list[str]:
        """None: every problem is made here."""
        return []

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """Reward 1.0 for a correct solution, else 0.0; never raises, linear in the length of ``text``."""
        steps = parse(text)
        if steps is None:
            return Verdict(reward=0.0)
        answer = str(steps[-1].result)
        numbers, target = prompt.data["numbers"], prompt.data["target"]
        reached = first_reached(steps, numbers, target)  # type: ignore[arg-type]
        anchor = None if reached is None else end_of_step(text, reached)
        if not solves(steps, numbers, target):  # type: ignore[arg-type]
            return Verdict(reward=0.0, answer=answer, anchor=anchor)
        return Verdict(reward=1.0, answer=answer, solution=canonical(steps), anchor=anchor)

    def expert(self, prompt: Prompt) -> str | None:
        """The first of the shortest solutions that a search finds."""
        steps = solve(prompt.data["numbers"], prompt.data["target"])  # type: ignore[arg-type]
        return None if steps is None else spell(steps)

    def _prompts(self, split: str, count: int) -> list[Prompt]:
        problems = self._problems(split, count, at_least=count)
        return [_prompt(f"{split}-{index}", problem) for index, problem in enumerate(problems)]

    def _problems(self, split: str, count: int, at_least: int) -> tuple[Problem, ...]:
        """Up to ``count`` problems of a split, or one sentence when these settings hold fewer than ``at_least``."""
        problems = _first(self._space(split), split, self.problem_seed, count)
        if len(problems) < at_least:
            raise ValueError(
                f"task countdown: these settings hold only {len(problems)} {split} problems, "
                f"{at_least} are asked for; widen number_max or target_max, or ask for fewer"
            )
        return problems

    def _space(self, split: str) -> ProblemSpace:
        hard = split == "ood"
        return ProblemSpace(
            num_numbers=self.ood_num_numbers if hard else self.num_numbers,
            number_min=self.number_min,
            number_max=self.number_max,
            target_min=self.ood_target_min if hard else self.target_min,
            target_max=self.ood_target_max if hard else self.target_max,
            min_steps=self.ood_min_steps if hard else self.min_steps,
        )


@functools.lru_cache(maxsize=32)
def _first(space: ProblemSpace, split: str, problem_seed: int, count: int) -> tuple[Problem, ...]:
    """The first problems of a split. Kept, because finding some takes seconds and every evaluation asks for them."""
    return tuple(islice(problems(space, split, problem_seed), count))


def _prompt(identity: str, problem: Problem) -> Prompt:
    return Prompt(id=identity, text=problem.text, data={"numbers": list(problem.numbers), "target": problem.target})
