"""The cells of a study of claims: every arm of every claim, once, whatever number of claims shares it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.claims.claim import ClaimConfig
from sweeps.compose.compose import Composed
from sweeps.compose.explain import explained
from sweeps.compose.overrides import merged
from sweeps.grid.cells import Cell, ResolvedConfig, cell_of, require_valid, resolve_all
from sweeps.grid.levels import Level
from trainer.contract.identity import group_signature
from trainer.contract.settings import ConfigError

Resolver = Callable[[Sequence[Sequence[str]]], list[ResolvedConfig]]
"""The resolved configurations of a batch of overrides."""


def remembering(compose: Callable[[Sequence[Sequence[str]]], Iterable[Composed]]) -> Resolver:
    """A resolver that composes every line of overrides once, however many claims and looks ask for it."""
    known: dict[tuple[str, ...], ResolvedConfig] = {}

    def resolve(batch: Sequence[Sequence[str]]) -> list[ResolvedConfig]:
        new = list(dict.fromkeys(line for line in map(tuple, batch) if line not in known))
        known.update(zip(new, resolve_all(compose(new)), strict=True))
        return [known[tuple(line)] for line in batch]

    return resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """Cells of some claims, and which level each of their arms is."""

    cells: tuple[Cell, ...]
    """By claim, then arm, then seed."""
    documents: tuple[dict[str, Any], ...]
    """The claims as ``sweep.json`` lists them: arms are names of levels."""


def arms(
    claims: Sequence[ClaimConfig],
    shared: Sequence[str],
    seeds: Sequence[int],
    resolve: Resolver,
    levels: dict[str, Level] | None = None,
) -> Arms:
    """Compose all arms of ``claims`` with the overrides ``shared``. Raises :class:`ConfigError` naming the claim.

    ``levels`` are those of the same sweep so far, by configuration, and new ones are added: an arm that claims share
    has one name, also where they have different seeds.
    """
    levels = {} if levels is None else levels
    cells: dict[str, Cell] = {}
    documents = []
    for claim in claims:
        named = {}
        for arm in claim.arms:
            level, found = _arm(claim, arm, shared, seeds, resolve, levels)
            named[arm] = level.name
            cells |= {cell.signature: cell for cell in found if cell.signature not in cells}
        if len(set(named.values())) < len(named):
            raise ConfigError(f"claim {claim.number}: two of its arms are the same run ({', '.join(named)})")
        documents.append(document(claim, named))
    return Arms(cells=tuple(cells.values()), documents=tuple(documents))


def _arm(
    claim: ClaimConfig,
    arm: str,
    shared: Sequence[str],
    seeds: Sequence[int],
    resolve: Resolver,
    levels: dict[str, Level],
) -> tuple[Level, list[Cell]]:
    """The level of an arm and its cells; a configuration that an earlier arm had is that arm's level."""
    words = claim.arms[arm]
    batch = [[*merged([*words, *shared]), f"seed={seed}"] for seed in seeds]
    try:
        with explained(batch[0]):
            made = resolve(batch)
        require_valid([member.config for member in made])
    except ConfigError as error:
        raise ConfigError(
            "\n".join(f"claim {claim.number}, {arm}: {line}" for line in str(error).splitlines())
        ) from error
    name = ", ".join(words) or "default"
    bare = cell_of(made[0], Level(name=name, label=name, index=len(levels)))
    level = levels.setdefault(group_signature(bare.config), bare.level)
    return level, [cell_of(member, level) for member in made]


def document(claim: ClaimConfig, arms: dict[str, str]) -> dict[str, Any]:
    """A claim as ``sweep.json`` lists it."""
    return {
        "number": claim.number,
        "statement": claim.statement,
        "source": claim.source,
        "caveat": claim.caveat,
        "arms": arms,
        "tests": [dict(test) for test in claim.tests],
    }


def cheapest_first(claims: Sequence[ClaimConfig], costs: Mapping[int, Mapping[str, float]]) -> list[ClaimConfig]:
    """The claims in an order in which each next one adds the least to what has been run.

    ``costs``: claim -> level of each of its arms -> cost of a run.
    """
    left, done, ordered = list(claims), set[str](), list[ClaimConfig]()
    while left:
        best = min(left, key=lambda claim: (_added(costs[claim.number], done), claim.number))
        left.remove(best)
        ordered.append(best)
        done |= set(costs[best.number])
    return ordered


def _added(costs: Mapping[str, float], done: set[str]) -> float:
    return sum(cost for level, cost in costs.items() if level not in done)


def cost(cell: Cell) -> float:
    """What a run costs, in response tokens times passes over them: sampled once, and learned from in every epoch."""
    rollout, optim = cell.config["rollout"], cell.config["optim"]
    tokens = rollout["prompts_per_step"] * rollout["group_size"] * rollout["max_tokens"]
    return float(cell.config["steps"] * tokens * (1 + optim["epochs"]))
