"""DPH-RL: specification 9 by hand: three divergences, what is retained and stored, and the rows it brings along."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from testbench import CONTEXT, Bench, ModelServices, Outcome, Toy, make_rollouts, off_policy, plain, policy
from torch import Tensor

from trainer.batch.types import Prompt, Rollout, Verdict
from trainer.contract.settings import ConfigError
from trainer.objective.base import Context
from trainer.objective.regularizers.dph import DPH

DIVERGENCES = ("forward", "js_low_var", "alpha")


def f(u: float | list[float], divergence: Any, alpha: float = 0.2) -> Any:
    values = DPH(divergence=divergence, alpha=alpha).f(torch.tensor(u, dtype=torch.float64).log())
    return values.tolist()


@pytest.mark.parametrize(
    ("divergence", "at_two", "at_half"),
    [
        # 2 - 1 - ln 2;  1/2 - 1 + ln 2.
        ("forward", 0.306853, 0.193147),
        # 2 ln 2 - 3 ln 3/2;  -1/2 ln 2 - 3/2 ln 3/4.
        ("js_low_var", 0.169899, 0.084950),
        # (2^0.8 - 1.6 - 0.2) / -0.16;  (0.5^0.8 - 0.4 - 0.2) / -0.16.
        ("alpha", 0.368118, 0.160318),
    ],
)
def test_generators_by_hand(divergence: str, at_two: float, at_half: float) -> None:
    assert f([2.0, 0.5, 1.0], divergence) == pytest.approx([at_two, at_half, 0.0], abs=1e-6)


def test_alpha_tends_to_the_reverse_and_the_forward_divergence() -> None:
    for u in (0.3, 2.0, 5.0):
        assert f(u, "alpha", 1e-6) == pytest.approx(u * math.log(u) - u + 1, abs=1e-4)
        assert f(u, "alpha", 1 - 1e-6) == pytest.approx(u - 1 - math.log(u), abs=1e-4)


def test_means_under_the_base_model_are_divergences() -> None:
    # P = (.7, .2, .1) the policy, Q = (.3, .3, .4) the base model.
    p, q = [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]

    def kl(one: list[float], other: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(one, other, strict=True))

    def expected(divergence: str) -> float:
        return sum(b * f(a / b, divergence) for a, b in zip(p, q, strict=True))

    assert expected("js_low_var") == pytest.approx(kl(p, middle) + kl(q, middle), abs=1e-12)
    assert expected("js_low_var") == pytest.approx(0.188723, abs=1e-6)
    assert expected("forward") == pytest.approx(kl(q, p), abs=1e-12)
    assert expected("forward") == pytest.approx(0.421968, abs=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_slopes_by_formula_and_by_finite_differences(divergence: Any) -> None:
    dph, step = DPH(divergence=divergence), 1e-6
    log_u = torch.tensor([-3.0, -0.5, 0.0, 0.4, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(dph.f(log_u).sum(), log_u)
    u = log_u.detach().exp()
    formula = {
        "forward": u - 1,
        "js_low_var": u * (2 * u / (u + 1)).log(),
        "alpha": 0.8 * (u**0.8 - u) / (0.2 * -0.8),
    }[divergence]
    torch.testing.assert_close(slope, formula, rtol=0, atol=1e-12)
    numeric = (dph.f(log_u.detach() + step) - dph.f(log_u.detach() - step)) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-8)
    assert slope[2].item() == 0.0


def test_the_forward_divergence_of_a_token_is_bounded() -> None:
    log_u = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    value = DPH().f(log_u)
    assert value.item() == 10.0
    assert torch.autograd.grad(value.sum(), log_u)[0].item() == 0.0


@dataclass(frozen=True, kw_only=True)
class Solving(ModelServices):
    """A base model that solves prompt p0 in 8 of 8, p1 in 7, p2 in 6 and p3 in none, and then p1 never again."""

    right: ClassVar[dict[str, int]] = {"p0": 8, "p1": 7, "p2": 6, "p3": 0}
    again: frozenset[str] = frozenset({"p0", "p2"})

    def sample(self, prompts: Sequence[Prompt], *, samples: int, purpose: str) -> list[Rollout]:
        rollouts = make_rollouts(3, groups=len(prompts), group_size=samples, given=0)
        seen: dict[str, int] = {}
        judged = []
        for rollout in rollouts:
            prompt = prompts[rollout.group]
            number = seen[prompt.id] = seen.get(prompt.id, -1) + 1
            solved = number < self.right[prompt.id] if samples > 1 else prompt.id in self.again
            judged.append(replace(rollout, prompt=prompt, verdict=Verdict(reward=float(solved))))
        return judged


def stored(dph: DPH, services: ModelServices) -> list[dict[str, Any]]:
    state = dph.setup(dph.initial_state(), replace(CONTEXT, services=services))
    assert json.loads(json.dumps(state)) == state
    assert dph.excluded_prompts(state) == {entry["prompt"] for entry in state["stored"]}
    entries: list[dict[str, Any]] = state["stored"]
    return entries


@pytest.mark.parametrize(
    ("least", "again", "kept"),
    [
        (6, {"p0", "p1", "p2"}, ["p0", "p1", "p2"]),
        (7, {"p0", "p1", "p2"}, ["p0", "p1"]),
        (8, {"p0", "p1", "p2"}, ["p0"]),
        (6, {"p0", "p2"}, ["p0", "p2"]),  # the fresh sample of p1 was wrong: it stays among the explored
        (6, {"p3"}, []),
    ],
)
def test_retained_are_prompts_solved_often_enough_and_once_more(least: int, again: set[str], kept: list[str]) -> None:
    services = Solving(policy=policy(Toy()), again=frozenset(again))
    assert [entry["prompt"] for entry in stored(DPH(min_correct=least), services)] == kept


def test_stored_log_probs_are_those_of_the_base_model() -> None:
    services = Solving(policy=policy(Toy()))
    for entry in stored(DPH(min_correct=6), services):
        rollout = make_rollouts(0, groups=1, group_size=1, given=0)[0]
        rebuilt = replace(
            rollout,
            prompt_ids=tuple(entry["prompt_ids"]),
            completion_ids=tuple(entry["completion_ids"]),
            sampler_logprobs=tuple(entry["logprobs"]),
        )
        batch = services.collate([rebuilt])
        expected = policy(Toy()).measure(batch).logprobs[batch.mask]
        assert entry["logprobs"] == pytest.approx(expected.tolist(), abs=1e-12)
        assert len(entry["logprobs"]) == len(entry["completion_ids"])


def test_nothing_retained_is_said_in_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert stored(DPH(min_correct=8), Solving(policy=policy(Toy()), again=frozenset())) == []
    (record,) = caplog.records
    assert "retains nothing" in record.getMessage() and "lower regularizer.dph.min_correct" in record.getMessage()
    assert DPH().auxiliary(replace(CONTEXT, state={"stored": []})) is None


def entries(count: int) -> dict[str, Any]:
    rollouts = make_rollouts(9, groups=count, group_size=1, given=0)
    return {
        "temperature": 0.8,
        "stored": [
            {
                "prompt": f"s{number}",
                "prompt_ids": list(r.prompt_ids),
                "completion_ids": list(r.completion_ids),
                "logprobs": [-1.0 - 0.1 * number] * len(r.completion_ids),
            }
            for number, r in enumerate(rollouts)
        ],
    }


@pytest.mark.parametrize(("rows", "updates", "expected"), [(256, 1, 7), (4, 1, 4), (4, 2, 2), (5, 2, 3), (1, 8, 1)])
def test_rows_of_a_step_are_shared_out_over_its_updates(rows: int, updates: int, expected: int) -> None:
    context = replace(CONTEXT, state=entries(7), num_updates=updates)
    found = DPH(rows_per_step=rows).auxiliary(context)
    assert found is not None and found.temperature == 0.8
    batch = found.rows
    assert batch.num_rows == expected
    assert batch.extras["dph_share"].sum().item() == pytest.approx(1.0)
    assert not batch.extras["dph_share"][~batch.mask].any()
    # Every row keeps its own log-probs: entry s_n has -1 - n/10 throughout.
    assert batch.ref_logprobs is not None
    assert all(len(batch.ref_logprobs[row][batch.mask[row]].unique()) == 1 for row in range(expected))


def test_rows_are_drawn_afresh_for_every_mini_batch_and_again_for_the_same() -> None:
    def lengths(context: Context) -> list[list[int]]:
        found = DPH(rows_per_step=6).auxiliary(context)
        assert found is not None
        return found.rows.targets.tolist()

    context = replace(CONTEXT, state=entries(12), num_updates=2)
    draws = [lengths(replace(context, step=step, update=update)) for step in (0, 1) for update in (0, 1)]
    assert draws == [lengths(replace(context, step=step, update=update)) for step in (0, 1) for update in (0, 1)]
    assert len({json.dumps(draw) for draw in draws}) == 4


def step(dph: DPH, base: Toy, **bench: Any) -> Outcome:
    """One step of a policy (seed 0) away from the base model that filled the store."""
    objective = plain(regularizer={"dph": dph})
    context = replace(CONTEXT, services=Solving(policy=policy(base)))
    state = objective.setup(objective.initial_state(), context)
    return Bench(Toy(), **bench).step(objective, off_policy(Toy()), state)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_at_the_base_model_there_is_no_pull_and_away_from_it_there_is(divergence: Any) -> None:
    dph = DPH(min_correct=6, coef=5.0, divergence=divergence)
    alone = Bench(Toy()).step(plain(), off_policy(Toy()))
    # Stored log-probs are float32, so they are the policy's own to 1e-7.
    assert step(dph, Toy()).distance(alone) < 1e-5
    away = step(dph, Toy(seed=1))
    assert away.distance(alone) > 0.1
    assert step(replace(dph, coef=0.0), Toy(seed=1)).distance(alone) == 0.0
    # The rollouts feel nothing of it: loss and gradient are linear in coef on the stored rows alone.
    double = step(replace(dph, coef=10.0), Toy(seed=1))
    for name, value in alone.gradient.items():
        twice: Tensor = double.gradient[name] - value
        torch.testing.assert_close(twice, 2 * (away.gradient[name] - value), rtol=0, atol=1e-9)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_schedule_of_the_temperature_is_no_move_away_from_the_base_model(divergence: Any) -> None:
    # The weights are the base model's, so u = 1 and the term is 0. Measured at 0.7, log-probs stored at 0.9 would be a
    # policy that has sharpened.
    objective = plain(regularizer={"dph": DPH(min_correct=6, coef=5.0, divergence=divergence)})
    state = objective.setup(objective.initial_state(), replace(CONTEXT, services=Solving(policy=policy(Toy()))))
    for temperature in (0.9, 0.7, 1.4):
        bench = Bench(Toy(), temperature=temperature)
        ours, alone = bench.step(objective, off_policy(Toy()), state), bench.step(plain(), off_policy(Toy()))
        assert ours.stats.sums["policy/loss"] == pytest.approx(alone.stats.sums["policy/loss"], abs=1e-9)
        assert ours.distance(alone) < 1e-5


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_loss_is_the_mean_over_stored_tokens(divergence: Any) -> None:
    dph = DPH(min_correct=6, coef=5.0, divergence=divergence)
    services = Solving(policy=policy(Toy(seed=1)))
    state = dph.setup(dph.initial_state(), replace(CONTEXT, services=services))
    found = dph.auxiliary(replace(CONTEXT, state=state))
    assert found is not None and found.temperature == 0.9
    rows = found.rows
    log_u = (policy(Toy()).measure(rows).logprobs - rows.ref_logprobs)[rows.mask]  # type: ignore[operator]
    expected = 5.0 * float(dph.f(log_u).mean())
    alone = Bench(Toy()).step(plain(), off_policy(Toy()))
    for tokens in (10**6, 9):
        loss = step(dph, Toy(seed=1), micro_batch_tokens=tokens).stats.sums["policy/loss"]
        assert loss - alone.stats.sums["policy/loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"coef": -0.1}, r"dph\.coef=-0.1"),
        ({"alpha": 1.0}, r"dph\.alpha=1.0.*between 0 and 1"),
        ({"min_correct": 9}, r"dph\.min_correct=9"),
        ({"rows_per_step": 0}, r"dph\.rows_per_step=0"),
    ],
)
def test_out_of_range_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DPH(**setting)
