"""The grid of a ``--multirun``: every combination of the swept values, each composed once, by the launcher. With
``search=NAME`` it is a search instead (:mod:`sweeps.search`).

Created by Hydra (``conf/hydra/sweeper/grid.yaml``). It must not write anything: Hydra's own sweeper leaves folders
behind.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, setup_globals


class GridSweeper(BasicSweeper):
    """``params`` of the configuration first, the command line after them: for one key the command line wins."""

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        assert self.hydra_context is not None and self.launcher is not None and self.config is not None
        if self.config.get("search") is not None:
            from sweeps.search.start import start

            setup_globals()
            sys.exit(start(self.hydra_context.config_loader, self.config, arguments))
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (batch,) = self.split_arguments(overrides, max_batch_size=None)
        return self.launcher.launch(batch, initial_job_idx=0)
