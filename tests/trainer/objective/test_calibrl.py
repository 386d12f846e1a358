"""CalibRL's guidance: specification 13.1 by hand, and where the expert's tokens fall."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, PAD, Bench, ModelServices, Toy, make_rollouts, off_policy, plain, policy, unpacked

from trainer.batch.collate import collate
from trainer.batch.types import Prompt, Rollout, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.regularizers.calibrl import CalibRL


def term(
    reward: float, advantage: float, logprob: float, expert: float, *, guided: bool = True, **settings: float
) -> tuple[float, float]:
    """Value and slope of the term at one token, scale 1."""
    batch = collate(make_rollouts(groups=1, group_size=1, given=0), pad_id=PAD)
    extras = {"calibrl_expert": torch.tensor([[expert]]), "calibrl_guided": torch.tensor([[guided]])}
    rewards = torch.tensor([reward])
    ready = replace(batch, advantages=torch.tensor([[advantage]]), rewards=rewards, raw_rewards=rewards, extras=extras)
    leaf = torch.tensor([[logprob]], dtype=torch.float64, requires_grad=True)
    member = CalibRL(**({"coef": 1.0} | settings))
    value = member(TokenTerms(logprobs=leaf, entropy=leaf), ready, torch.ones(1, 1)).sum()
    return value.item(), torch.autograd.grad(value, leaf)[0].item()


@pytest.mark.parametrize(
    ("reward", "logprob", "value", "slope"),
    [
        # Right and 1 nat below the expert at -2: g = 1, loss |A|, pushed up at full slope.
        (1.0, -3.0, 0.75, -0.75),
        # Right and 1 nat above: -0.5 |A|, pushed up at half slope.
        (1.0, -1.0, -0.375, -0.375),
        # Wrong and above: pushed down at full slope; wrong and below: at half slope.
        (0.0, -1.0, 0.75, 0.75),
        (0.0, -3.0, -0.375, 0.375),
        # A reward of 0.1 is still wrong.
        (0.1, -1.0, 0.75, 0.75),
    ],
)
@pytest.mark.parametrize("advantage", [0.75, -0.75])
def test_by_hand(reward: float, logprob: float, value: float, slope: float, advantage: float) -> None:
    assert term(reward, advantage, logprob, -2.0) == pytest.approx((value, slope))


def test_as_likely_as_the_expert_is_zero_and_no_advantage_is_no_guidance() -> None:
    assert term(1.0, 0.75, -2.0, -2.0)[0] == 0.0
    assert term(1.0, 0.0, -5.0, -2.0) == (0.0, 0.0)
    assert term(1.0, 0.75, -5.0, -2.0, guided=False) == (0.0, 0.0)


def test_slope_and_coefficient_are_settings() -> None:
    assert term(1.0, 0.5, -1.0, -2.0, slope=0.0) == (0.0, 0.0)
    assert term(1.0, 0.5, -1.0, -2.0, slope=0.25, coef=0.1) == pytest.approx((-0.0125, -0.0125))
    assert term(1.0, 0.5, -3.0, -2.0, coef=0.0) == (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class TwoExperts(ModelServices):
    """p0 has a long expert, p1 a short one, the others none."""

    def expert(self, prompt: Prompt) -> Rollout | None:
        lengths = {"p0": 9, "p1": 2}
        if prompt.id not in lengths:
            return None
        rollout = make_rollouts(5, groups=1, group_size=1, given=0)[0]
        tokens = tuple(range(1, lengths[prompt.id] + 1))
        return replace(rollout, prompt=prompt, completion_ids=tokens, sampler_logprobs=(0.0,) * len(tokens))


def test_expert_log_probs_are_aligned_by_position_in_the_response() -> None:
    model, batch = Toy(), off_policy(Toy())
    services = TwoExperts(policy=policy(model), rollouts=unpacked(batch))
    columns = CalibRL().columns(batch, replace(CONTEXT, services=services))
    experts = {name: services.expert(Prompt(id=name, text="q")) for name in ("p0", "p1")}
    traces = {}
    for name, rollout in experts.items():
        assert rollout is not None
        rows = services.collate([rollout])
        traces[name] = policy(model).measure(rows).logprobs[rows.mask].tolist()
    assert [len(trace) for trace in traces.values()] == [9, 2]
    guided_rows = set()
    for row in range(batch.num_rows):
        trace = traces.get(f"p{int(batch.group[row])}", [])
        for position in range(batch.mask.shape[1]):
            place = position - (int(batch.prompt_lengths[row]) - 1)
            wanted = bool(batch.mask[row, position]) and place < len(trace)
            assert bool(columns["calibrl_guided"][row, position]) == wanted
            if wanted:
                assert columns["calibrl_expert"][row, position].item() == pytest.approx(trace[place], abs=1e-6)
                guided_rows.add((int(batch.group[row]), place))
    # Both prompts, and rows with two given tokens start at the expert's third.
    assert {(0, 2), (1, 0), (1, 1)} <= guided_rows
    assert (1, 2) not in guided_rows
    assert not batch.mask[0, int(batch.prompt_lengths[0]) - 1]


def test_without_any_expert_it_is_plain() -> None:
    batch = off_policy(Toy())
    services = TwoExperts(policy=policy(Toy()), rollouts=unpacked(replace(batch, group=batch.group + 5)))
    columns = CalibRL().columns(batch, replace(CONTEXT, services=services))
    assert not columns["calibrl_guided"].any()


def test_guidance_moves_right_answers_towards_the_expert_and_zero_does_not() -> None:
    model, batch = Toy(), off_policy(Toy())
    base = Bench(model).step(plain(), batch)
    assert Bench(model).step(plain(regularizer={"calibrl": CalibRL()}), batch).distance(base) > 1e-3
    assert Bench(model).step(plain(regularizer={"calibrl": CalibRL(coef=0.0)}), batch).distance(base) == 0.0


def test_a_task_without_solutions_is_refused() -> None:
    def run(*answers: str | None) -> Any:
        prompts = [Prompt(id=str(number), text="q", data={"solution": answer}) for number, answer in enumerate(answers)]
        task = SimpleNamespace(train_prompts=lambda: prompts, expert=lambda prompt: prompt.data["solution"])
        return SimpleNamespace(task=task)

    (diagnostic,) = CalibRL().diagnostics(run(None, None))
    assert diagnostic.fatal
    assert "has none for any training prompt: give the lines of task.path a solution" in diagnostic.message
    assert list(CalibRL().diagnostics(run(None, "4*7=28"))) == []


@pytest.mark.parametrize(
    ("setting", "words"), [({"coef": -0.1}, r"calibrl\.coef=-0.1"), ({"slope": 2.0}, r"slope=2.0")]
)
def test_out_of_range_is_refused(setting: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CalibRL(**setting)
