"""Hydra configuration source: completes each YAML in ``conf/`` with the defaults of the dataclass in its ``_target_``.

A YAML therefore states only what differs from the defaults. These are parsed from the source by
:func:`trainer.contract.component_source.component_defaults`, because importing a component would import torch.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from sweeps.compose.components import open_mappings, with_defaults
from sweeps.compose.presets import without_chosen

_READ: dict[tuple[str, str, int, int], bytes] = {}
"""Files that were read, by path, file, time of change and size; pickled, which copies faster than a deep copy."""


class ComponentSource(FileConfigSource):
    """A folder of YAML files whose components are completed with their defaults."""

    @staticmethod
    def scheme() -> str:
        return "components"

    def load_config(self, config_path: str) -> ConfigResult:
        result = self._read(config_path)
        if result.header.get("package") == "_global_" and isinstance(result.config, DictConfig):
            plain = OmegaConf.to_container(result.config, resolve=False)
            chosen = without_chosen(config_path, plain)  # type: ignore[arg-type]
            result.config = _completed(chosen)
        return result

    def _read(self, config_path: str) -> ConfigResult:
        """A copy of what is in a file, completed; Hydra asks for every file in every composition."""
        file = Path(self.path, self._normalize_file_name(config_path))
        if not file.is_file():
            return super().load_config(config_path)  # raises its own error
        known = file.stat()
        key = (config_path, str(file), known.st_mtime_ns, known.st_size)
        if key not in _READ:
            result = super().load_config(config_path)
            preset = result.header.get("package") == "_global_"
            if isinstance(result.config, DictConfig) and not preset:
                result.config = _completed(OmegaConf.to_container(result.config, resolve=False))
            _READ[key] = pickle.dumps(result)
        found: ConfigResult = pickle.loads(_READ[key])
        return found


def _completed(plain: Any) -> DictConfig:
    completed: DictConfig = open_mappings(OmegaConf.create(with_defaults(plain)))
    return completed


class ComponentSearchPath(SearchPathPlugin):
    """Reads the application's own folder through :class:`ComponentSource`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main" and element.path is not None:
                element.path = f"components://{element.path.removeprefix('file://')}"
