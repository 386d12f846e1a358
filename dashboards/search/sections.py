"""The sections of a search's report: which figures, in which order, with which captions.

A section without a figure says why there is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go

from dashboards.page.page import Panel, Section
from dashboards.page.sections_behaviour import without_gap
from dashboards.search.confirm import Confirmation
from dashboards.search.figures import effects, history, importance_bars, intermediate, short_name, timeline
from dashboards.search.figures_space import MAX_LINES, contour, numeric, parallel, pareto, slice_plot
from dashboards.search.load import COMPLETE, SearchData
from dashboards.search.outcome import Importance, importances, parameters, saving

MAX_SLICES = 18
"""If slices for all objectives would be more than this, they are drawn for the first objective only."""

SAVING = (
    "Steps saved are the sum over pruned trials of (planned \u2212 run); time saved is the sum over pruned trials of "
    "(planned \u2212 run) \u00d7 seconds a step, at the trial's own pace (its busy seconds over its steps)"
    " or, where it has none, at that of all trials together. "
    "Planned are all steps of all seeds, so a trial that was not promoted to more seeds counts too."
)
_EFFECTS_NOTE = (
    "Same-seed differences, tuned minus untuned, with 95 % t intervals over seeds that the search never used. Circles "
    "are objectives, squares the suites it never looked at. Green: better beyond doubt at 95 %; red: worse; grey: "
    "undecided."
)


def search_sections(search: SearchData, confirmation: Confirmation) -> list[Section]:
    """Every section with figures or a sentence in their place, in reading order."""
    all_importances = [importances(search, position) for position in range(len(search.objectives))]
    sections = [
        _confirmation(search, confirmation),
        _history(search),
        *([] if search.single else [_front(search)]),
        _importances(search, all_importances),
        _slices(search),
        _parallel(search, all_importances),
        _intermediate(search),
        _timeline(search),
    ]
    return [without_gap(section) if section.panels else section for section in sections]


def _panels(candidates: Sequence[tuple[go.Figure | None, str, bool]]) -> list[Panel]:
    return [
        Panel(figure=figure, caption=caption, wide=wide) for figure, caption, wide in candidates if figure is not None
    ]


def _confirmation(search: SearchData, confirmation: Confirmation) -> Section:
    title = "Confirmation on fresh seeds"
    if not confirmation.comparisons:
        return Section(id="confirm", title=title, intro=confirmation.missing)
    figure = effects(confirmation.comparisons, "Tuned against untuned")
    intro = (
        "A search keeps the luckiest of its trials, so the value it reports for the best is too good. Here the "
        "best one meets the untuned default again, on seeds that the search never used"
        + (" and on suites it never looked at." if any(item.unseen for item in confirmation.comparisons) else ".")
    )
    return Section(id="confirm", title=title, intro=intro, panels=_panels([(figure, _EFFECTS_NOTE, True)]))


def _history(search: SearchData) -> Section:
    if not search.trials:
        return Section(id="history", title="History", intro="No trial has been started yet.")
    note = (
        "The mean over the trial's seeds. A pruned trial shows the value it had reached, which is not comparable with "
        "those of complete ones; trials without a value stand at the bottom."
    )
    several = len(search.objectives) > 1
    candidates = [
        (history(search, position), "" if position else note, not several) for position in range(len(search.objectives))
    ]
    return Section(id="history", title="History", panels=_panels(candidates))


def _front(search: SearchData) -> Section:
    title = "Pareto front"
    if not any(trial.values for trial in search.complete):
        return Section(id="front", title=title, intro="No trial has completed: there is no front yet.")
    intro = (
        "Stars are trials that no other one beats in every objective at once; in a pair of several objectives a star "
        "may look beaten, and is not in a third."
    )
    pairs = itertools.combinations(range(len(search.objectives)), 2)
    return Section(
        id="front", title=title, intro=intro, panels=_panels([(pareto(search, pair), "", False) for pair in pairs])
    )


def _importances(search: SearchData, by_objective: Sequence[tuple[list[Importance], str]]) -> Section:
    keys, candidates, sentences = parameters(search), [], []
    for position, ((shares, why), objective) in enumerate(zip(by_objective, search.objectives, strict=True)):
        if not shares:
            sentences.append(why if search.single else f"{objective.label}: {why}")
            continue
        candidates.append((importance_bars(shares, keys, objective.label), "", False))
        pair = numeric(search, [item.parameter for item in shares])[:2]
        candidates.append((contour(search, position, pair, keys), "", False))
    intro = " ".join(dict.fromkeys(sentences))
    if candidates:
        intro = (
            "Which parameters separate good trials from the rest: Optuna's PED-ANOVA, shares that add up to 1, from "
            f"{len(search.complete)} completed trials. The sampler favours good regions, and few trials say little. "
            + intro
        ).strip()
    return Section(id="importances", title="What mattered", intro=intro, panels=_panels(candidates))


def _slices(search: SearchData) -> Section:
    keys = parameters(search)
    positions = range(len(search.objectives)) if len(keys) * len(search.objectives) <= MAX_SLICES else range(1)
    candidates = [(slice_plot(search, key, position, keys), "", False) for key in keys for position in positions]
    panels = _panels(candidates)
    intro = (
        "Completed trials, later ones darker; stars are the best. What else varied between the trials varies here too."
        if panels
        else "No trial has completed: there are no slices yet."
    )
    return Section(id="slices", title="One parameter at a time", intro=intro, panels=panels)


def _parallel(search: SearchData, by_objective: Sequence[tuple[list[Importance], str]]) -> Section:
    title, keys = "All parameters together", parameters(search)
    figure = parallel(search, keys)
    if figure is None:
        return Section(
            id="parallel", title=title, intro="Fewer than two completed trials: there is nothing to compare."
        )
    note = f"A line a trial, yellow (worst) to dark violet (best) by {search.objectives[0].label}; the best are thick."
    if len(search.complete) > MAX_LINES:
        note += f" The best {MAX_LINES} of {len(search.complete)} trials."
    return Section(id="parallel", title=title, panels=_panels([(figure, note, True)]))


def _intermediate(search: SearchData) -> Section:
    title = "Pruning"
    figure, saved = intermediate(search), saving(search)
    if figure is None:
        sentence = "No trial reported a value while it trained" + (
            "." if search.single else ": with several objectives Optuna does not prune by value."
        )
        return Section(id="pruning", title=title, intro=f"{sentence} {SAVING}" if saved.pruned else sentence)
    note = "A cross ends a pruned trial; the thick line is the best one. First seed of every trial."
    return Section(id="pruning", title=title, intro=SAVING, panels=_panels([(figure, note, True)]))


def _timeline(search: SearchData) -> Section:
    figure = timeline(search)
    if figure is None:
        return Section(id="timeline", title="When the trials ran", intro="No trial has been started yet.")
    note = f"{len(search.of_state(COMPLETE))} of {search.n_trials} trials completed."
    return Section(id="timeline", title="When the trials ran", panels=_panels([(figure, note, True)]))


def parameter_columns(search: SearchData) -> list[tuple[str, str]]:
    """(key, short name) of every parameter."""
    keys = parameters(search)
    return [(key, short_name(key, keys)) for key in keys]
