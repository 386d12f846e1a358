"""Forking tokens: the quantile rule and both normalisers of specification 14.4."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from handmade import HERE, handmade
from testbench import Bench, Toy, off_policy, plain, policy

from trainer.contract.settings import ConfigError
from trainer.objective.weights.forking import Forking

ENTROPIES = [0.3, 0.9, 0.1, 0.5, 0.7, 0.2, 0.8, 0.0, 0.4, 0.6]


def weights(member: Forking, entropies: list[list[float]], mask: list[list[bool]] | None = None) -> list[list[float]]:
    ones = [[-1.0] * len(row) for row in entropies]
    terms, batch = handmade(ones, ones, entropy=entropies, mask=mask)
    rows: list[list[float]] = member(batch, terms.detach(), HERE).tolist()
    return rows


def test_a_fifth_of_ten_different_entropies_are_the_two_largest() -> None:
    assert weights(Forking(), [ENTROPIES[:5], ENTROPIES[5:]]) == [[0, 5, 0, 0, 0], [0, 5, 0, 0, 0]]
    assert weights(Forking(renormalise=False), [ENTROPIES]) == [[0, 1, 0, 0, 0, 0, 1, 0, 0, 0]]


def test_the_quantile_is_interpolated_and_reached_counts() -> None:
    # Five values: position 0.8 * 4 = 3.2 lies between the fourth and the fifth, so only the fifth reaches it.
    assert weights(Forking(renormalise=False), [[1, 2, 3, 4, 5]]) == [[0, 0, 0, 0, 1]]
    # Eleven: position 8 is the ninth itself, which counts.
    assert sum(weights(Forking(renormalise=False), [list(range(11))])[0]) == 3


def test_equal_entropies_are_all_kept_and_so_is_a_single_token() -> None:
    assert weights(Forking(), [[0.4, 0.4, 0.4]]) == [[1, 1, 1]]
    assert weights(Forking(), [[0.0]]) == [[1]]


def test_only_sampled_tokens_are_ranked() -> None:
    mask = [[True, True, True, True, True, False]]
    assert weights(Forking(), [[1, 2, 3, 4, 5, 99]], mask)[0][:5] == [0, 0, 0, 0, 5]
    assert weights(Forking(), [[1.0]], [[False]]) == [[1]]


def test_renormalised_it_is_the_mean_over_the_kept_tokens() -> None:
    model = Toy()
    batch = off_policy(model)
    entropy = policy(model).measure(batch).entropy
    kept = batch.mask & (entropy >= torch.quantile(entropy[batch.mask], 0.8))
    bench = Bench(model)
    ours = bench.step(plain(weight={"forking": Forking()}), batch)
    alone = bench.step(plain(), replace(batch, mask=kept))
    assert alone.size > 0.01
    # Reduction factors are float32.
    for name, value in ours.gradient.items():
        torch.testing.assert_close(value, alone.gradient[name], rtol=0, atol=1e-6)
    released = bench.step(plain(weight={"forking": Forking(renormalise=False)}), batch)
    share = int(kept.sum()) / batch.num_tokens
    for name, value in released.gradient.items():
        torch.testing.assert_close(value, share * ours.gradient[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("frac", [0.0, -0.2, 1.1])
def test_a_share_out_of_range_is_refused(frac: float) -> None:
    with pytest.raises(ConfigError, match=rf"weight\.forking\.frac={frac}"):
        Forking(frac=frac)
