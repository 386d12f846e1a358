"""Loads a search from its folder and its Optuna storage: settings, trials, and the name of its confirmation sweep.

It writes to neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from dashboards.sweep.glossary import GLOSSARY_FILE, Glossary, parse_glossary
from dashboards.sweep.names import label_of

COMPLETE, PRUNED, FAILED, RUNNING, WAITING = "COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"
JOURNAL = "study.journal"
MAX_FRONT_MEMBERS = 4
"""Most trials of a Pareto front that are confirmed, and shown as results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizedMetric:
    """A metric that the search maximizes or minimizes."""

    metric: str
    maximize: bool
    label: str
    last: int = 1
    """Number of values at the end of a run that are averaged."""
    unit: str = ""

    @property
    def sign(self) -> int:
        """+1 if larger is better, -1 if smaller is."""
        return 1 if self.maximize else -1

    @property
    def axis(self) -> str:
        """Axis title: label with the metric's unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of the search."""

    number: int
    state: str
    values: tuple[float, ...]
    """By objective, mean over seeds; of a trial that did not complete, over what it has; empty without any."""
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    overrides: tuple[str, ...]
    cells: tuple[Mapping[str, Any], ...]
    """Its runs: ``seed``, ``rung`` and ``run`` (signature) each."""
    seed_values: Mapping[int, tuple[float, ...]]
    reason: str
    steps_run: int
    steps_planned: int
    seconds: float
    """Seconds that its runs spent in steps and evaluations."""
    reused: int
    """Number of its runs that were complete before the trial began."""
    intermediate: Mapping[int, float]
    """Reported value by training step."""
    begun: datetime | None
    ended: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchData:
    """A search with all its trials, at the time of reading."""

    name: str
    folder: Path
    objectives: tuple[OptimizedMetric, ...]
    trials: tuple[TrialRecord, ...]
    settings: Mapping[str, Any]
    """The resolved search: sampler, pruner, seeds, rungs, confirmation and so on, as plain data."""
    baseline: tuple[str, ...] = ()
    """Overrides of the untuned default."""
    command: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)
    storage: str = ""
    """Storage URL or path, for optuna-dashboard."""
    confirm_sweep: str | None = None
    confirm_levels: Mapping[str, int | None] = field(default_factory=dict)
    """Level of the confirmation to the trial it repeats; None is the untuned default."""
    glossary: Glossary = field(default_factory=Glossary)
    """Definitions of the metrics, from the first run that logged them."""
    frozen: Sequence[FrozenTrial] = ()
    """The trials as Optuna knows them, for Optuna's own evaluators and plots."""

    @property
    def single(self) -> bool:
        """Whether there is one objective, and so a best trial instead of a front."""
        return len(self.objectives) == 1

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Completed trials, in order."""
        return self.of_state(COMPLETE)

    @property
    def n_trials(self) -> int:
        """Trials asked for in total."""
        return int(self.settings.get("n_trials") or len(self.trials))

    def of_state(self, state: str) -> tuple[TrialRecord, ...]:
        """Trials of one state, in order."""
        return tuple(trial for trial in self.trials if trial.state == state)

    def trial(self, number: int) -> TrialRecord | None:
        """The trial of that number."""
        return next((trial for trial in self.trials if trial.number == number), None)


def load_search(folder: Path) -> SearchData:
    """The search whose sweep folder this is.

    Raises ValueError in one sentence when there is no study, or the storage cannot be read.
    """
    document = read_document(folder)
    settings = document.get("search") or {}
    where = storage_of(folder, settings)
    study = open_study(folder, where)
    attributes = study.user_attrs
    settings = attributes.get("search") or settings
    trials = study.get_trials(deepcopy=False)
    levels = attributes.get("confirm_levels") or {}
    trials_read = tuple(_trial(trial) for trial in trials)
    glossary = _glossary(folder.parent.parent / "runs", trials_read)
    return SearchData(
        name=folder.name,
        folder=folder,
        settings=settings,
        objectives=_objectives(study, settings, glossary),
        glossary=glossary,
        trials=trials_read,
        frozen=tuple(trials),
        baseline=tuple(attributes.get("baseline") or ()),
        command=str(attributes.get("command") or document.get("command") or ""),
        origin={str(key): str(value) for key, value in (attributes.get("origin") or {}).items()},
        storage=where,
        confirm_sweep=attributes.get("confirm_sweep"),
        confirm_levels={str(level): number for level, number in levels.items()},
    )


def _glossary(runs: Path, trials: Sequence[TrialRecord]) -> Glossary:
    """That of the first run folder that has one; empty where none does."""
    for cell in (cell for trial in trials for cell in trial.cells):
        path = runs / str(cell.get("run")) / GLOSSARY_FILE
        if path.is_file():
            return parse_glossary(path.read_text(encoding="utf-8"), str(path.parent))
    return Glossary()


def read_document(folder: Path) -> dict[str, Any]:
    """The folder's ``sweep.json``; empty where there is none."""
    try:
        document = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'sweep.json'} is not valid JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def storage_of(folder: Path, settings: Mapping[str, Any]) -> str:
    """URL of the storage, or path of the journal file: in the folder, unless the settings name another."""
    journal, stated = folder / JOURNAL, str(settings.get("storage") or "")
    return stated if "://" in stated or (stated and not journal.exists()) else str(journal)


def open_study(folder: Path, where: str) -> optuna.Study:
    """The study of that folder's name from the storage at ``where``, a URL or a journal's path. Creates nothing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in where and not Path(where).is_file():
        raise ValueError(f"there is no study at {where}: {folder} is not the folder of a search, or nothing has begun")
    location = where.rpartition("@")[2]  # without user and password
    try:
        storage = where if "://" in where else JournalStorage(JournalFileBackend(where))
        return optuna.load_study(study_name=folder.name, storage=storage)
    except KeyError as error:
        raise ValueError(f"{location} holds no study named {folder.name!r}") from error
    except Exception as error:  # the boundary: drivers of databases raise whatever they like
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"the study {folder.name!r} cannot be read from {location}: {reason}") from error


def _objectives(study: optuna.Study, settings: Mapping[str, Any], glossary: Glossary) -> tuple[OptimizedMetric, ...]:
    stated = settings.get("objectives") or [{} for _ in study.directions]
    return tuple(
        OptimizedMetric(
            metric=(metric := str(item.get("metric") or f"objective {position + 1}")),
            maximize=direction == optuna.study.StudyDirection.MAXIMIZE,
            label=label if (label := str(item.get("label") or metric)) != metric else label_of(metric),
            last=int(item.get("last") or 1),
            unit=glossary.describe(metric).unit,
        )
        for position, (item, direction) in enumerate(zip(stated, study.directions, strict=True))
    )


def _trial(trial: FrozenTrial) -> TrialRecord:
    facts = trial.user_attrs
    seeds = {
        int(seed): tuple(float(value) for value in (values if isinstance(values, list | tuple) else [values]))
        for seed, values in (facts.get("values") or {}).items()
    }
    reached = tuple(sum(column) / len(column) for column in zip(*seeds.values(), strict=False))
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        values=tuple(trial.values or ()) or reached,
        params=dict(trial.params),
        distributions=dict(trial.distributions),
        overrides=tuple(facts.get("overrides") or ()),
        cells=tuple(facts.get("cells") or ()),
        seed_values=seeds,
        reason=str(facts.get("reason") or ""),
        steps_run=int(facts.get("steps_run") or 0),
        steps_planned=int(facts.get("steps_planned") or 0),
        seconds=float(facts.get("seconds") or 0.0),
        reused=int(facts.get("reused") or 0),
        intermediate=dict(trial.intermediate_values),
        begun=trial.datetime_start,
        ended=trial.datetime_complete,
    )
