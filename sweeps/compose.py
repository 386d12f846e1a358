"""Where the configuration lives, and composing it without the command line.

Called by ``sweep.py`` before Hydra starts, by error messages and by tests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent.parent / "conf"
PLUGINS = Path(__file__).resolve().parent / "plugins"


def enable_plugins() -> None:
    """Make the namespace package ``hydra_plugins`` importable; Hydra looks for it once, when it starts."""
    if str(PLUGINS) not in sys.path:
        sys.path.insert(0, str(PLUGINS))


def compose(overrides: Sequence[str] = (), *, hydra_node: bool = False) -> DictConfig:
    """The configuration of one run; raises Hydra's errors."""
    enable_plugins()
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    already = GlobalHydra.instance().hydra
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
            return hydra.compose("config", list(overrides), return_hydra_config=hydra_node)
    finally:
        GlobalHydra.instance().hydra = already


def groups() -> dict[str, list[str]]:
    """Every configuration group with its choices, Hydra's own left out."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
