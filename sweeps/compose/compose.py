"""Composes configurations with Hydra: one, or quickly all those of a sweep. Values are not checked here."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.compose.presets import choosing
from trainer.contract.paths import ROOT

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONF = ROOT / "conf"
PLUGINS = ROOT / "sweeps" / "plugins"


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A configuration with the overrides that it was composed from."""

    config: DictConfig
    overrides: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Warnings: values of presets that were dropped because the overrides choose that group themselves."""


def enable_plugins() -> None:
    """Make the namespace package ``hydra_plugins`` importable; Hydra looks for it once, when it starts."""
    if str(PLUGINS) not in sys.path:
        sys.path.insert(0, str(PLUGINS))


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of one run, in the way ``sweep.py`` composes it; raises Hydra's errors."""
    enable_plugins()
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    already = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with choosing(overrides), hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
            return hydra.compose("config", list(overrides))
    finally:
        GlobalHydra.instance().hydra = already


def compose_batch(loader: Any, master: DictConfig, batch: Sequence[Sequence[str]]) -> Iterator[Composed]:
    """The configurations of a sweep, one at a time; raises Hydra's errors."""
    return batch_composer(loader, master)(batch)


def batch_composer(loader: Any, master: DictConfig) -> Callable[[Sequence[Sequence[str]]], Iterator[Composed]]:
    """A function that composes batches of overrides; raises Hydra's errors.

    Hydra merges the chosen files first and then sets values one by one. Configurations that choose the same files share
    the first part: a few milliseconds each instead of a hundred. Pickling copies five times faster than a deep copy.
    """

    @functools.cache
    def files(choices: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
        with choosing(choices) as chosen:
            config: DictConfig = loader.load_sweep_config(master, list(choices))
        config._set_flag("struct", False)
        del config["hydra"]
        config._set_flag("struct", True)
        return pickle.dumps(config), tuple(chosen.left_out)

    def members(batch: Sequence[Sequence[str]]) -> Iterator[Composed]:
        for overrides in batch:
            parsed = [_parsed(override) for override in overrides]
            chosen = [
                loader.repository.group_exists(item.key_or_group) and not isinstance(item.value(), dict)
                for item in parsed
            ]
            choices = tuple(text for text, is_choice in zip(overrides, chosen, strict=True) if is_choice)
            composed, left_out = files(choices)
            config: DictConfig = pickle.loads(composed)
            loader._apply_overrides_to_config(
                [item for item, is_choice in zip(parsed, chosen, strict=True) if not is_choice], config
            )
            yield Composed(config=config, overrides=tuple(overrides), left_out=left_out)

    return members


@functools.cache
def _parsed(override: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override)


def groups() -> dict[str, list[str]]:
    """Every configuration group with its choices (``small/kl_cov`` for one in a folder), Hydra's own left out."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "claim"))
    return {
        folder.name: sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        for folder in folders
    }
