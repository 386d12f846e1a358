"""The update loop: whose old log-probs, how many steps, what is counted, and what stops it before the weights move."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from testbench import CONTEXT, Bench, Toy, off_policy, on_policy, plain, policy
from torch import Tensor, nn

from trainer.batch.types import StepStats, TokenBatch
from trainer.contract.config import OptimConfig
from trainer.loop import with_advantages
from trainer.metrics.accounting import steer_published, steer_released, token_change
from trainer.metrics.entropy import entropy_stats
from trainer.objective.base import Context
from trainer.objective.objective import Objective
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.weights.sign import Sign
from trainer.policy.policy import Policy
from trainer.runtime.ranks import Ranks
from trainer.update.gradient import Learner, with_old_terms
from trainer.update.logprob_gap import EngineMismatch, check_gap, logprob_gap
from trainer.update.loss_scale import LossScale
from trainer.update.update import NonFiniteLoss, update


def run(
    model: nn.Module,
    batch: TokenBatch,
    optim: OptimConfig,
    objective: Objective | None = None,
    version: int = 0,
    note_ratios: bool = False,
    temperature: float = 0.9,
    loss_scale: LossScale | None = None,
) -> tuple[TokenBatch, StepStats]:
    """``update`` with plain SGD, changing ``model``."""
    accelerator = Accelerator(cpu=True)
    learner = Learner(
        policy=policy(model, micro_batch_tokens=40, temperature=temperature),
        optimizer=accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1.0)),
        accelerator=accelerator,
        ranks=Ranks(),
        optim=optim,
        dtype="float32",
        loss_scale=loss_scale or LossScale(),
    )
    objective = objective or plain()
    batch = with_advantages(batch, objective, CONTEXT)
    state = objective.initial_state()
    return update(learner, objective, batch, CONTEXT, state, version=version, note_ratios=note_ratios)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_first_update_takes_its_old_terms_from_its_own_forward_pass() -> None:
    model = Toy()
    batch = on_policy(model)
    expected = policy(model).measure(batch)
    done, stats = run(model, batch, OptimConfig(lr=0.1))
    torch.testing.assert_close(done.old_logprobs, expected.logprobs, rtol=0, atol=1e-6)
    torch.testing.assert_close(done.old_entropy, expected.entropy, rtol=0, atol=1e-6)
    means = stats.means()
    assert means["policy/ratio_max"] == 1.0
    assert means["policy/kl_old"] == means["policy/clip_frac_low"] == means["policy/clip_frac_high"] == 0.0


def test_gradient_at_ratio_one_is_that_of_minus_advantage_times_logprob() -> None:
    model = Toy()
    batch = on_policy(model)
    ours = Bench(model).step(plain(), batch)
    ready = with_advantages(batch, plain(), CONTEXT)
    terms = policy(model).terms(ready)
    loss = -(ready.advantages * terms.logprobs)[ready.mask].sum() / ready.num_tokens  # type: ignore[operator]
    grads = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), grad in zip(model.named_parameters(), grads, strict=True):
        torch.testing.assert_close(ours.gradient[name], grad, rtol=0, atol=1e-7)  # advantages and 1/tokens are float32
        assert grad.any()


def test_a_step_makes_good_tokens_likelier_and_bad_ones_less_likely() -> None:
    model = Toy()
    batch = on_policy(model)
    done, _ = run(model, batch, OptimConfig(lr=0.01, max_grad_norm=0.0))
    change = (policy(model).measure(batch).logprobs - done.old_logprobs)[batch.mask]  # type: ignore[operator]
    assert float((change * done.advantages[batch.mask]).sum()) > 0  # type: ignore[index]


def test_mini_batches_see_old_terms_of_before_the_first_step_and_every_row_once_an_epoch() -> None:
    model = Toy()
    batch = on_policy(model)
    old = policy(model).measure(batch)
    seen: Any = model.base_model
    seen.rows_seen = 0
    before = weights(model)
    done, stats = run(model, with_old_terms(batch, old), OptimConfig(lr=0.5, updates_per_rollout=2, epochs=3))
    assert torch.equal(done.old_logprobs, old.logprobs)
    assert seen.rows_seen == 3 * batch.num_rows
    means = stats.means()
    assert stats.counts["policy/grad_norm"] == stats.counts["policy/loss"] == stats.counts["policy/lr"] == 6
    assert stats.counts["policy/kl_old"] == 3 * batch.num_tokens
    assert means["policy/ratio_max"] > 1.0
    assert means["policy/kl_old"] > 0.0
    assert any(not torch.equal(before[name], value) for name, value in weights(model).items())


def test_an_epoch_is_a_step_of_its_own_with_nothing_left_of_the_gradient_before() -> None:
    twice, again = Toy(), Toy()
    batch = on_policy(twice)
    batch = with_old_terms(batch, policy(twice).measure(batch))
    run(twice, batch, OptimConfig(lr=0.05, epochs=2))
    for _ in range(2):
        run(again, batch, OptimConfig(lr=0.05))
        again.zero_grad(set_to_none=True)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(twice).items())


def test_members_are_asked_once_per_mini_batch_and_epochs_are_cut_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, tuple[int, ...]]] = []

    def remember(self: Sign, batch: TokenBatch, terms: Any, context: Context) -> Tensor:
        asked.append((context.update, context.num_updates, tuple(batch.group.unique().tolist())))
        return torch.ones_like(batch.sampler_logprobs)

    monkeypatch.setattr(Sign, "__call__", remember)
    model = Toy()
    batch = on_policy(model, groups=8)
    batch = with_old_terms(batch, policy(model).measure(batch))
    run(model, batch, OptimConfig(updates_per_rollout=2, epochs=4), plain(weight={"sign": Sign()}))
    assert [(update, total) for update, total, _ in asked] == [(number, 8) for number in range(8)]
    cuts = [frozenset((asked[number][2], asked[number + 1][2])) for number in range(0, 8, 2)]
    assert all(sorted(group for half in cut for group in half) == list(range(8)) for cut in cuts)
    assert len(set(cuts)) > 1


def test_counts_by_hand() -> None:
    model = Toy()
    batch = off_policy(model, spread=0.5)
    objective = plain(surrogate=PPOClip(clip_low=0.1, clip_high=0.3))
    done, stats = run(copy.deepcopy(model), batch, OptimConfig(lr=0.0), objective)
    ratio = (policy(model).measure(batch).logprobs - batch.old_logprobs)[batch.mask].double().exp()  # type: ignore[operator]
    advantages = done.advantages[batch.mask]  # type: ignore[index]
    means = stats.means()
    low = ((ratio < 0.9) & (advantages < 0)).double().mean().item()
    high = ((ratio > 1.3) & (advantages > 0)).double().mean().item()
    assert 0 < low < 1
    assert 0 < high < 1
    assert means["policy/clip_frac_low"] == pytest.approx(low, abs=1e-6)
    assert means["policy/clip_frac_high"] == pytest.approx(high, abs=1e-6)
    assert means["policy/ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-5)
    # k3 of KL(old || current): mean of r - 1 - ln r.
    assert means["policy/kl_old"] == pytest.approx((ratio - 1 - ratio.log()).mean().item(), rel=1e-4)
    surrogate = -torch.minimum(ratio * advantages, ratio.clamp(0.9, 1.3) * advantages)
    assert means["policy/loss"] == pytest.approx(surrogate.mean().item(), rel=1e-5)


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_the_entropy_at_temperature_one_is_that_of_the_same_weights_undivided(updates: int, temperature: float) -> None:
    model = Toy()
    batch = on_policy(model)
    own = policy(model, temperature=1.0).measure(batch).entropy[batch.mask]
    here = replace(batch, sampler_logprobs=policy(model, temperature=temperature).measure(batch).logprobs)
    done, _ = run(model, here, OptimConfig(lr=0.1, updates_per_rollout=updates), temperature=temperature)
    metrics = entropy_stats(done).means()
    assert metrics["policy/entropy_t1"] == pytest.approx(own.mean().item(), abs=1e-12)
    assert (metrics["policy/entropy_t1"] == metrics["policy/entropy"]) == (temperature == 1)
    # At temperature 1 nothing more is computed: the column is the one that is there.
    assert ("old_entropy_t1" in done.extras) == (temperature != 1)


@pytest.mark.parametrize(("updates", "epochs"), [(1, 1), (4, 1), (2, 3)])
def test_ratios_and_clipping_of_the_updates_reach_the_accounting(updates: int, epochs: int) -> None:
    model, objective = Toy(), plain(surrogate=PPOClip(clip_low=0.05, clip_high=0.05))
    batch = on_policy(model, groups=8)
    optim = OptimConfig(lr=0.3, updates_per_rollout=updates, epochs=epochs)
    before = policy(model).measure(batch)
    done, stats = run(model, batch, optim, objective, note_ratios=True)
    ratio, kept = (done.extras[f"update_{name}"][batch.mask] for name in ("ratio", "kept_ratio"))
    if updates == epochs == 1:
        assert torch.equal(ratio, torch.ones_like(ratio)) and torch.equal(kept, ratio)
        return
    assert ratio.unique().numel() > 10 and not done.extras["update_ratio"][~batch.mask].any()
    if epochs == 1:  # every token is used once: a share of exactly the clip fractions is dropped
        means = stats.means()
        clipped = means["policy/clip_frac_low"] + means["policy/clip_frac_high"]
        assert 0 < clipped == pytest.approx((kept == 0).double().mean().item(), abs=1e-6)
        assert torch.equal(kept[kept != 0], ratio[kept != 0])
        assert ratio.max().item() == pytest.approx(means["policy/ratio_max"], rel=1e-6)
        terms = replace(with_old_terms(batch, before), advantages=done.advantages, extras=done.extras)
        change = token_change(terms, policy(model).measure(batch))
        dropped = steer_released(change) != steer_published(change)
        assert torch.equal(dropped, (kept == 0) & (change.advantages != 0))
    else:
        assert ((kept > 0) & (kept < ratio)).any(), "clipped in one epoch and not in another"


def test_gradient_norm_is_reported_before_the_cap_and_the_step_obeys_it() -> None:
    moved = []
    for cap in (0.0, 1e-3):
        model = Toy()
        before = weights(model)
        _, stats = run(model, on_policy(model), OptimConfig(lr=1.0, max_grad_norm=cap))
        step = torch.sqrt(sum(((value - before[name]) ** 2).sum() for name, value in weights(model).items()))  # type: ignore[arg-type]
        moved.append((float(step), stats.means()["policy/grad_norm"]))
    (free, free_norm), (capped, capped_norm) = moved
    assert free == pytest.approx(free_norm, rel=1e-6)
    assert capped_norm == pytest.approx(free_norm, rel=1e-6)
    assert capped == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("version", "rates"), [(0, [0.25, 0.5]), (2, [0.75, 1.0]), (9, [1.0, 1.0])])
def test_learning_rate_rises_linearly_over_the_warm_up(version: int, rates: list[float]) -> None:
    model = Toy()
    batch = on_policy(model)
    batch = with_old_terms(batch, policy(model).measure(batch))
    optim = OptimConfig(lr=1e-3, warmup_steps=4, updates_per_rollout=2)
    _, stats = run(model, batch, optim, version=version)
    assert stats.means()["policy/lr"] == pytest.approx(1e-3 * sum(rates) / 2)


def test_groups_that_are_all_right_or_all_wrong_move_nothing() -> None:
    model = Toy()
    batch = on_policy(model)
    before = weights(model)
    run(model, replace(batch, rewards=torch.ones(batch.num_rows)), OptimConfig(lr=1.0))
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())


def test_a_batch_without_a_sampled_token_moves_nothing() -> None:
    model = Toy()
    batch = on_policy(model)
    before = weights(model)
    _, stats = run(model, replace(batch, mask=torch.zeros_like(batch.mask)), OptimConfig(lr=1.0))
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    assert stats.means()["policy/loss"] == 0.0


def test_an_engine_with_other_weights_stops_the_run_before_the_step() -> None:
    model = Toy()
    batch = on_policy(Toy(seed=1))
    before = weights(model)
    with pytest.raises(EngineMismatch, match="sampler and trainer disagree by up to"):
        run(model, batch, OptimConfig())
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())


def test_gap_by_hand_and_its_bounds() -> None:
    model = Toy()
    batch = off_policy(model)
    shifted = torch.zeros(batch.mask.shape)
    row, position = batch.mask.nonzero()[0].tolist()
    shifted[row, position] = 1.5e-3
    gap = replace(batch, old_logprobs=batch.sampler_logprobs + shifted)
    largest, mean = logprob_gap(gap)
    assert largest == pytest.approx(1.5e-3, rel=1e-3)
    assert mean == pytest.approx(1.5e-3 / batch.num_tokens, rel=1e-2)
    check_gap(gap, "float32")
    with pytest.raises(EngineMismatch):  # one token alone beyond the bound on the largest
        check_gap(replace(batch, old_logprobs=batch.sampler_logprobs + 2 * shifted), "float32")
    with pytest.raises(EngineMismatch):  # all tokens a little off: the bound on the mean
        check_gap(replace(batch, old_logprobs=batch.sampler_logprobs + 1e-3 * batch.mask), "float32")
    with pytest.raises(EngineMismatch):
        check_gap(replace(batch, old_logprobs=batch.sampler_logprobs * torch.nan), "float32")
    off_mask = replace(batch, old_logprobs=torch.where(batch.mask, batch.sampler_logprobs, torch.tensor(5.0)))
    check_gap(off_mask, "float32")
    assert logprob_gap(replace(batch, mask=torch.zeros_like(batch.mask))) == (0.0, 0.0)


def test_a_scaled_gradient_that_overflows_skips_the_update_and_is_counted() -> None:
    model, reference = Toy().float(), Toy().float()
    batch = on_policy(model)
    before, scale = weights(model), LossScale(enabled=True, scale=2.0**1023)
    _, stats = run(model, batch, OptimConfig(max_grad_norm=0), loss_scale=scale)
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    assert stats.means()["policy/overflow_frac"] == 1.0 and "policy/grad_norm" not in stats.means()
    assert scale.scale == 2.0**1022
    assert all(value.grad is None for value in model.parameters())
    scale.scale = 1024.0  # a power of two changes no digit
    _, stats = run(model, batch, OptimConfig(), loss_scale=scale)
    run(reference, batch, OptimConfig())
    assert stats.means()["policy/overflow_frac"] == 0.0
    for name, value in weights(reference).items():
        torch.testing.assert_close(weights(model)[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_the_step(what: str) -> None:
    model = Toy()
    batch = off_policy(model)
    before = weights(model)
    if what == "loss":
        batch = replace(batch, old_logprobs=batch.old_logprobs.masked_fill(batch.mask, torch.nan))  # type: ignore[union-attr]
    else:
        handle = next(model.parameters()).register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(NonFiniteLoss, match=f"the {what} is not finite") as caught:
        run(model, batch, OptimConfig())
    if what == "gradient":
        handle.remove()
    assert caught.value.batch.num_rows == batch.num_rows
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())


def test_same_inputs_give_the_same_bits() -> None:
    results = []
    for _ in range(2):
        model = Toy()
        batch = on_policy(model)
        batch = with_old_terms(batch, policy(model).measure(batch))
        _, stats = run(model, batch, OptimConfig(lr=0.1, updates_per_rollout=4, epochs=2))
        results.append((weights(model), stats))
    assert results[0][1] == results[1][1]
    assert all(torch.equal(value, results[1][0][name]) for name, value in results[0][0].items())


def test_a_member_that_needs_current_statistics_gets_them_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []

    def remember(self: Sign, batch: TokenBatch, terms: Any, context: Any) -> Tensor:
        got.append(terms)
        return torch.ones_like(batch.sampler_logprobs)

    monkeypatch.setattr(Sign, "needs_current", True)
    monkeypatch.setattr(Sign, "statistics", frozenset({"sum_p2_logp_h"}))
    monkeypatch.setattr(Sign, "__call__", remember)
    model = Toy()
    batch = off_policy(model)
    outcome = Bench(model, micro_batch_tokens=30).step(plain(weight={"sign": Sign()}), batch)
    expected = policy(model).measure(batch, {"sum_p2_logp_h"})
    torch.testing.assert_close(got[0].logprobs, expected.logprobs, rtol=0, atol=1e-6)
    torch.testing.assert_close(got[0].extras["sum_p2_logp_h"], expected.extras["sum_p2_logp_h"], rtol=0, atol=1e-6)
    assert not got[0].logprobs.requires_grad
    assert outcome.rows_seen == 2 * batch.num_rows


def test_old_terms_of_a_step_with_several_updates_cost_what_the_first_update_did_not_compute() -> None:
    model = Toy()
    batch = on_policy(model)
    expected = policy(model).measure(batch)
    seen: Any = model.base_model
    seen.rows_seen = 0
    done, stats = run(model, batch, OptimConfig(lr=0.5, updates_per_rollout=2))
    torch.testing.assert_close(done.old_logprobs, expected.logprobs, rtol=0, atol=1e-6)
    torch.testing.assert_close(done.old_entropy, expected.entropy, rtol=0, atol=1e-6)
    first = int(batch.num_rows / 2)
    assert seen.rows_seen == batch.num_rows + (batch.num_rows - first)
    assert stats.means()["policy/ratio_max"] > 1.0


class LoudPPOClip(PPOClip):
    """Says that a token without advantage could carry gradient, which it cannot."""

    @property
    def silent_without_advantage(self) -> bool:
        return False


@pytest.mark.parametrize("make", [on_policy, off_policy])
def test_rows_without_signal_skip_the_backward_pass_and_nothing_else(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Toy()
    batch = make(model, 0, groups=5, group_size=4)
    batch = replace(batch, rewards=torch.where(batch.group < 2, torch.ones(()), batch.rewards))
    graphs: list[int] = []
    terms = Policy.terms

    def noted(self: Policy, rows: TokenBatch, statistics: Any = ()) -> Any:
        graphs.append(rows.num_rows if torch.is_grad_enabled() else 0)
        return terms(self, rows, statistics)

    monkeypatch.setattr(Policy, "terms", noted)
    quiet = Bench(model).step(plain(), batch)
    silent = int((with_advantages(batch, plain(), CONTEXT).advantages == 0).all(dim=1).sum())  # type: ignore[union-attr]
    assert 8 <= silent < batch.num_rows
    assert sum(graphs) == batch.num_rows - silent
    loud = Bench(model).step(plain(surrogate=LoudPPOClip()), batch)
    assert loud.distance(quiet) < 1e-12
    assert quiet.stats.means() == pytest.approx(loud.stats.means(), rel=1e-9, abs=1e-12)
    assert torch.equal(quiet.batch.old_logprobs != 0, batch.mask)


def test_a_step_without_any_signal_still_lets_momentum_act() -> None:
    model = Toy()
    batch = on_policy(model)
    flat = replace(batch, rewards=torch.ones(batch.num_rows))
    outcome = Bench(model).step(plain(), flat)
    assert set(outcome.gradient) == {name for name, _ in model.named_parameters()}
    assert outcome.size == 0.0
