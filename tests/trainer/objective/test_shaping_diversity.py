"""Diversity and confidence in the reward: outcome-based exploration, DARLING, RLCR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, ModelServices, Toy, policy, rewarded, unpacked

from trainer.batch.types import TokenBatch, Verdict
from trainer.metrics.calibration import stated_confidence
from trainer.objective.base import Context, Shaping
from trainer.objective.shaping.darling import Darling, grams
from trainer.objective.shaping.outcome_exploration import OutcomeExploration
from trainer.objective.shaping.rlcr import RLCR


def shown(batch: TokenBatch, answers: Sequence[str | None], texts: Sequence[str] = (), state: Any = None) -> Context:
    rollouts = [
        replace(rollout, verdict=Verdict(reward=float(reward), answer=answer), text=text)
        for rollout, reward, answer, text in zip(
            unpacked(batch), batch.raw_rewards, answers, texts or [""] * len(answers), strict=True
        )
    ]
    services = ModelServices(policy=policy(Toy()), rollouts=tuple(rollouts))
    return replace(CONTEXT, services=services, state={"counts": {}} if state is None else state)


class TestOutcomeExploration:
    def test_seldom_answers_are_worth_more_by_the_counts_of_the_run(self) -> None:
        shaping, batch = OutcomeExploration(historical=0.5), rewarded([1, 0, 0, 0])
        answers = ["7", "5", "5", None]
        state = shaping.initial_state()
        first = shaping(batch, shown(batch, answers, state=state))
        # 7 has been said once and 5 twice: 1/2 and 1/2 / sqrt 2. What cannot be read gets nothing.
        assert first.tolist() == pytest.approx([1.5, 0.5 / 2**0.5, 0.5 / 2**0.5, 0.0])
        state = shaping.begin_step(state, batch, shown(batch, answers, state=state))
        assert state == {"counts": {"p0": {"7": 1, "5": 2}}}
        # Then 5 twice more (four in all) and 9 for the first time.
        second = shaping(batch, shown(batch, ["5", "5", "9", None], state=state))
        assert second.tolist() == pytest.approx([1.25, 0.25, 0.5, 0.0])
        assert state == {"counts": {"p0": {"7": 1, "5": 2}}}, "a call changes no state"

    def test_counts_belong_to_a_prompt_and_crowds_to_a_group(self) -> None:
        shaping = OutcomeExploration(historical=0.0, batch=1.0)
        batch = rewarded([0, 0, 0, 0], group=[0, 0, 0, 1])
        # Of three responses to the first prompt two share an answer: 1/3 each. The fourth is alone with its own.
        assert shaping(batch, shown(batch, ["5", "5", "7", "5"])).tolist() == pytest.approx([-1 / 3, -1 / 3, 0, 0])

    def test_whoever_cannot_be_read_is_no_crowd(self) -> None:
        shaping = OutcomeExploration(historical=0.0, batch=1.0)
        assert shaping(rewarded([0, 0]), shown(rewarded([0, 0]), [None, None])).tolist() == [0, 0]


class TestDarling:
    def test_grams(self) -> None:
        assert grams([1, 2, 1, 2], 2) == {(1, 2), (2, 1)}
        assert grams([1, 2], 4) == {(1, 2)}

    def test_by_hand(self) -> None:
        batch = rewarded([1, 1, 0, 1])
        targets, mask = batch.targets.clone(), torch.zeros_like(batch.mask)
        mask[:, :3] = True
        targets[:, :3] = torch.tensor([[1, 2, 3], [1, 2, 4], [5, 6, 7], [1, 2, 3]])
        mask[3, 2] = False
        batch = replace(batch, targets=targets, mask=mask)
        # Pairs: {12, 23}, {12, 24}, {56, 67}, {12}: half, half, all, none of them are a response's own.
        assert Darling(n=2)(batch, CONTEXT).tolist() == [0.5, 0.5, 0.0, 0.0]
        assert Darling(n=2, strength=2.0)(batch, CONTEXT).tolist() == [0.25, 0.25, 0.0, 0.0]
        # In groups of their own nobody has a sibling.
        alone = replace(batch, group=torch.arange(4))
        assert Darling(n=2)(alone, CONTEXT).tolist() == [1, 1, 0, 1]

    def test_negative_rewards_are_shifted_so_that_diversity_is_never_punished(self) -> None:
        batch = rewarded([1, -1])
        targets, mask = batch.targets.clone(), torch.zeros_like(batch.mask)
        mask[:, :2] = True
        targets[:, :2] = torch.tensor([[1, 2], [1, 3]])
        # One of two single tokens each is a response's own: 2 / 2 - 1 and 0 / 2 - 1.
        batch = replace(batch, targets=targets, mask=mask)
        assert Darling(n=1)(batch, CONTEXT).tolist() == [0.0, -1.0]


class TestRLCR:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("<confidence>0.7</confidence>", 0.7),
            ("<confidence> 70 % </confidence>", 0.7),
            ("<confidence>0.2</confidence> no: <confidence>.9</confidence>", 0.9),
            ("<confidence>1</confidence>", 1.0),
            ("<confidence>1.5</confidence>", None),
            ("<confidence>170%</confidence>", None),
            ("<confidence>sure</confidence>", None),
            ("I am sure", None),
        ],
    )
    def test_what_is_read(self, text: str, expected: float | None) -> None:
        assert stated_confidence(text) == (None if expected is None else pytest.approx(expected))

    def test_by_hand(self) -> None:
        batch = rewarded([1, 0, 0, 1])
        texts = [f"<confidence>{q}</confidence>" for q in ("0.75", "0.75", "0")] + ["no idea"]
        shaped = RLCR()(batch, shown(batch, [None] * 4, texts))
        assert shaped.tolist() == [1 - 0.0625, -0.5625, 0.0, 0.0]
        assert RLCR(weight=2.0)(batch, shown(batch, [None] * 4, texts)).tolist() == [1 - 0.125, -1.125, 0.0, -1.0]

    def test_the_best_confidence_is_the_accuracy(self) -> None:
        """Of four alike responses three are correct: saying 3/4 costs least."""
        batch = rewarded([1, 1, 1, 0])

        def total(q: float) -> float:
            kind: Shaping = RLCR()
            return float(kind(batch, shown(batch, [None] * 4, [f"<confidence>{q}</confidence>"] * 4)).sum())

        assert total(0.75) > max(total(0.5), total(0.7), total(0.8), total(1.0))
