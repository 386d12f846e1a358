"""EPO: specification 8 by hand: the corridor and its slopes, both schedules, the history, the edges."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, PAD, Bench, Toy, make_rollouts, off_policy, plain, policy
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.regularizers.epo import EPO


def values(epo: EPO, entropy: Tensor, *, history: float, steps: int, step: int = 0, num_steps: int = 4) -> Tensor:
    """The term at tokens of these entropies [T], scale 1, after ``steps`` steps of mean entropy ``history``."""
    batch = collate(make_rollouts(groups=1, group_size=1, given=0), pad_id=PAD)
    state = {"sum": history * steps, "steps": steps}
    context = replace(CONTEXT, step=step, num_steps=num_steps, state=state)
    ready = replace(batch, extras=epo.prepare(batch, None, context))
    terms = TokenTerms(
        logprobs=torch.zeros(1, len(entropy)), entropy=entropy[None], extras={"entropy_t1": entropy[None]}
    )
    return epo(terms, ready, torch.ones(1, 1))[0]


def slopes(epo: EPO, entropy: list[float], **where: Any) -> list[float]:
    leaf = torch.tensor(entropy, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(values(epo, leaf, **where).sum(), leaf)[0].tolist()


def test_corridor_by_hand() -> None:
    # History 1, corridor 0.8 to 1.2, first step after one step: beta_0 = 2. term = -(H - 2 P) with P = 0.3, 0, 0.5.
    found = values(EPO(coef=1.0), torch.tensor([0.5, 1.0, 1.7], dtype=torch.float64), history=1.0, steps=1)
    assert found.tolist() == pytest.approx([-(0.5 - 0.6), -1.0, -(1.7 - 1.0)], abs=1e-12)


def test_slopes_of_the_penalty_are_minus_one_zero_and_one() -> None:
    # d term / dH = -coef (1 - beta P'): below -(1 + 2), inside -1, above -(1 - 2), each times coef.
    assert slopes(EPO(coef=0.5), [0.5, 1.0, 1.7], history=1.0, steps=1) == pytest.approx([-1.5, -0.5, 0.5], abs=1e-12)


def test_slopes_are_finite_differences_away_from_the_kinks() -> None:
    epo, entropy, step = EPO(coef=0.7, smooth=0.4), [0.1, 0.75, 1.0, 1.3, 2.0], 1e-6
    where: dict[str, Any] = {"history": 1.0, "steps": 3, "step": 2, "num_steps": 10}
    for number, slope in enumerate(slopes(epo, entropy, **where)):
        sides = []
        for sign in (1, -1):
            moved = torch.tensor(entropy, dtype=torch.float64)
            moved[number] += sign * step
            sides.append(float(values(epo, moved, **where).sum()))
        assert slope == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_smooth_scales_the_penalty_alone() -> None:
    assert slopes(EPO(coef=1.0, smooth=0.25), [0.5, 1.0], history=1.0, steps=1) == pytest.approx([-1.5, -1.0])


def test_without_a_history_or_a_corridor_it_is_the_entropy_bonus() -> None:
    assert slopes(EPO(coef=1.0), [0.5, 1.7], history=0.0, steps=0) == [-1.0, -1.0]
    assert slopes(EPO(coef=1.0, low=0.0, high=None), [0.0, 0.5, 9.0], history=1.0, steps=2) == [-1.0, -1.0, -1.0]
    model, batch = Toy(), off_policy(Toy())
    epo, bonus = (
        Bench(model).step(plain(regularizer={"x": r}), batch) for r in (EPO(coef=0.3), EntropyBonus(coef=0.3))
    )
    assert epo.distance(bonus) < 1e-9


def test_published_weight_decays_from_two_towards_one() -> None:
    # k_mid = 20 of 40: 1 + e^0, 1 + e^-1, 1 + e^-2.
    weights = [EPO().time_weight(step, 40) for step in (0, 20, 40)]
    assert weights == pytest.approx([2.0, 1.36788, 1.13534], abs=1e-5)
    assert EPO().time_weight(0, 1) == 2.0
    assert EPO(gamma=0.0).time_weight(7, 40) == 2.0


def test_released_weight() -> None:
    epochs = [0, 37, 75, 76, 112, 150]
    weights = [EPO(variant="released").time_weight(epoch, 150) for epoch in epochs]
    assert weights == pytest.approx([1.000, 0.875, 0.827, 0.769, 0.182, 0.040], abs=5e-4)
    assert [EPO(variant="released").time_weight(0, steps) for steps in (1, 2, 3)] == [1.0, 1.0, 1.0]


def test_released_penalty_is_a_constant_without_gradient() -> None:
    # Outside (0.8, 1.2), ends included, 0.1; the weight in step 75 of 150 is 1 - 0.2 (1 - e^-2) = 0.827067.
    epo, where = EPO(coef=1.0, variant="released"), {"history": 1.0, "steps": 1, "step": 75, "num_steps": 150}
    entropy = [0.5, 0.8, 1.0, 1.7]
    found = values(epo, torch.tensor(entropy, dtype=torch.float64), **where)  # type: ignore[arg-type]
    expected = [-(h - 0.0827067 * outside) for h, outside in zip(entropy, (1, 1, 0, 1), strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-7)
    assert slopes(epo, entropy, **where) == [-1.0] * 4


def test_history_is_the_mean_of_the_steps_before() -> None:
    epo = EPO(coef=1.0, high=None)
    state = epo.initial_state()
    for entropy in (0.2, 0.7, 0.6):
        state = epo.end_step(state, {"policy/entropy": 9.0, "policy/entropy_t1": entropy})
    assert state == {"sum": pytest.approx(1.5), "steps": 3}
    # Mean 0.5, lower end 0.4: below it the slope is -(1 + beta), above -1.
    found = slopes(epo, [0.39, 0.41], history=state["sum"] / 3, steps=3)
    assert found == pytest.approx([-3.0, -1.0])


def test_a_schedule_of_the_temperature_moves_no_token_out_of_the_corridor() -> None:
    # The penalty, which is what is left of the term without the bonus, is one number at every temperature.
    model, batch = Toy(), off_policy(Toy())
    epo, found = EPO(coef=1.0, low=0.9, high=1.1), []
    for temperature in (1.0, 0.7):
        terms = policy(model, temperature=temperature).measure(batch, epo.statistics)
        ready = replace(batch, extras=epo.prepare(batch, None, replace(CONTEXT, state={"sum": 1.5, "steps": 1})))
        values = epo(terms, ready, torch.ones(batch.num_rows, 1)) + terms.entropy
        found.append(values[batch.mask])
    assert found[0].max() > 0.01
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_certain_tokens_and_those_on_the_edge_are_finite() -> None:
    assert all(math.isfinite(slope) for slope in slopes(EPO(), [0.0, 0.8, 1.2, 30.0], history=1.0, steps=1))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"coef": -0.1}, r"epo\.coef=-0.1"),
        ({"high": 0.5}, r"epo\.high=0.5.*null for no upper end"),
        ({"gamma": -1.0}, r"epo\.gamma=-1"),
    ],
)
def test_out_of_range_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EPO(**setting)
