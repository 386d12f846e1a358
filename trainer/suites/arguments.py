"""Parses the arguments after ``python -m trainer evaluate RUN_OR_MODEL``."""

from __future__ import annotations

from typing import Any

import yaml

from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, nearest
from trainer.evaluation.evaluate import SAMPLING

DEFAULTS = {
    "engine": "trainer.engine.vllm.VLLMEngine",
    "evaluation": "trainer.evaluation.evaluate.EvaluationConfig",
    "model": "trainer.contract.config.ModelConfig",
    "hardware": "trainer.contract.config.HardwareConfig",
}
"""Components of the configuration for a model that is no run."""


def applied(config: dict[str, Any], overrides: list[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Put ``KEY=VALUE`` into ``config``; the suites that are named and settings of theirs."""
    suites: list[str] = []
    suite_settings: dict[str, dict[str, Any]] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        path = key.split(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{override} cannot be read: quote what is no plain value") from error
        if not separator:
            raise ConfigError(f"{override} is no KEY=VALUE, such as suite=math500 or evaluation.samples=64")
        if key == "evaluation":
            config["evaluation"] = _sampling(text)
        elif key == "suite":
            suites = [name.strip() for name in text.strip("[]").split(",")]
        elif path[0] == "suite" and len(path) == 3 and path[2] in SAMPLING:
            suite_settings.setdefault(path[1], {})
            config["evaluation"].setdefault("suite_sampling", {}).setdefault(path[1], {})[path[2]] = value
        elif path[0] == "suite" and len(path) == 3:
            suite_settings.setdefault(path[1], {})[path[2]] = value
        elif path[0] in ("engine", "evaluation", "model", "hardware", "task") and path[0] in config and len(path) > 1:
            node = config[path[0]]
            for name in path[1:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = value  # build_component refuses what is no setting
        else:
            raise ConfigError(
                f"{key} is nothing that an evaluation has: {nearest(key, ['suite', *sorted(DEFAULTS), 'task'])}"
            )
    return suites, suite_settings


def _sampling(choice: str) -> dict[str, Any]:
    """The settings of ``conf/evaluation/CHOICE.yaml``."""
    files = {file.stem: file for file in (ROOT / "conf" / "evaluation").glob("*.yaml")}
    if choice not in files:
        raise ConfigError(f"evaluation={choice} is no choice of conf/evaluation: {nearest(choice, files)}")
    settings: dict[str, Any] = yaml.safe_load(files[choice].read_text(encoding="utf-8"))
    return settings
