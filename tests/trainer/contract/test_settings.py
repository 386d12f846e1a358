"""Every number that a configuration holds, with every value that is none of it: refused in one sentence that names it,
or accepted for a reason that stands here."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml

from sweeps.compose.compose import CONF
from sweeps.search.space import Parameter, parameters
from trainer.contract.config import LIST_SLOTS
from trainer.contract.settings import ConfigError, Range, Seed, coerced, filled

HERE = Path(__file__)
EXTRA = {"search.objectives[0]": "sweeps.search.settings.SearchObjective"}
"""Dataclasses that users fill and no YAML names as its ``_target_``."""


def components() -> dict[str, str]:
    """Key -> import path of every dataclass that a configuration fills, one key for each class."""
    found: dict[str, str] = {}
    for path in sorted(CONF.glob("*/*.yaml")):
        group, target = path.parent.name, (yaml.safe_load(path.read_text()) or {}).get("_target_", "")
        if target.startswith(("trainer.", "sweeps.")) and target not in found.values():
            found[f"{group}.{path.stem}" if group in LIST_SLOTS else f"{group}:{path.stem}"] = target
    return found | EXTRA


COMPONENTS = components()


def kind_of(name: str) -> Any:
    module, _, kind = COMPONENTS[name].rpartition(".")
    return getattr(importlib.import_module(module), kind)


def numbers(hint: Any) -> Iterator[Any]:
    """Every kind of number in an annotation."""
    if hint in (int, float):
        yield hint
    elif typing.get_origin(hint) is not Literal:
        for argument in typing.get_args(hint):
            yield from numbers(argument)


FIELDS = [
    (name, field.name, typing.get_type_hints(kind_of(name), include_extras=True)[field.name])
    for name in COMPONENTS
    for field in dataclasses.fields(kind_of(name))
    if list(numbers(typing.get_type_hints(kind_of(name), include_extras=True)[field.name]))
    and field.name not in ("extra", "space", "objectives")
]

NASTY = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "negative": -1,
    "zero": 0,
    "huge": 10**12,
    "enormous": 1e300,
    "endless": 10**400,
    "true": True,
    "text": "3",
    "half": 1.5,
    "nested": [[1]],
    "mapping": {"a": 1},
}

ANY = "any finite number has its meaning here"
OFF = "0 switches it off"
NEUTRAL = "0 is neutral: plain GRPO, or no bonus"
EDGE = "0 is the end of the range, and means what it says"
ACCEPTED: dict[tuple[str, str], str] = {
    ("negative", "regularizer.entropy_bonus.coef"): "punishes entropy",
    ("negative", "controller.cosine.start"): ANY,
    ("negative", "controller.cosine.end"): ANY,
    ("negative", "controller.linear.start"): ANY,
    ("negative", "controller.linear.end"): ANY,
    ("negative", "controller.skywork.coef_min"): "the coefficient may punish entropy",
    ("negative", "weight.clip_cov.cov_low"): "covariances are negative too",
    ("negative", "weight.sign_balance.alpha"): "moves weight to negative advantages",
    ("negative", "advantage.pull"): "its sign chooses the temperature",
    ("negative", "advantage.side"): "its sign chooses",
}
"""(value, setting) -> why it is no mistake; zeros and fractions stand below, by their reason."""

ZEROS = {
    OFF: "accounting.every accounting.rows accounting.ledger_every accounting.ledger_rows accounting.rollouts_every "
    "evaluation.every optim.max_grad_norm tracking.samples search.collapse "
    "search.explosion search.retries launcher.max_timeouts launcher.gpus task.shots model.lora_rank surrogate.dropout",
    NEUTRAL: "advantage.alpha advantage.zeta advantage.side weight.sign_balance.alpha "
    "shaping.coef shaping.factor shaping.beta regularizer.aer.coef regularizer.calibrl.coef "
    "regularizer.dph.coef regularizer.entropy_bonus.coef regularizer.epo.coef regularizer.kl_reference.coef "
    "regularizer.kl_low_entropy.coef "
    "regularizer.lp_reg.coef regularizer.siren.coef surrogate.coef weight.clip_b.max_frac "
    "weight.clip_cov.frac weight.rand_pos_clip.frac "
    "advantage.pull surrogate.smoothing "
    "weight.advantage_reweighting.alpha "
    "shaping.historical shaping.batch shaping.strength shaping.weight "
    "rollout.branches",
    EDGE: "accounting.ledger_steps shaping.p advantage.eps advantage.positive advantage.negative "
    "controller.aer.target_frac "
    "controller.aer.target_entropy controller.entrocraft.target_entropy controller.entrocraft.target_entropy_end "
    "controller.entrocraft.width controller.entropic.target_entropy controller.entropic.proportional "
    "controller.entropic.integral controller.entropic.alpha_max controller.multiplicative.target_entropy "
    "controller.aer.gain "
    "controller.aer.start controller.cosine.start controller.cosine.end controller.cosine.from_frac "
    "controller.cosine.until_frac controller.linear.start controller.linear.end controller.linear.from_frac "
    "controller.linear.until_frac controller.par_entropy_guided.threshold controller.par_entropy_guided.step "
    "controller.par_stage.silent_frac controller.skywork.target_entropy controller.skywork.step "
    "controller.skywork.start controller.skywork.coef_min controller.skywork.coef_max evaluation.seed "
    "launcher.grace_s launcher.signal_lead_s optim.lr optim.warmup_steps optim.weight_decay regularizer.calibrl.slope "
    "regularizer.epo.smooth regularizer.epo.low regularizer.epo.gamma regularizer.epo.out_of_range "
    "regularizer.lp_reg.min_p regularizer.lp_reg.lowest_frac regularizer.siren.quantile search.sampler_seed "
    "search.confirm_noise search.seeds search.confirm_seeds optim.betas "
    "surrogate.beta_low surrogate.beta_high "
    "surrogate.delta surrogate.positive surrogate.negative weight.erc.low "
    "surrogate.quantile surrogate.clip surrogate.clip_entropic surrogate.low_start surrogate.balance "
    "surrogate.k_positive surrogate.lambda_positive surrogate.k_negative surrogate.lambda_negative "
    "regularizer.kl_low_entropy.quantile "
    "surrogate.clip_low surrogate.clip_high surrogate.top_frac surrogate.dead_zone "
    "task.problem_seed task.tolerance weight.geo_mask.low "
    "weight.clip_b.mu weight.clip_cov.cov_low weight.sign.positive weight.sign.negative weight.steer.floor "
    "controller.scope.target_entropy controller.scope.max_error "
    "controller.temperature_by_diversity.increment "
    "surrogate.penalty weight.lopti.threshold model.lora_dropout "
    "weight.steer.linear_low weight.steer.one_minus_pi_power",
}
ACCEPTED |= {("zero", key): reason for reason, keys in ZEROS.items() for key in keys.split()}
SEEDS = ("evaluation.seed", "task.problem_seed", "search.confirm_noise", "search.seeds", "search.confirm_seeds")
ACCEPTED |= {("huge", key): "any seed is as good as another" for key in SEEDS}


def key_of(name: str, field: str) -> str:
    return f"{name.partition(':')[0]}.{field}"


def refusal(name: str, field: str, value: object) -> str | None:
    """The sentence for one setting with this value, None where it is taken."""
    needs_path = name.startswith("task:") and "path" in {each.name for each in dataclasses.fields(kind_of(name))}
    node = {field: value} | ({"path": str(HERE)} if needs_path else {})
    node |= {"metric": "a"} if name == "search.objectives[0]" else {}
    try:
        filled(kind_of(name), node, name.partition(":")[0])
    except ConfigError as error:
        return str(error)
    return None


def test_there_is_something_to_look_at() -> None:
    assert len(COMPONENTS) > 45 and len(FIELDS) > 140
    groups = {name.partition(":")[0].partition(".")[0] for name in COMPONENTS}
    assert {"optim", "hardware", "tracking", "launcher", "search", "engine", "task", "evaluation"} <= groups


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, field, _ in FIELDS])
def test_a_number_that_is_none_is_refused_by_name_or_accepted_for_a_reason(name: str, field: str) -> None:
    hint, key = next(hint for *at, hint in FIELDS if at == [name, field]), key_of(name, field)
    several = (typing.get_origin(hint) not in (None, Annotated) and "Sequence" in str(hint)) or "tuple" in str(hint)
    fractional = float in set(numbers(hint))
    for what, value in NASTY.items():
        given = [value, value] if several else value
        said = refusal(name, field, given)
        if said is None and what == "half" and fractional:
            continue
        reason = ACCEPTED.get((what, key))
        assert (said is None) <= (reason is not None), f"{key}={value!r} passes in silence"
        if said is not None:
            assert "\n" not in said and key in said and "cannot be used: " in said, said


def test_no_reason_is_left_over() -> None:
    known = {key_of(name, field) for name, field, _ in FIELDS}
    assert {key for _, key in ACCEPTED} <= known
    for what, key in ACCEPTED:
        fits = [at for *at, hint in FIELDS if key_of(*at) == key]
        values = (NASTY[what], [NASTY[what]] * 2)
        assert any(refusal(*at, value) is None for at in fits for value in values), f"{what} {key} is refused now"


@dataclasses.dataclass(frozen=True)
class Sample:
    share: Annotated[float, Range(0, 1)] = 0.5
    size: Annotated[int, Range(1)] | None = None
    name: str = ""
    on: bool = False
    ks: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 0.0)
    which: Literal["left", "right", 0, 1] = "left"
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixed: float | int | str | bool | None = None
    seed: Seed = 0


@pytest.mark.parametrize(
    ("field", "value", "made"),
    [
        ("share", 1, 1.0),
        ("size", 3.0, 3),
        ("size", None, None),
        ("ks", [1, 2.0], (1, 2)),
        ("pair", [0, 1], (0.0, 1.0)),
        ("which", 1, 1),
        ("tags", {"a": "b"}, {"a": "b"}),
        ("mixed", True, True),
        ("mixed", 3, 3),
        ("mixed", "3", "3"),
        ("mixed", None, None),
        ("seed", 2**63 - 1, 2**63 - 1),
    ],
)
def test_what_fits_is_taken_without_guessing(field: str, value: object, made: object) -> None:
    taken = getattr(filled(Sample, {field: value}, "sample"), field)
    assert taken == made and type(taken) is type(made)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("share", 2, "sample.share=2 cannot be used: give a number, at least 0, at most 1"),
        ("size", 0, "sample.size=0 cannot be used: give a whole number, at least 1, or null"),
        ("size", 1.5, "sample.size=1.5 cannot be used: give a whole number, at least 1, or null"),
        (
            "name",
            7,
            "sample.name=7 cannot be used: give a text, which a number is in two kinds of quotes: sample.name='\"7\"'",
        ),
        ("name", None, "sample.name=None cannot be used: give a text"),
        ("on", "no", "sample.on='no' cannot be used: give true or false"),
        ("on", 1, "sample.on=1 cannot be used: give true or false"),
        ("ks", 4, "sample.ks=4 cannot be used: give a list, 'sample.ks=[4]'"),
        ("ks", [1, "a"], "sample.ks[1]='a' cannot be used: give a whole number"),
        ("pair", [1], "sample.pair=[1] cannot be used: 2 values are expected"),
        ("pair", [0.1, float("nan")], "sample.pair[1]=nan cannot be used: give a finite number"),
        ("which", "lft", "sample.which='lft' cannot be used: did you mean 'left'?"),
        ("which", True, "sample.which=True cannot be used: choose one of 0, 1, left, right"),
        ("tags", ["a"], "sample.tags=['a'] cannot be used: give a mapping, 'sample.tags={NAME: VALUE}'"),
        ("mixed", float("nan"), "sample.mixed=nan cannot be used: give a finite number, or null"),
        ("seed", 2**63, "sample.seed=9223372036854775808 cannot be used: give a whole number, at least 0"),
        ("sed", 1, "sample.sed is not a setting of Sample: did you mean 'seed'?"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_give(field: str, value: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        filled(Sample, {field: value}, "sample")
    assert str(refused.value) == sentence


def test_a_range_of_a_search_is_made_the_same_way() -> None:
    with pytest.raises(ConfigError, match=r"search\.space\.optim\.lr\.low=nan cannot be used: give a finite number"):
        parameters({"optim.lr": {"type": "float", "low": float("nan"), "high": 1}})
    assert filled(Parameter, {"key": "a", "type": "int", "low": 1, "high": 2}, "x").low == 1.0
    assert coerced(3.0, int, "a") == 3
