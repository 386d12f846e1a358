"""Countdown problems: solvable by construction, each in exactly one of four disjoint splits.

It must not know about seeds of runs: everything is a function of the arguments, so every run seed of a study sees
the same problems.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from trainer.tasks.countdown_steps import Step, compute

# Sixteenths of all problems: pretraining 6, training 6, held-out 2, out-of-domain 2.
_SPLIT_OF_SIXTEENTH = ("pretrain",) * 6 + ("train",) * 6 + ("heldout",) * 2 + ("ood",) * 2


_Value = tuple[int, bool]  # a number at hand, and whether a step made it


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSpace:
    """Which problems exist: how many numbers from which range, which targets, how few steps may solve them."""

    num_numbers: int
    number_min: int
    number_max: int
    target_min: int
    target_max: int
    min_steps: int
    """No solution is shorter than this many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Numbers in the order the prompt shows them, and a target they can reach."""

    numbers: tuple[int, ...]
    target: int

    @property
    def key(self) -> str:
        """Identity: the sorted numbers and the target, so ``4,7=28`` and ``7,4=28`` are one problem."""
        return f"{','.join(map(str, sorted(self.numbers)))}={self.target}"

    @property
    def text(self) -> str:
        """The prompt, for example ``4,7,3,2=26:``."""
        return f"{','.join(map(str, self.numbers))}={self.target}:"


def split_of(problem: Problem) -> str:
    """The one split that may hold the problem: a hash of its key alone, hence disjoint whatever the seeds."""
    digest = hashlib.sha256(problem.key.encode("ascii")).digest()
    return _SPLIT_OF_SIXTEENTH[digest[0] % 16]


def falling(count: int, exponent: float) -> list[float]:
    """Weights rank^-exponent of ranks 1 to ``count`` (Zipf's law); exponent 0 is uniform."""
    return [(rank + 1.0) ** -exponent for rank in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """Which steps a walk prefers: Zipf's law with exponent ``skew`` over operators in this order, and over the values
    at hand, intermediates first, then the given numbers in their order. Exponent 0 is uniform."""

    operators: str = "+-*/"
    skew: float = 0.0


UNIFORM = Taste()


def random_walk(
    numbers: Sequence[int], num_steps: int, max_value: int, rng: random.Random, taste: Taste = UNIFORM
) -> list[Step] | None:
    """``num_steps`` random correct steps that waste no intermediate, or None when the draw ran into a dead end."""
    unused = list(numbers)
    intermediates: list[int] = []
    steps: list[Step] = []
    for index in range(num_steps):
        pool = [(value, True) for value in intermediates] + [(value, False) for value in unused]
        picked = _skewed_pair(pool, taste.skew, rng) if taste.skew else rng.sample(pool, 2)
        for value, was_made in picked:
            (intermediates if was_made else unused).remove(value)
        step = _random_step(picked[0][0], picked[1][0], max_value, rng, taste)
        # Every later step can swallow at most one more intermediate than it makes.
        if step is None or len(intermediates) > num_steps - 1 - index:
            return None
        intermediates.append(step.result)
        steps.append(step)
    return steps


def _skewed_pair(pool: list[_Value], skew: float, rng: random.Random) -> list[_Value]:
    left = pool[rng.choices(range(len(pool)), falling(len(pool), skew))[0]]
    others = list(pool)
    others.remove(left)
    return [left, others[rng.choices(range(len(others)), falling(len(others), skew))[0]]]


def _random_step(left: int, right: int, max_value: int, rng: random.Random, taste: Taste) -> Step | None:
    operator = rng.choices(taste.operators, falling(4, taste.skew))[0] if taste.skew else rng.choice(taste.operators)
    if operator in "-/" and left < right:
        left, right = right, left
    # Multiplying or dividing by one is allowed in answers, but nobody would write it.
    if operator in "*/" and 1 in (left, right):
        return None
    result = compute(left, operator, right)
    if result is None or result > max_value:
        return None
    return Step(left=left, operator=operator, right=right, result=result)


def reachable(numbers: Sequence[int], max_steps: int) -> set[int]:
    """Every value that at most ``max_steps`` steps can end on, by trying them all."""
    values: set[int] = set()
    if max_steps == 0:
        return values
    for first, second in combinations(range(len(numbers)), 2):
        others = [number for index, number in enumerate(numbers) if index not in (first, second)]
        high, low = max(numbers[first], numbers[second]), min(numbers[first], numbers[second])
        for operator in "+-*/":
            result = compute(high, operator, low)
            if result is not None:
                values.add(result)
                values |= reachable([*others, result], max_steps - 1)
    return values


def solve(numbers: Sequence[int], target: int) -> list[Step] | None:
    """The steps of a shortest solution, the first in a fixed order, or None when there is none."""
    for num_steps in range(1, len(numbers)):
        steps = _search(tuple(numbers), target, num_steps)
        if steps is not None:
            return steps
    return None


def _search(numbers: tuple[int, ...], target: int, num_steps: int) -> list[Step] | None:
    for first, second in combinations(range(len(numbers)), 2):
        others = tuple(number for index, number in enumerate(numbers) if index not in (first, second))
        high, low = max(numbers[first], numbers[second]), min(numbers[first], numbers[second])
        for operator in "+-*/":
            result = compute(high, operator, low)
            if result is None:
                continue
            step = Step(left=high, operator=operator, right=low, result=result)
            if num_steps == 1 and result == target:
                return [step]
            after = _search((*others, result), target, num_steps - 1) if num_steps > 1 else None
            if after is not None:
                return [step, *after]
    return None


def propose(space: ProblemSpace, rng: random.Random) -> tuple[Problem, list[Step]] | None:
    """One random problem with the walk that solves it, or None when the draw fell outside ``space``.

    The target is the end of a random walk, so no search is needed and frequent targets are those with many solutions.
    """
    numbers = tuple(rng.randint(space.number_min, space.number_max) for _ in range(space.num_numbers))
    most = space.num_numbers - 1
    num_steps = most if rng.random() < 0.75 else rng.randint(space.min_steps, most)
    steps = random_walk(numbers, num_steps, space.target_max, rng)
    if steps is None or not space.target_min <= steps[-1].result <= space.target_max:
        return None
    target = steps[-1].result
    if target in numbers or target in reachable(numbers, space.min_steps - 1):
        return None
    return Problem(numbers=numbers, target=target), steps


def problems(space: ProblemSpace, split: str, seed: int) -> Iterator[Problem]:
    """Distinct problems of one split, in an order fixed by ``seed``; ends when new ones have become rare.

    Prefixes nest: the first 8 are among the first 32, whatever is asked for later.
    """
    rng = random.Random(f"{seed}/{split}")
    keys: set[str] = set()
    misses = 0
    while misses < 20_000:
        proposal = propose(space, rng)
        misses += 1
        if proposal is None or split_of(proposal[0]) != split or proposal[0].key in keys:
            continue
        misses = 0
        keys.add(proposal[0].key)
        yield proposal[0]
