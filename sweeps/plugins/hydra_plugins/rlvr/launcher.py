"""Hydra launcher plugin: composes the configurations of a sweep and hands them to :func:`sweeps.launch.launch`.

Hydra creates it from ``conf/hydra/launcher/queue.yaml``. Jobs read the composed configuration from ``run.yaml``, so a
file in ``conf/`` that is edited while a job waits changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class QueueLauncher(Launcher):
    """Hydra's launcher: runs all configurations of a sweep and exits."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from sweeps.compose.compose import compose_batch
        from sweeps.launch import launch

        setup_globals()
        sys.exit(launch(compose_batch(self.loader, self.config, job_overrides), multirun=True))
