"""Creates Optuna's storage, study, sampler and pruner from the settings.

Each trial gets a new sampler, seeded with the number of the trial, so that a search that was killed and restarted makes
the suggestions it would have made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from sweeps.search.settings import Search, Settings
from trainer.contract.errors import reason
from trainer.contract.seeds import derive_seed
from trainer.contract.settings import ConfigError

JOURNAL = "study.journal"
FIXED = ("objectives", "space", "seeds", "rungs")
"""Settings that must equal those of an existing study, because trials would not be comparable otherwise."""


def storage_location(search: Search, folder: Path) -> str:
    """URL or path of the storage."""
    if search.storage is None:
        return str(folder / JOURNAL)
    return search.storage if "://" in search.storage else str(Path(search.storage).expanduser().absolute())


def open_storage(where: str) -> BaseStorage:
    """The storage at a URL, or the journal at a path. Raises :class:`ConfigError` when it cannot be reached."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    try:
        if "://" in where:
            return optuna.storages.get_storage(where)
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(where))
    except Exception as error:  # the boundary: each database driver raises its own
        raise ConfigError(
            f"search.storage={where!r} cannot be reached ({reason(error)}): "
            "start the database, mend the address, or leave search.storage out for a journal file"
        ) from error


def exists(where: str) -> bool:
    """Whether a journal exists at a path; true for any database URL."""
    return "://" in where or Path(where).exists()


def require_writable(where: str) -> None:
    """Raise :class:`ConfigError` unless a journal can be created at a path; writes nothing."""
    existing = next(path for path in Path(where).parents if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"search.storage={where!r} cannot be written: {existing} does not allow it; choose another file"
        )


def find(storage: BaseStorage, name: str) -> optuna.Study | None:
    """The study of this name, or None."""
    if name not in optuna.study.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)


def require_same(study: optuna.Study, settings: Settings, base: str) -> None:
    """Raise :class:`ConfigError` unless this search can continue an existing study."""
    known, current = study.user_attrs.get("search"), settings.plain()
    remedy = "give this search another name (study.name=NAME), or go back to what it was"
    if known is None:
        raise ConfigError(f"the storage has a study {study.study_name!r} that no search here made: {remedy}")
    for key in FIXED:
        if known.get(key) != current[key]:
            change = _difference(known.get(key), current[key])
            raise ConfigError(f"the study {study.study_name!r} has another {key} ({change}): {remedy}")
    if study.user_attrs.get("base") != base:
        reason = "was made on another configuration, beside what the search varies"
        raise ConfigError(f"the study {study.study_name!r} {reason}: {remedy}")


def _difference(known: Any, current: Any) -> str:
    if isinstance(known, Mapping) and isinstance(current, Mapping):
        return ", ".join(key for key in {**known, **current} if known.get(key) != current.get(key))
    return f"{known} there, {current} here"


def create(storage: BaseStorage, name: str, settings: Settings, attributes: Mapping[str, Any]) -> optuna.Study:
    """Create or load the study of this name, and set its user attributes."""
    study = optuna.create_study(storage=storage, study_name=name, directions=settings.directions, load_if_exists=True)
    for key, value in attributes.items():
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    return study


def sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that suggests trial ``number``."""
    seed = derive_seed(search.sampler_seed, number, "search") % 2**32
    if search.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(2, search.startup_trials), seed=seed)
    if search.sampler == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=search.startup_trials, seed=seed)
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=search.startup_trials, seed=seed)


def pruner(search: Search) -> optuna.pruners.BasePruner:
    """Optuna's pruner of the settings."""
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=search.prune_startup)
    if search.pruner == "successive_halving":
        least, factor = search.prune_after, search.reduction
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=factor)
    return optuna.pruners.NopPruner()


def trial_by_number(study: optuna.Study, number: int) -> optuna.Trial:
    """The trial of this number, with Optuna's methods to suggest and report, whichever process started it."""
    storage = study._storage
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
