"""Controllers that hold entropy at a level, step by step, and the members that they drive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, Bench, ModelServices, Toy, off_policy, on_policy, plain, policy, rewarded

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.advantages.one_sided import OneSided
from trainer.objective.advantages.repo import REPO
from trainer.objective.advantages.signed import Signed
from trainer.objective.base import Controller
from trainer.objective.controllers.aer import AERController
from trainer.objective.controllers.entrocraft import Entrocraft
from trainer.objective.controllers.entropic import EntroPIC
from trainer.objective.controllers.multiplicative import Multiplicative
from trainer.objective.controllers.rollout_entropy import rollout_entropy
from trainer.objective.objective import Objective
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.weights.sign_balance import SignBalance


def drive(controller: Controller, entropies: Sequence[float], num_steps: int = 1) -> list[float]:
    """The coefficient of every step, with rollouts of these entropies."""
    template = on_policy(Toy())
    state, values = controller.initial_state(), []
    for step, entropy in enumerate(entropies):
        here = replace(CONTEXT, step=step, num_steps=num_steps)
        batch = replace(template, sampler_logprobs=torch.full_like(template.sampler_logprobs, -entropy))
        state = controller.begin_step(state, batch, here)
        values.append(controller.value(state, here))
        state = controller.end_step(state, {"policy/entropy": 9.0})
    return values


class TestEntroPIC:
    def test_by_hand(self) -> None:
        # Errors -1/4, -1/4, 1/2: the integral holds the earlier ones, a quarter of each.
        pi = EntroPIC(target_entropy=0.5, proportional=1.0, integral=0.25)
        assert drive(pi, [0.25, 0.25, 1.0]) == [-0.25, -0.25 - 0.0625, 0.5 - 0.125]

    def test_on_target_alpha_stays_what_the_integral_says(self) -> None:
        pi = EntroPIC(target_entropy=0.5, proportional=1.0, integral=0.25)
        assert drive(pi, [0.25, 0.5, 0.5, 0.5])[1:] == [-0.0625] * 3

    def test_the_integral_does_not_wind_up(self) -> None:
        pi = EntroPIC(target_entropy=1.0, proportional=0.0, integral=0.5, alpha_max=0.75)
        # 1 nat below: -0.5 a step, held at -0.75; one step of 2 nats above turns it around at once.
        assert drive(pi, [0.0, 0.0, 0.0, 0.0, 3.0, 1.0]) == [0.0, -0.5, -0.75, -0.75, -0.75, 0.25]

    def test_without_gains_it_is_grpo_bit_for_bit(self) -> None:
        still = EntroPIC(proportional=0.0, integral=0.0)
        driven = plain(weight={"sign_balance": SignBalance()}, controller={"entropic": still})
        batch = off_policy(Toy())
        assert Bench(Toy()).step(driven, batch).distance(Bench(Toy()).step(plain(), batch)) == 0

    def test_alpha_moves_weight_from_one_sign_to_the_other(self) -> None:
        batch = replace(rewarded([1, 0, 0]), advantages=torch.tensor([[2.0], [-1.0], [0.0]]))
        assert SignBalance(alpha=-0.25)(batch, None, CONTEXT).tolist() == [[0.75], [1.25], [1.0]]


class TestEntrocraft:
    def test_the_corridor_falls_and_its_edges_belong_to_it(self) -> None:
        corridor = Entrocraft(target_entropy=0.625, target_entropy_end=0.375, width=0.25)
        # Bounds of the three steps: [0.5, 0.75], [0.375, 0.625], [0.25, 0.5].
        assert drive(corridor, [0.75, 0.75, 0.25], num_steps=3) == [0, 1, 0]
        assert drive(corridor, [0.25, 0.375, 0.5], num_steps=3) == [-1, 0, 0]

    def test_a_cosine_is_slow_at_first(self) -> None:
        corridor = Entrocraft(target_entropy=1.0, target_entropy_end=0.0, width=0.0)
        # A quarter of the way the line is at 0.75, the cosine at (1 + cos(pi / 4)) / 2 = 0.854.
        assert drive(corridor, [1.0, 0.8], num_steps=5) == [0, 1]
        assert drive(replace(corridor, curve="cosine"), [1.0, 0.8], num_steps=5) == [0, -1]

    @pytest.mark.parametrize(
        ("middle", "width", "advantage"),
        [
            (50.0, 100.0, GRPO()),
            (100.0, 0.0, Signed(positive=0.0, negative=1.0)),
            (0.0, 0.0, Signed(positive=1.0, negative=0.0)),
        ],
        ids=["open", "above", "below"],
    )
    def test_limits_are_grpo_nsr_and_positives_only(
        self, middle: float, width: float, advantage: GRPO | Signed
    ) -> None:
        corridor = Entrocraft(target_entropy=middle, target_entropy_end=middle, width=width)
        driven = plain(advantage=OneSided(), controller={"entrocraft": corridor})
        batch = off_policy(Toy())
        expected = Bench(Toy()).step(plain(advantage=advantage), batch)
        assert Bench(Toy()).step(driven, batch).distance(expected) == 0
        assert expected.gradient["head.weight"].any()

    def test_the_side_answers_to_the_rollouts_of_its_own_step(self) -> None:
        """Advantages are made after the controller has seen the batch."""
        corridor = Entrocraft(target_entropy=99.0, target_entropy_end=99.0)
        driven = plain(advantage=OneSided(), controller={"entrocraft": corridor})
        advantages = Bench(Toy()).step(driven, on_policy(Toy())).batch.advantages
        assert advantages is not None and set(advantages.flatten().tolist()) == {0.0, -1.0}


class TestREPO:
    @pytest.mark.parametrize(
        ("advantage", "p", "expected"),
        [(1.0, 0.1, 2.15129), (1.0, 0.9, 1.05268), (-1.0, 0.9, -0.94732), (-1.0, 0.1, 0.15129), (0.0, 0.1, 0.0)],
    )
    def test_by_hand(self, advantage: float, p: float, expected: float) -> None:
        """zeta = 1/2: 1 - ln(0.1) / 2 = 2.15129 and so on; the fourth one turns its sign unless that is kept."""
        batch = rewarded([1.0])
        ones = torch.ones_like(batch.sampler_logprobs)
        terms = TokenTerms(logprobs=(p * ones).log(), entropy=torch.zeros_like(ones))
        batch = ScoredBatch.of(replace(batch, old_logprobs=terms.logprobs, advantages=advantage * ones))
        free, kept = (REPO(zeta=0.5, keep_sign=keep).adjusted(terms, batch)[0, 0] for keep in (False, True))
        assert float(free) == pytest.approx(expected, abs=1e-5)
        assert float(kept) == pytest.approx(0.0 if (advantage, p) == (-1.0, 0.1) else expected, abs=1e-5)

    def test_the_gradient_runs_through_the_ratio_alone(self) -> None:
        """On policy the gradient of a token's loss is minus its adjusted advantage."""
        objective: Objective = plain(advantage=REPO(zeta=0.5))
        batch = on_policy(Toy())
        batch = replace(batch, old_logprobs=batch.sampler_logprobs)
        logprobs = batch.sampler_logprobs.clone().requires_grad_()
        terms = TokenTerms(logprobs=logprobs, entropy=torch.zeros_like(logprobs))
        batch = replace(batch, advantages=torch.ones_like(logprobs), weights=torch.ones_like(logprobs))
        losses, _ = objective.token_losses(terms, batch, torch.ones(batch.num_rows, 1))
        (found,) = torch.autograd.grad(losses["policy"].sum(), logprobs)
        expected = -(1 - 0.5 * logprobs.detach())
        torch.testing.assert_close(found[batch.mask], expected[batch.mask], rtol=1e-5, atol=0)


class TestMultiplicative:
    def test_it_doubles_below_the_first_steps_entropy_and_halves_above_it(self) -> None:
        servo = Multiplicative(start=0.25, coef_min=0.125, coef_max=1.0)
        assert drive(servo, [0.5, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0]) == [0.25, 0.5, 1, 1, 0.5, 0.25, 0.125, 0.125]

    def test_a_level_can_be_given(self) -> None:
        servo = Multiplicative(start=0.25, target_entropy=0.75)
        assert drive(servo, [0.5, 0.75, 1.0]) == [0.5, 0.5, 0.25]

    def test_adapo_moves_the_upper_threshold(self) -> None:
        servo = Multiplicative(target="surrogate.clip_high", start=0.25, target_entropy=99.0)
        batch = off_policy(Toy())
        expected = Bench(Toy()).step(plain(surrogate=PPOClip(clip_high=0.5)), batch)
        found = Bench(Toy()).step(plain(surrogate=PPOClip(), controller={"multiplicative": servo}), batch)
        assert found.distance(expected) == 0


def test_aer_holds_a_given_level_instead_of_a_share_of_the_first_entropy() -> None:
    for target, expected in ((None, 0.5 * (0.25 * 1.0 - 1.0)), (2.0, 0.5 * (2.0 - 1.0))):
        servo = AERController(target_frac=0.25, gain=0.5, start=1.0, target_entropy=target)
        state = servo.end_step(servo.initial_state(), {"policy/entropy_t1": 1.0})
        assert state["coef"] == pytest.approx(1.0 + expected)


def test_both_estimates_of_the_entropy() -> None:
    model = Toy()
    batch = on_policy(model)
    here = replace(CONTEXT, services=ModelServices(policy=policy(model)))
    exact = policy(model).measure(batch).entropy[batch.mask].mean()
    assert rollout_entropy(batch, here, "exact") == pytest.approx(float(exact), abs=1e-6)
    assert rollout_entropy(batch, CONTEXT, "sampled") == pytest.approx(
        -float(batch.sampler_logprobs[batch.mask].mean())
    )


def test_settings_out_of_range_are_refused() -> None:
    for kind, settings, message in (
        (EntroPIC, {"alpha_max": 2.0}, r"controller\.entropic\.alpha_max=2"),
        (EntroPIC, {"integral": -1.0}, r"controller\.entropic\.integral=-1"),
        (SignBalance, {"alpha": 1.5}, r"weight\.sign_balance\.alpha=1\.5"),
        (Multiplicative, {"start": 2.0}, r"controller\.multiplicative\.start=2.*coef_max=1"),
        (Multiplicative, {"factor": 0.5}, r"controller\.multiplicative\.factor=0\.5"),
        (Multiplicative, {"coef_min": 0.0}, r"controller\.multiplicative\.coef_min=0"),
        (REPO, {"zeta": -1.0}, r"advantage\.zeta=-1"),
    ):
        with pytest.raises(ConfigError, match=message):
            kind(**settings)  # type: ignore[operator]
