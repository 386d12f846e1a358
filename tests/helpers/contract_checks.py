"""What every component of an objective has to keep, as functions that raise ``AssertionError``.

Run over all YAMLs by tests/contract/test_contract.py, and over components that break a promise by
test_contract_catches.py.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
import yaml
from omegaconf import OmegaConf
from testbench import (
    CONTEXT,
    SUM_TOLERANCE,
    Bench,
    ModelServices,
    Outcome,
    Toy,
    equipped,
    off_policy,
    on_policy,
    on_ranks,
    plain,
    poisoned,
    policy,
    started,
    unpacked,
    widened,
)
from torch import Tensor

from sweeps.compose.compose import CONF, compose
from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.component_source import component_defaults
from trainer.contract.components import build_component
from trainer.contract.config import LIST_SLOTS
from trainer.contract.settings import ConfigError
from trainer.loop import with_advantages
from trainer.metrics.table import METRICS
from trainer.objective import reductions
from trainer.objective.base import Component, Context
from trainer.objective.objective import Objective

SINGLE = ("shaping", "advantage", "surrogate", "reduction")
GROUPS = (*SINGLE, *LIST_SLOTS)

STATISTICS_TOLERANCE = 2e-6
"""Statistics over a mini-batch are float32; summed in another order they move by a few units of 1e-7."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Plain GRPO with the members of one YAML in their slot."""

    objective: Objective
    members: Mapping[str, Component]
    """By path, e.g. ``weight.sign``."""
    nodes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """As configured; empty for components that tests make."""

    @property
    def baseline(self) -> Objective:
        """Plain GRPO, with the reduction that the members' surrogate insists on."""
        forced = self.objective.surrogate.forced_reduction
        return plain(reduction=self.objective.reduction) if forced else plain()

    @property
    def neutral(self) -> Objective | None:
        """The objective with every member at its neutral setting; None when one has none."""
        objective = self.objective
        for path, member in self.members.items():
            if member.neutral is None:
                return None
            objective = _with_member(objective, path, replace(member, **member.neutral))  # type: ignore[arg-type]
        return objective


def choices() -> list[tuple[str, str]]:
    """(group, choice) of every YAML that fills a slot of the objective."""
    return [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def composed(group: str, choice: str) -> dict[str, Any]:
    """The configuration with one choice, composed by Hydra as a run is; a controller gets the member it steers."""
    overrides = [_override(group, choice)]
    config = _composed(overrides)
    for node in (config["controller"] or {}).values():
        slot, *name = str(node.get("target", "")).split(".")[:2]
        if slot in LIST_SLOTS and name and name[0] not in config[slot] and (CONF / slot / f"{name[0]}.yaml").exists():
            config = _composed([*overrides, _override(slot, name[0])])
        if slot in SINGLE and name[0] not in component_defaults(config[slot]["_target_"]):
            config = _composed([*overrides, _override(slot, _with_field(slot, name[0]))])
    return config


def from_yaml(group: str, choice: str) -> Case:
    """The case of one YAML."""
    config = composed(group, choice)
    nodes = {group: config[group]} if group in SINGLE else {f"{group}.{name}": n for name, n in config[group].items()}
    single = {slot: build_component(config[slot], slot) for slot in SINGLE}
    lists = {
        slot: {name: build_component(node, f"{slot}.{name}") for name, node in (config[slot] or {}).items()}
        for slot in LIST_SLOTS
    }
    forced = single["surrogate"].forced_reduction
    if forced is not None:
        single["reduction"] = getattr(reductions, forced)()
    objective = Objective(**single, **lists)
    members = dict(objective.components())
    return Case(objective=objective, members={path: members[path] for path in nodes}, nodes=nodes)


def from_member(slot: str, member: Component) -> Case:
    """The case of a component made by hand."""
    if slot in SINGLE:
        forced = getattr(member, "forced_reduction", None)
        slots = {"reduction": getattr(reductions, forced)()} if forced else {}
        return Case(objective=plain(**slots, **{slot: member}), members={slot: member})
    return Case(objective=plain(**{slot: {"made": member}}), members={f"{slot}.made": member})


def _with_field(slot: str, name: str) -> str:
    """The first choice of a slot whose member has a field of this name."""
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / slot).glob("*.yaml"))}
    return next(c for c, node in nodes.items() if "_target_" in node and name in component_defaults(node["_target_"]))


def _override(group: str, choice: str) -> str:
    return f"{group}=[{choice}]" if group in LIST_SLOTS else f"{group}={choice}"


def _composed(overrides: list[str]) -> dict[str, Any]:
    return OmegaConf.to_container(compose(overrides), resolve=True)  # type: ignore[return-value]


def _with_member(objective: Objective, path: str, member: Component) -> Objective:
    slot, _, name = path.partition(".")
    changed: Any = {**getattr(objective, slot), name: member} if name else member
    return replace(objective, **{slot: changed})


def _prepared(objective: Objective, batch: TokenBatch, terms: TokenTerms) -> tuple[Objective, TokenBatch]:
    """Controlled objective, and the batch with advantages, weights and columns: what the loss sees."""
    state = started(objective)
    here = replace(CONTEXT, services=ModelServices(policy=policy(Toy()), rollouts=unpacked(batch)))
    state |= objective.begin_controllers(state, batch, here)
    objective = objective.controlled(state, CONTEXT)
    batch = with_advantages(batch, objective, here, state)
    state |= objective.begin_step(state, batch, here)
    batch = objective.with_columns(state, batch, here)
    return objective, objective.prepare(batch, terms if objective.needs_current else None, CONTEXT, state)


def _columns(terms: TokenTerms) -> dict[str, Tensor]:
    """The columns in float64."""
    named = {"logprobs": terms.logprobs, "entropy": terms.entropy, **terms.extras}
    return {name: value.detach().double() for name, value in named.items()}


def _terms(columns: Mapping[str, Tensor]) -> TokenTerms:
    extras = {name: value for name, value in columns.items() if name not in ("logprobs", "entropy")}
    return TokenTerms(logprobs=columns["logprobs"], entropy=columns["entropy"], extras=extras)


def _off_policy_terms(case: Case) -> tuple[TokenBatch, TokenTerms]:
    model = Toy()
    batch = off_policy(model)
    old = policy(model).measure(batch, case.objective.old_statistics).extras
    batch = replace(batch, extras={f"old_{name}": value for name, value in old.items()})
    return batch, policy(equipped(model, case.objective)).measure(batch, case.objective.statistics)


def _same(one: Outcome, other: Outcome) -> bool:
    """Bit for bit."""
    equal = all(torch.equal(one.gradient[name], other.gradient[name]) for name in one.gradient)
    return equal and one.stats == other.stats


# --- the checks -----------------------------------------------------------------------------------------------------


def builds(case: Case) -> None:
    """Members are documented components; settings survive the way through the configuration."""
    assert case.members
    for path, member in case.members.items():
        assert isinstance(member, Component), path
        assert (type(member).__doc__ or "").strip(), f"{type(member).__name__} has no docstring"
        for name, value in case.nodes.get(path, {}).items():
            if name != "_target_":
                assert json.loads(json.dumps(getattr(member, name))) == value


def rejects_unknown_keys(case: Case) -> None:
    """A misspelt setting is refused, and the correct one named."""
    for path, node in case.nodes.items():
        fields = [name for name in node if name != "_target_"]
        for name in fields:
            try:
                build_component({**node, f"{name}x": 1}, path)
            except ConfigError as error:
                assert f"{path}.{name}x is not a setting of" in str(error)
                assert f"did you mean {name!r}?" in str(error)
            else:
                raise AssertionError(f"{path} accepts the unknown setting {name}x")
        try:
            build_component({**node, "no_such_setting": 1}, path)
        except ConfigError as error:
            assert "no_such_setting" in str(error)
        else:
            raise AssertionError(f"{path} accepts an unknown setting")


def finite(case: Case) -> None:
    """Loss and gradient are numbers on ordinary batches, on and off policy, and on the ugliest one."""
    model = Toy()
    for batch in (on_policy(model), off_policy(model), off_policy(model, spread=5.0)):
        outcome = Bench(model).step(case.objective, batch)
        assert all(torch.isfinite(value).all() for value in outcome.gradient.values())
        assert torch.isfinite(torch.tensor(outcome.stats.sums["policy/loss"]))
    batch, terms = _ugly(case)
    objective, batch = _prepared(case.objective, batch, terms)
    columns = {name: value.requires_grad_() for name, value in _columns(terms).items()}
    loss, _ = objective.loss(_terms(columns), batch, objective.reduction.scale(batch))
    assert torch.isfinite(loss)
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, list(columns.values()), allow_unused=True)
        assert all(grad is None or torch.isfinite(grad).all() for grad in grads)


def _ugly(case: Case) -> tuple[TokenBatch, TokenTerms]:
    """Certain and impossible tokens, a row without any, a row of one, equal rewards, a group of one."""
    batch, terms = _off_policy_terms(case)
    mask, group = batch.mask.clone(), batch.group.clone()
    mask[0] = False
    mask[1] = mask[1] & (mask[1].cumsum(0) == 1)
    group[2] = 99
    rewards = torch.where(group == 1, torch.ones(()), batch.rewards)
    certain = torch.arange(mask.shape[1]) % 2 == 0

    def extreme(value: Tensor, low: float) -> Tensor:
        return torch.where(mask, torch.where(certain, torch.zeros(()), torch.full_like(value, low)), torch.zeros(()))

    changed = replace(
        batch,
        mask=mask,
        group=group,
        rewards=rewards,
        raw_rewards=rewards,
        old_logprobs=extreme(terms.logprobs, -60.0),
        old_entropy=torch.zeros_like(terms.entropy),
        ref_logprobs=extreme(terms.logprobs, -90.0),
    )
    columns = {name: torch.zeros_like(value) for name, value in _columns(terms).items()}
    return changed, _terms(columns | {"logprobs": extreme(terms.logprobs, -80.0)})


def silent_off_mask(case: Case) -> None:
    """No gradient to what was not sampled, and what stands there is never looked at, not even if it is NaN."""
    batch, terms = _off_policy_terms(case)
    objective, ready = _prepared(case.objective, batch, terms)
    leaves = {name: value.requires_grad_() for name, value in _columns(terms).items()}
    loss, _ = objective.loss(_terms(leaves), ready, objective.reduction.scale(ready))
    if loss.requires_grad:
        for name, grad in zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True):
            assert grad is None or not grad[~batch.mask].any(), f"{name} gets gradient off the mask"
    model = Toy()
    clean = Bench(model).step(case.objective, batch)
    dirty = Bench(model, spoil=poisoned).step(case.objective, batch)
    assert _same(clean, dirty), "values off the mask move the gradient"


def neutral_is_plain(case: Case) -> None:
    """At its neutral setting a member changes no bit of plain GRPO."""
    neutral = case.neutral
    assert neutral is not None
    model = Toy()
    for batch in (on_policy(model), off_policy(model)):
        assert _same(Bench(model).step(neutral, batch), Bench(model).step(case.baseline, batch))


def reproducible(case: Case) -> None:
    """The same seed gives the same step whatever the global generators hold, and leaves those alone."""
    model = Toy()
    outcomes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        outcomes.append(Bench(model).step(case.objective, off_policy(model)))
        assert torch.equal(torch.get_rng_state(), before), "draws from the global generator"
    assert _same(*outcomes)


def state_survives_json(case: Case) -> None:
    """After a few steps, state read back from JSON goes on as the original does."""
    model = Toy()
    objective = case.objective
    state = started(objective)
    plain_metrics = {metric.key: 0.3 for metric in METRICS if "<" not in metric.key}
    for step, entropy in enumerate((0.01, 3.0, 0.3)):
        stored = json.loads(json.dumps(state, allow_nan=False))
        assert stored == state, "state changes on its way through JSON"
        bench = Bench(model, context=replace(CONTEXT, step=step))
        kept, again = (bench.step(objective, off_policy(model, step), copy.deepcopy(s)) for s in (state, stored))
        assert _same(kept, again)
        assert kept.state == again.state
        seen = plain_metrics | {"policy/entropy": entropy, "policy/entropy_t1": entropy}
        state = objective.end_step(kept.state, seen)
        assert objective.end_step(again.state, seen) == state
    json.dumps(state, allow_nan=False)


def gradient_is_that_of_the_value(case: Case) -> None:
    """Central differences in float64 along a random direction, for every column a member could use.

    A term that moves with the entropy but sends no gradient through it fails here, unless it says so (``detached``).
    """
    batch, terms = _off_policy_terms(case)
    objective, ready = _prepared(case.objective, batch, terms)
    scale = objective.reduction.scale(ready)
    columns = _columns(terms)
    detached = frozenset().union(*(member.detached for _, member in objective.components()))
    generator = torch.Generator().manual_seed(11)

    def value(changed: Mapping[str, Tensor]) -> Tensor:
        return objective.loss(_terms(changed), ready, scale)[0]

    for name, column in columns.items():
        direction = torch.randn(column.shape, generator=generator, dtype=torch.float64) * batch.mask
        step = 1e-5
        sides = [float(value(columns | {name: column + sign * step * direction})) for sign in (1, -1)]
        numeric = (sides[0] - sides[1]) / (2 * step)
        leaf = column.clone().requires_grad_()
        loss = value(columns | {name: leaf})
        grad = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
        analytic = 0.0 if grad is None else float((grad * direction).sum())
        if name not in detached:
            assert abs(analytic - numeric) <= 1e-8 + 1e-5 * abs(numeric), f"{name}: {analytic} against {numeric}"


def row_local(case: Case) -> None:
    """The loss of rows taken apart adds up, so no row looks at another once the batch is prepared."""
    batch, terms = _off_policy_terms(case)
    objective, ready = _prepared(case.objective, batch, terms)
    scale = objective.reduction.scale(ready)
    columns = _columns(terms)
    whole, _ = objective.loss(_terms(columns), ready, scale)
    parts = 0.0
    for row in range(ready.num_rows):
        index = torch.tensor([row])
        own = ready.rows(index)
        width = own.inputs.shape[1]
        taken = {name: value[index][:, :width] for name, value in columns.items()}
        parts += float(objective.loss(_terms(taken), own, scale[index])[0])
    assert abs(parts - float(whole)) < SUM_TOLERANCE


def independent_of_micro_batches(case: Case) -> None:
    """Any portion of rows, any number of head rows at a time: one gradient."""
    model = Toy()
    for batch in (on_policy(model), off_policy(model)):
        whole = Bench(model).step(case.objective, batch)
        for tokens, chunk in ((1, 4096), (23, 4096), (60, 5), (10**6, 1)):
            parts = Bench(model, micro_batch_tokens=tokens, head_chunk=chunk).step(case.objective, batch)
            assert parts.distance(whole) <= SUM_TOLERANCE * max(whole.size, 1), (tokens, chunk)
            assert parts.stats.means() == _approximately(whole.stats.means())


def independent_of_row_order(case: Case) -> None:
    """Rows in another order give the same gradient. Random draws are dealt out in row order, so those are exempt."""
    model = Toy()
    batch = off_policy(model)
    with mock.patch.object(Context, "generator", autospec=True, side_effect=Context.generator) as generator:
        whole = Bench(model).step(case.objective, batch)
    if generator.called:
        return
    order = torch.randperm(batch.num_rows, generator=torch.Generator().manual_seed(0))
    other = Bench(model).step(case.objective, batch.rows(order))
    assert other.distance(whole) <= STATISTICS_TOLERANCE * max(whole.size, 1)


def independent_of_padding(case: Case) -> None:
    """More padding on the right gives the same gradient."""
    model = Toy()
    batch = off_policy(model)
    whole = Bench(model).step(case.objective, batch)
    wide = Bench(model).step(case.objective, widened(batch, 5))
    assert wide.distance(whole) <= STATISTICS_TOLERANCE * max(whole.size, 1)


def independent_of_ranks(case: Case) -> None:
    """Two and five ranks (one with nothing to do) end with the gradient and the sums of one."""
    model = Toy()
    for batch in (on_policy(model), off_policy(model)):
        alone = Bench(model, micro_batch_tokens=40).step(case.objective, batch)
        for world in (2, 5):
            outcomes = on_ranks(
                world,
                lambda ranks, batch=batch: Bench(model, micro_batch_tokens=40, ranks=ranks).step(case.objective, batch),
            )
            for outcome in outcomes:
                assert outcome.distance(alone) <= SUM_TOLERANCE * max(alone.size, 1), world
                assert outcome.stats.means() == _approximately(alone.stats.means())
                # Not equal to the bit: a rank multiplies other rows, and kernels may sum those in another order.
                assert torch.allclose(outcome.batch.old_logprobs, alone.batch.old_logprobs, rtol=0, atol=SUM_TOLERANCE)


def asks_for_no_more_forward_passes_than_it_says(case: Case) -> None:
    """One pass over each row, one over rows that a member brings, and a second one only for ``needs_current``."""
    model = Toy()
    batch = off_policy(model)
    own = sum(found.rows.num_rows for *_, found in case.objective.auxiliary(CONTEXT, started(case.objective)))
    seen = Bench(model, micro_batch_tokens=30).step(case.objective, batch).rows_seen
    assert seen == batch.num_rows * (2 if case.objective.needs_current else 1) + own


def _approximately(means: Mapping[str, float]) -> Any:
    import pytest

    return {key: pytest.approx(value, rel=1e-6, abs=1e-9) for key, value in means.items()}


CHECKS = (
    builds,
    rejects_unknown_keys,
    finite,
    silent_off_mask,
    neutral_is_plain,
    reproducible,
    state_survives_json,
    gradient_is_that_of_the_value,
    row_local,
    independent_of_micro_batches,
    independent_of_row_order,
    independent_of_padding,
    independent_of_ranks,
    asks_for_no_more_forward_passes_than_it_says,
)
