"""Reads and writes ``run.yaml``, the resolved configuration of a run.

Status, lock and metrics of a run folder are in :mod:`trainer.contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.contract import run_yaml
from trainer.contract.files import make_folder, write_atomic
from trainer.contract.identity import identity, signature
from trainer.contract.settings import ConfigError


def read_run(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run. Raises :class:`ConfigError` when it is missing or cannot be parsed."""
    try:
        document = run_yaml.loads((run_dir / "run.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{run_dir} holds no run.yaml: it is not a run folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{run_dir}/run.yaml cannot be read: move the folder away and start the sweep again"
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{run_dir}/run.yaml holds no configuration: move the folder away and start the sweep again")
    return document


def write_run(run_dir: Path, document: Mapping[str, Any]) -> None:
    """Write ``run.yaml``; of one that exists, only settings outside the identity may change (see architecture.md)."""
    path = run_dir / "run.yaml"
    if path.exists():
        old = read_run(run_dir)
        if signature(old) != signature(document) or identity(old) != identity(document):
            raise ConfigError(
                f"{path} belongs to another configuration: it is left alone; move the folder away to run this one"
            )
    make_folder(run_dir)
    write_atomic(path, run_yaml.dumps(document))
