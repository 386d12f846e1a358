"""Pass@k training: the numbers of specification 14.7, the definition by enumeration, and the best response alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import sqrt
from statistics import mean, stdev

import pytest
import torch
from testbench import rewarded

from trainer.contract.settings import ConfigError
from trainer.objective.advantages.grpo_passk import GRPOPassK
from trainer.objective.advantages.passk import PassK, passk_advantages


def group(n: int, c: int) -> list[float]:
    return [1.0] * c + [0.0] * (n - c)


def test_two_right_of_eight_with_k_four() -> None:
    # rho = 1 - C(6,4) / C(8,4) = 1 - 15/70 = 0.785714, sigma = sqrt(rho (1 - rho)) = 0.410326.
    # Right: 0.214286 / sigma = 0.522233. Wrong: (0.214286 - C(5,3)/C(7,3)) / sigma = (0.214286 - 10/35) / sigma.
    got = PassK(k=4, eps=0.0)(rewarded(group(8, 2))).tolist()
    assert got == pytest.approx([0.522233] * 2 + [-0.174078] * 6, abs=1e-6)
    assert sum(got) == pytest.approx(0.0, abs=1e-6)


def test_k_one_is_grpo_with_the_population_deviation() -> None:
    # p = 1/4: (1 - p) / sqrt(p (1 - p)) = sqrt(3), -p / sqrt(p (1 - p)) = -1/sqrt(3).
    got = PassK(k=1, eps=0.0)(rewarded(group(8, 2))).tolist()
    assert got == pytest.approx([1.73205] * 2 + [-0.57735] * 6, abs=1e-5)


@pytest.mark.parametrize(("n", "c", "k"), [(8, 5, 4), (8, 8, 4), (8, 0, 4), (8, 3, 8), (1, 1, 1), (1, 0, 1), (2, 1, 4)])
def test_certain_success_and_no_success_give_zero(n: int, c: int, k: int) -> None:
    assert PassK(k=k)(rewarded(group(n, c))).tolist() == [0.0] * n


@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 3), (7, 4)])
def test_it_is_the_mean_standardised_reward_over_all_groups_of_k(n: int, k: int) -> None:
    for c in range(1, n - k + 1):
        rewards = group(n, c)
        subsets = list(combinations(range(n), k))
        passed = {subset: max(rewards[i] for i in subset) for subset in subsets}
        rho = mean(passed.values())
        sigma = sqrt(rho * (1 - rho))
        expected = [mean((passed[s] - rho) / sigma for s in subsets if i in s) for i in range(n)]
        assert PassK(k=k, eps=0.0)(rewarded(rewards)).tolist() == pytest.approx(expected, abs=1e-5)


def test_eps_is_added_to_sigma() -> None:
    # n 2, c 1, k 1: rho 1/2, sigma 1/2; 0.5 / (0.5 + 0.5) = 0.5.
    assert passk_advantages(2, 1, 1, 0.5) == (0.5, -0.5)


def test_the_verifier_s_reward_decides_and_groups_stay_apart() -> None:
    batch = rewarded([1, 0, 0, 0, 0, 0], [4, 4, 1, 1, 1, 4])
    shaped = replace(batch, rewards=batch.rewards - 3.0)
    got = PassK(k=1, eps=0.0)(shaped).tolist()
    # Group 4: p = 1/3: (1 - p) / sqrt(p (1 - p)) = sqrt(2), -1/sqrt(2). Group 1: none right.
    assert got == pytest.approx([sqrt(2), -sqrt(0.5), 0, 0, 0, -sqrt(0.5)], abs=1e-6)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"advantage\.k=0"):
        PassK(k=0)


def test_only_the_leader_learns_by_its_lead() -> None:
    assert GRPOPassK(divide_by_std=False)(rewarded([0.2, 0.9, 0.5, 0.0])).tolist() == pytest.approx(
        [0, 0.4, 0, 0], abs=1e-7
    )
    deviation = stdev([0.2, 0.9, 0.5, 0.0])
    got = GRPOPassK(eps=0.0)(rewarded([0.2, 0.9, 0.5, 0.0])).tolist()
    assert got == pytest.approx([0, 0.4 / deviation, 0, 0], abs=1e-6)


def test_several_best_or_one_alone_have_no_lead() -> None:
    batch = rewarded([1, 1, 0, 1, 0, 1], [0, 0, 0, 3, 3, 7])
    assert GRPOPassK(divide_by_std=False)(batch).tolist() == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    for rewards in ([0.0] * 4, [1.0] * 4, [0.5]):
        assert torch.equal(GRPOPassK(eps=0.0)(rewarded(rewards)), torch.zeros(len(rewards)))
