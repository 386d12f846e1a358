"""Hydra sweeper plugin: the grid of a ``--multirun``, that is every combination of the swept values.

Hydra creates it from ``conf/hydra/sweeper/grid.yaml``. With ``search=NAME`` it starts a search instead
(:mod:`sweeps.search`), with ``study=claims`` a study of claims (:mod:`sweeps.claims`). Unlike Hydra's own sweeper it
writes no folders.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, setup_globals


class GridSweeper(BasicSweeper):
    """Expands ``params`` of the configuration and the command line; for the same key the command line wins."""

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        assert self.hydra_context is not None and self.launcher is not None and self.config is not None
        if self.config.get("search") is not None:
            from sweeps.search.start import start

            setup_globals()
            sys.exit(start(self.hydra_context.config_loader, self.config, arguments))
        if self.config.get("claims") is not None:
            from sweeps.claims.start import start as start_claims

            setup_globals()
            sys.exit(start_claims(self.hydra_context.config_loader, self.config, arguments))
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (batch,) = self.split_arguments(overrides, max_batch_size=None)
        return self.launcher.launch(batch, initial_job_idx=0)
