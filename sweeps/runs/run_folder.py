"""``run.yaml`` as ``sweeps`` sees it: what was asked of a run, frozen.

How far a run is and who has it is in ``trainer.contract``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.contract import run_yaml
from trainer.contract.config import ConfigError
from trainer.contract.files import make_folder, write_atomic
from trainer.contract.identity import identity, signature


def read_run(run_dir: Path) -> dict[str, Any]:
    """The frozen configuration. Raises :class:`ConfigError` when it is missing or torn."""
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
    """Freeze a configuration; settings outside the identity may change between attempts, the experiment may not."""
    path = run_dir / "run.yaml"
    if path.exists():
        old = read_run(run_dir)
        if signature(old) != signature(document) or identity(old) != identity(document):
            raise ConfigError(
                f"{path} belongs to another configuration: it is left alone; move the folder away to run this one"
            )
    make_folder(run_dir)
    write_atomic(path, run_yaml.dumps(document))
