"""SmolLM2 and real problems for slow tests, or a skip that says why they cannot be had."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from trainer.contract.settings import ConfigError


def smollm2() -> Path:
    """The model's folder in the user's cache."""
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the package gguf is not installed: `make install` brings it")
    from trainer.downloads.smollm2 import fetch

    try:
        return fetch()[0]
    except ConfigError as error:
        pytest.skip(str(error))


def real_problems(name: str) -> Path:
    """The folder of a real data set in the user's cache."""
    from trainer.downloads import problems

    try:
        return problems.fetch(next(each for each in problems.ALL if each.name == name))[0]
    except ConfigError as error:
        pytest.skip(str(error))
