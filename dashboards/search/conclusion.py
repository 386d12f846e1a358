"""The conclusion of a search at the top of its report: a badge and a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dashboards.search.confirm import Confirmation, TunedComparison
from dashboards.search.load import SearchData
from dashboards.search.outcome import front
from dashboards.statistics.format import interval_text, number, p_text, signed
from dashboards.statistics.intervals import holm
from dashboards.sweep.hypothesis import MIN_SEEDS, SIGNIFICANT


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The head of the page."""

    badge: str
    style: str
    """supported, contradicted or inconclusive: the CSS class."""
    sentence: str


def conclude(search: SearchData, confirmation: Confirmation) -> Conclusion:
    """One sentence: tuned against untuned where that was measured, else what the search reports so far."""
    if not search.complete:
        return Conclusion(badge="No result", style="inconclusive", sentence="No trial has completed with a value.")
    measured = [item for item in confirmation.comparisons if item.effect.difference.count]
    if not measured:
        return Conclusion(badge="Unconfirmed", style="inconclusive", sentence=_unconfirmed(search))
    if search.single:
        return _single(measured)
    return _several(measured)


def _unconfirmed(search: SearchData) -> str:
    best = front(search)
    if not search.single:
        return f"{len(best)} trials are on the Pareto front; none has been measured again on fresh seeds."
    if not best:
        return "No completed trial has a finite value."
    objective, trial = search.objectives[0], best[0]
    return (
        f"Trial {trial.number} reported {objective.label} {number(trial.values[0])}, the best of "
        f"{len(search.complete)}. It was chosen for that number, which is therefore too good until fresh seeds "
        "confirm it."
    )


def _single(items: list[TunedComparison]) -> Conclusion:
    """The conclusion for one objective; unseen suites are added to its sentence."""
    item = next((item for item in items if not item.unseen), items[0])
    difference = item.effect.difference
    sentence = (
        f"On fresh seeds {item.objective.label} is {number(item.tuned.mean)} tuned against {number(item.untuned.mean)} "
        f"untuned: a paired difference of {_difference(item)}."
    )
    if not math.isnan(item.reported):
        sentence += f" The search had reported {number(item.reported)}."
    for other in items:
        if other.unseen and other is not item:
            sentence += (
                f" On {other.objective.label}, which it never looked at, the difference is {_difference(other)}."
            )
    if difference.count < MIN_SEEDS:
        badge = f"Too few seeds ({difference.count} of {MIN_SEEDS})"
        return Conclusion(badge=badge, style="inconclusive", sentence=f"{sentence} So few seeds are no evidence.")
    badge, style = {
        True: ("Tuned is better", "supported"),
        False: ("Tuned is worse", "contradicted"),
        None: ("No clear difference", "inconclusive"),
    }[item.better]
    return Conclusion(badge=badge, style=style, sentence=sentence)


def _difference(item: TunedComparison) -> str:
    difference = item.effect.difference
    inside = f"{difference.count} fresh {'seed' if difference.count == 1 else 'seeds'}"
    if difference.count > 1:
        interval = f"95\u00a0% interval {interval_text(difference, sign=True)}"
        inside = f"{interval}, {inside}, {p_text(item.effect.p_value)}"
    return f"{signed(difference.mean)} ({inside})"


def _several(items: list[TunedComparison]) -> Conclusion:
    """The conclusion for several objectives: numbers of comparisons that are better and worse, Holm-corrected."""
    adjusted = holm([item.effect.p_value for item in items])
    decided = zip(items, adjusted, strict=True)
    certain = [item for item, p_value in decided if p_value <= SIGNIFICANT and item.better is not None]
    better = sum(item.better is True for item in certain)
    worse = sum(item.better is False for item in certain)
    levels = len({item.level for item in items})
    fewest = min(item.effect.difference.count for item in items)
    undecided = len(items) - better - worse
    sentence = (
        f"{levels} {'member' if levels == 1 else 'members'} of the Pareto front met the untuned default on fresh "
        f"seeds: of {len(items)} comparisons {better} are better, {worse} worse and {undecided} undecided "
        "(paired t tests, Holm-corrected together, 5 %)."
    )
    if fewest < MIN_SEEDS and not certain:
        badge = f"Too few seeds ({fewest} of {MIN_SEEDS})"
        return Conclusion(badge=badge, style="inconclusive", sentence=sentence)
    if better and not worse:
        return Conclusion(badge="Tuned is better", style="supported", sentence=sentence)
    if worse and not better:
        return Conclusion(badge="Tuned is worse", style="contradicted", sentence=sentence)
    return Conclusion(badge="A trade-off" if better else "No clear difference", style="inconclusive", sentence=sentence)
