"""Hydra configuration source: completes each YAML in ``conf/`` with the defaults of the dataclass in its ``_target_``.

A YAML therefore states only what differs from the defaults. These are parsed from the source by
:func:`trainer.contract.component_source.component_defaults`, because importing a component would import torch.
"""

from __future__ import annotations

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from sweeps.compose.components import open_mappings, with_defaults
from sweeps.compose.presets import without_chosen


class ComponentSource(FileConfigSource):
    """A folder of YAML files whose components are completed with their defaults."""

    @staticmethod
    def scheme() -> str:
        return "components"

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        if isinstance(result.config, DictConfig):
            plain = OmegaConf.to_container(result.config, resolve=False)
            if result.header.get("package") == "_global_":
                plain = without_chosen(config_path, plain)  # type: ignore[arg-type]
            result.config = open_mappings(OmegaConf.create(with_defaults(plain)))
        return result


class ComponentSearchPath(SearchPathPlugin):
    """Reads the application's own folder through :class:`ComponentSource`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main" and element.path is not None:
                element.path = f"components://{element.path.removeprefix('file://')}"
