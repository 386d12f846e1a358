"""Configurations, composed once a process however many tests look at them: a composition takes a tenth of a second."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Sequence

from omegaconf import DictConfig

from sweeps.compose.compose import compose


def composed(overrides: Sequence[str] = ()) -> DictConfig:
    """A copy of the configuration of one run; raises Hydra's errors."""
    config: DictConfig = pickle.loads(_pickled(tuple(overrides)))
    return config


@functools.cache
def _pickled(overrides: tuple[str, ...]) -> bytes:
    return pickle.dumps(compose(overrides))
