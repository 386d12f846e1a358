"""The settings of a search: the ``search`` group of the configuration, checked without importing Optuna."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from sweeps.search.space import Parameter, parameters
from trainer.contract.settings import ConfigError, Range, Seed, filled, nearest, require

DIRECTIONS = ("maximize", "minimize")
SAMPLERS = ("tpe", "nsga2", "gp", "random")
SINGLE_ONLY = ("gp",)
"""Samplers that model one objective here: their speed and quality with several was not examined."""
PRUNERS = ("median", "successive_halving", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchObjective:
    """A metric that the search maximizes or minimizes."""

    metric: str
    """A metric of ``metrics.jsonl``."""
    direction: str = "maximize"
    label: str = ""
    """The name to display; the metric's name if empty."""
    last: Annotated[int, Range(1)] = 1
    """Number of values at the end of a run that are averaged."""

    @property
    def sign(self) -> int:
        """1 if larger is better, -1 if smaller is."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The settings of ``search=NAME``; every one is overridden by ``search.KEY=VALUE``."""

    n_trials: Annotated[int, Range(1, 10**6)] = 30
    """Trials in all, over every restart; those that failed or were pruned count."""
    objectives: Sequence[Mapping[str, Any]] = ()
    """One or several of ``{metric, direction, label, last}``."""
    space: Mapping[str, Any] = field(default_factory=dict)
    """Configuration key -> ``{type: float|int|categorical, low, high, log, step, choices, when}``."""
    fixed: Sequence[str] = ()
    """Overrides that every run of the search has; those of the command line win over them."""
    baseline: Sequence[str] = ()
    """Further overrides of the untuned default that the best is compared with; empty: what the space varies stays as it
    is."""
    measure: Sequence[str] = ("evaluation.every=10", "evaluation.suites=[heldout]")
    """Overrides of the evaluation; not part of the configuration that is tuned."""
    seeds: Sequence[Seed] = (0, 1, 2)
    """The same for every trial, so that trials are paired; the sampler never sees them."""
    rungs: Sequence[Annotated[int, Range(1)]] = (1, 3)
    """Seeds of a trial at each rung: with fewer at first, with more once it was promoted. The last is all of them."""
    reduction: Annotated[int, Range(2)] = 3
    """A trial is promoted if it is among the best 1/``reduction`` of the trials that have reached its rung."""
    sampler: str = "tpe"
    """tpe, nsga2, gp or random."""
    sampler_seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    startup_trials: Annotated[int, Range(1)] = 10
    """Trials drawn at random before the sampler learns (tpe, gp); members of a generation (nsga2)."""
    pruner: str = "median"
    """median, successive_halving or none. For one objective only; the two rules below hold for any number."""
    prune_metric: str | None = None
    """What a pruner compares between trials; null: the objective. Its direction is that of the objective."""
    prune_after: Annotated[int, Range(1)] = 1
    """First step whose value a pruner looks at."""
    prune_startup: Annotated[int, Range(1)] = 5
    """Trials that have to end before the median prunes."""
    collapse: Annotated[float, Range(0, 1)] = 0.1
    """A run whose entropy stays below this share of its first is stopped; 0: never."""
    explosion: Annotated[float, Range(0)] = 4.0
    """A run whose entropy stays above this multiple of its first is stopped; 0: never."""
    patience: Annotated[int, Range(1)] = 3
    """Recorded steps in a row that make a collapse or an explosion."""
    confirm_seeds: Sequence[Seed] = (100, 101, 102, 103, 104)
    """Fresh seeds on which the best is compared with the untuned default; empty: no comparison."""
    confirm_suites: Sequence[str] = ("ood",)
    """Suites that no objective looks at, examined in that comparison only."""
    confirm_noise: Seed = 1
    """``evaluation.seed`` of that comparison: an RNG stream that the search has not seen."""
    preset: bool = True
    """Write the best as ``conf/method/tuned/NAME.yaml`` too, unless something else stands there."""
    storage: str | None = None
    """Any Optuna storage URL, or the path of a journal file; null: ``study.journal`` in the folder of the search."""
    retries: Annotated[int, Range(0, 1000)] = 1
    """How often a trial that failed, or whose job was killed, is resumed from its last checkpoint."""
    max_failed: Annotated[int, Range(1)] = 5
    """The search stops when this many trials in a row have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The checked settings, with objectives and space as objects."""

    search: Search
    objectives: tuple[SearchObjective, ...]
    space: tuple[Parameter, ...]

    @property
    def several(self) -> bool:
        """Whether there is more than one objective."""
        return len(self.objectives) > 1

    @property
    def directions(self) -> list[Any]:
        """Directions of the objectives for Optuna."""
        return [objective.direction for objective in self.objectives]

    def plain(self) -> dict[str, Any]:
        """The settings as plain data, stored in the Optuna study and read by reports."""
        values = self.search
        return {
            "objectives": [
                {"metric": o.metric, "direction": o.direction, "label": o.label or o.metric, "last": o.last}
                for o in self.objectives
            ],
            "space": {parameter.key: parameter.plain() for parameter in self.space},
            "seeds": list(values.seeds),
            "rungs": list(values.rungs),
            "reduction": values.reduction,
            "sampler": values.sampler,
            "pruner": "none" if self.several else values.pruner,
            "prune_metric": values.prune_metric,
            "collapse": values.collapse,
            "explosion": values.explosion,
            "n_trials": values.n_trials,
            "confirm": {
                "seeds": list(values.confirm_seeds),
                "suites": list(values.confirm_suites),
                "noise": values.confirm_noise,
            },
            "storage": values.storage,
        }


def settings(node: Mapping[str, Any]) -> Settings:
    """The ``search`` node of a resolved configuration, checked. Raises :class:`ConfigError`."""
    chosen = filled(Search, {key: value for key, value in node.items() if key != "_target_"}, "search")
    require(chosen.sampler in SAMPLERS, "search.sampler", chosen.sampler, nearest(chosen.sampler, SAMPLERS))
    require(chosen.pruner in PRUNERS, "search.pruner", chosen.pruner, nearest(chosen.pruner, PRUNERS))
    _check_seeds(chosen)
    checked = Settings(search=chosen, objectives=_objectives(chosen), space=parameters(chosen.space))
    if checked.several and chosen.sampler in SINGLE_ONLY:
        raise ConfigError(
            f"search.sampler={chosen.sampler} takes one objective, and search.objectives has "
            f"{len(checked.objectives)}: choose search.sampler=tpe or search.sampler=nsga2, or leave one objective"
        )
    _check_suites(checked)
    return checked


def _objectives(search: Search) -> tuple[SearchObjective, ...]:
    remedy = "list at least one {metric: NAME, direction: maximize}"
    require(bool(search.objectives), "search.objectives", search.objectives, remedy)
    parsed = tuple(filled(SearchObjective, node, f"search.objectives[{i}]") for i, node in enumerate(search.objectives))
    for number, objective in enumerate(parsed):
        direction = objective.direction
        where = f"search.objectives[{number}].direction"
        require(direction in DIRECTIONS, where, direction, "choose maximize or minimize")
    metrics = [objective.metric for objective in parsed]
    require(len(set(metrics)) == len(metrics), "search.objectives", metrics, "name each metric once")
    return parsed


def _check_seeds(search: Search) -> None:
    for key, least in (("seeds", 1), ("confirm_seeds", 0)):
        value = getattr(search, key)
        different = len(set(value)) == len(value) >= least
        require(different, f"search.{key}", list(value), f"give at least {least} seeds, each once")
    overlap = sorted(set(search.seeds) & set(search.confirm_seeds))
    remedy = f"the search itself uses {overlap}: give fresh ones"
    require(not overlap, "search.confirm_seeds", list(search.confirm_seeds), remedy)
    rungs = list(search.rungs)
    require(
        bool(rungs) and rungs == sorted(set(rungs)) and rungs[-1] == len(search.seeds),
        "search.rungs",
        rungs,
        f"give rising numbers of seeds, the last of them all {len(search.seeds)} of search.seeds",
    )


def suites_of(objectives: Sequence[SearchObjective]) -> list[str]:
    """Evaluation suites that occur in the objectives."""
    suites = [match[1] for o in objectives if (match := re.match(r"eval/([^/]+)/", o.metric))]
    return list(dict.fromkeys(suites))


def _check_suites(settings: Settings) -> None:
    overlap = sorted(set(suites_of(settings.objectives)) & set(settings.search.confirm_suites))
    require(
        not overlap,
        "search.confirm_suites",
        list(settings.search.confirm_suites),
        f"the search looks at {', '.join(overlap)} itself: give suites that no objective names",
    )
