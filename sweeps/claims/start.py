"""``python sweep.py -m study=claims``: composes the arms of the claims, runs them as one sweep, and has them judged.

Everything is checked before anything is queued. What has been run is not run again, so the same command goes on.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweeps.after.results import check_claims, undecided
from sweeps.claims.arms import Arms, Resolver, arms, cheapest_first, cost, remembering
from sweeps.claims.claim import ClaimConfig, chosen_claims, load_claims
from sweeps.claims.looks import look_levels
from sweeps.claims.request import DECIDED, Asked, asked
from sweeps.compose.compose import batch_composer
from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Sweep, name_of
from sweeps.launch import Request, exit_code_of, hours_allowed, run_sweep
from sweeps.plan.estimate import Estimate, estimate
from sweeps.plan.plan import duration
from sweeps.plan.reconcile import reconcile
from sweeps.queues.base import open_queue
from sweeps.tracking import absolute
from trainer.contract.settings import ConfigError

DEFAULTS = ("claims", "testbed", "until", "hours", "seeds", "looks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study of claims that has been checked."""

    claims: tuple[ClaimConfig, ...]
    asked: Asked
    resolve: Resolver

    def arms(self, claims: Sequence[ClaimConfig], seeds: Sequence[int], levels: dict[str, Level] | None = None) -> Arms:
        """The cells of some of the claims."""
        shared = [*([f"study={self.asked.testbed}"] if self.asked.testbed else []), *self.asked.words]
        return arms(claims, shared, seeds, self.resolve, levels)

    def sweep(self, parts: Sequence[tuple[ClaimConfig, Sequence[int], dict[str, Any]]]) -> Sweep:
        """One sweep of claims, each with its own seeds and with what its document says besides."""
        cells: dict[str, Cell] = {}
        documents: list[dict[str, Any]] = []
        levels: dict[str, Level] = {}
        for seeds in dict.fromkeys(tuple(seeds) for _, seeds, _ in parts):
            of_seeds = [(claim, more) for claim, chosen, more in parts if tuple(chosen) == seeds]
            made = self.arms([claim for claim, _ in of_seeds], seeds, levels)
            cells |= {cell.signature: cell for cell in made.cells}
            documents += [
                {**document, "seeds": list(seeds), **more}
                for document, (_, more) in zip(made.documents, of_seeds, strict=True)
            ]
        name = "claims" + (f"-{self.asked.testbed}" if self.asked.testbed else "")
        return Sweep(
            name=name_of(name, self.asked.words),
            command=shlex.join(["python", "sweep.py", *sys.argv[1:]]),
            output=Path(next(iter(cells.values())).config["output"]),
            cells=tuple(cells.values()),
            claims=tuple(documents),
        )


def start(loader: Any, master: DictConfig, arguments: Sequence[str]) -> int:
    """Run the study; the exit code: 0, 1 if a run failed, 2 after an error message, 130 after Ctrl-C."""

    def run() -> int:
        study = build(loader, master, arguments)
        request = Request(
            multirun=True,
            plan=bool(master["plan"]),
            retry=master["retry"],
            max_hours=hours_allowed({"max_hours": master["max_hours"], "yes": master["yes"]}),
        )
        if study.asked.until == DECIDED and not request.plan:
            return _in_looks(study, request)
        print(order_text(study))
        return run_sweep(study.sweep([(claim, study.asked.seeds, {}) for claim in study.claims]), request)

    return exit_code_of(run)


def build(loader: Any, master: DictConfig, arguments: Sequence[str]) -> Study:
    """The study that the words ask for, its claims cheapest first. Raises :class:`ConfigError`."""
    defaults = {key: OmegaConf.to_container(master)[key] for key in DEFAULTS}  # type: ignore[index, call-overload]
    wanted = asked(arguments, defaults)
    claims = chosen_claims(load_claims(wanted.testbed), wanted.numbers)
    study = Study(claims=tuple(claims), asked=wanted, resolve=remembering(batch_composer(loader, master)))
    made = study.arms(claims, study.asked.seeds[:1])
    check_claims(made.documents)
    by_level = {cell.level.name: cost(cell) for cell in made.cells}
    costs = {item["number"]: {level: by_level[level] for level in item["arms"].values()} for item in made.documents}
    ordered = cheapest_first(claims, costs)
    study = Study(claims=tuple(ordered), asked=wanted, resolve=study.resolve)
    return study if wanted.hours is None else _within_hours(study, wanted.hours)


def order_text(study: Study) -> str:
    """The claims in their order, each with the runs that it adds."""
    lines, before = [], set[str]()
    for claim in study.claims:
        cells = {cell.signature for cell in study.arms([claim], study.asked.seeds).cells}
        lines.append(f"claim {claim.number:>2}  {len(cells - before):>3} runs more  {claim.statement}")
        before |= cells
    return "\n".join(lines)


def _within_hours(study: Study, hours: float) -> Study:
    """The first claims of the order whose missing runs take at most so many job hours, by earlier runs."""
    low, high = 0, len(study.claims)
    while low < high:  # the time grows with every claim
        middle = (low + high + 1) // 2
        expected = _estimate(study, study.claims[:middle])
        if expected is None:
            raise ConfigError(f"hours={hours:g} needs earlier runs to estimate from: run one claim first (claims=21)")
        low, high = (middle, high) if expected.device_s <= 3600 * hours else (low, middle - 1)
    if low == 0:
        first = _estimate(study, study.claims[:1])
        time = duration(first.device_s) if first else ""
        raise ConfigError(f"hours={hours:g} is less than the cheapest claim takes, about {time} of jobs: give more")
    return Study(claims=study.claims[:low], asked=study.asked, resolve=study.resolve)


def _estimate(study: Study, claims: Sequence[ClaimConfig]) -> Estimate | None:
    sweep = study.sweep([(claim, study.asked.seeds, {}) for claim in claims])
    decisions = reconcile([sweep.run_dir(cell) for cell in sweep.cells], None, False)
    if not any(decision.to_queue for decision in decisions):
        return Estimate(wall_s=0.0, device_s=0.0)
    queue = open_queue(sweep.cells[0].config["launcher"], [cell.config for cell in sweep.cells])
    return estimate(sweep, decisions, queue)


def _in_looks(study: Study, request: Request) -> int:
    """Add seeds look by look for the claims that are not decided, each look at the level that it may spend.

    A decided claim keeps the seeds and the level of its look: more seeds for an arm that it shares change nothing.
    """
    first, code = study.asked.seeds[0], 0
    settled: dict[int, tuple[ClaimConfig, Sequence[int], dict[str, Any]]] = {}
    open_claims = list(study.claims)
    for number, (count, level) in enumerate(
        zip(study.asked.looks, look_levels(study.asked.looks), strict=True), start=1
    ):
        seeds = tuple(range(first, first + count))
        look = {"look": f"{number} of {len(study.asked.looks)}", "alpha": round(level, 6)}
        parts = [*settled.values(), *((claim, seeds, look) for claim in open_claims)]
        print(
            f"look {number} of {len(study.asked.looks)}: {count} seeds, {len(open_claims)} claims at level {level:.4f}"
        )
        sweep = study.sweep(parts)
        uri = absolute(sweep.cells[0].config["tracking"]["uri"])
        if uri is None:
            raise ConfigError("until=decided needs MLflow to judge from: leave tracking=none out")
        ended = run_sweep(sweep, request)
        if ended not in (0, 1):
            return ended
        code = max(code, ended)
        left = set(undecided(sweep, uri))
        settled |= {claim.number: (claim, seeds, look) for claim in open_claims if claim.number not in left}
        open_claims = [claim for claim in open_claims if claim.number in left]
        if not open_claims:
            break
    return code
