"""Finds runs in an output folder that were written by another version of this project and so cannot be reused.

The schema number is in the first line of every ``run.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.contract.identity import SCHEMA
from trainer.contract.settings import ConfigError
from trainer.contract.status import read_status


def outdated(output: Path) -> dict[Path, int]:
    """Run folders of another schema, with that schema."""
    schemas = {path.parent: _schema(path) for path in sorted((output / "runs").glob("*/run.yaml"))}
    return {run_dir: schema for run_dir, schema in schemas.items() if schema != SCHEMA}


def outdated_line(output: Path) -> str | None:
    """A notice about completed runs of another schema; None without any."""
    statuses = [(schema, read_status(run_dir)) for run_dir, schema in outdated(output).items()]
    finished = [schema for schema, status in statuses if status is not None and status.state == "COMPLETED"]
    if not finished:
        return None
    schemas = " and ".join(map(str, sorted(set(finished))))
    runs = "1 finished run" if len(finished) == 1 else f"{len(finished)} finished runs"
    return (
        f"{runs} of schema {schemas} (another version of this program; now {SCHEMA}) in {output / 'runs'}: not reused, "
        "because what makes two runs the same has changed; `python -m sweeps gc --outdated` lists them for removal"
    )


def require_current(config: Mapping[str, Any], command: str) -> None:
    """Raise :class:`ConfigError` for a ``run.yaml`` of another schema, which this version cannot resume."""
    if config.get("schema") != SCHEMA:
        raise ConfigError(
            f"its runs are of schema {config.get('schema', 1)} (another version of this program; now {SCHEMA}): they "
            f"stay as they are; to run the sweep with this version, start it again: {command}"
        )


def _schema(path: Path) -> int:
    """The schema number in the first line of a ``run.yaml``: 1 without one, the current one if it is unreadable."""
    try:
        with path.open("rb") as file:
            key, _, number = file.readline(64).decode(errors="replace").strip().partition(": ")
    except OSError:
        return SCHEMA
    return int(number) if key == "schema" and number.isdigit() else 1
