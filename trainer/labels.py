"""What MLflow is told of a run besides its points: tags and parameters, read off the frozen configuration.

Called by tracking.py. Pure; must not import mlflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.about import about, furthest, members
from trainer.config import group_signature, signature

NO_PARAMETERS = ("factor", "provenance", "study", "tracking")
PARAM_LENGTH, TAG_LENGTH = 6000, 5000
"""Characters that MLflow stores."""


def tags(config: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a cell; ``tracking.tags`` has the last word."""
    study, factor, tracking = (config.get(group) or {} for group in ("study", "factor", "tracking"))
    git = (config.get("provenance") or {}).get("git") or {}
    name = config.get("signature") or signature(config)
    known = (
        {
            "kind": "cell",
            "signature": name,
            "group": group_signature(config),
            "seed": config.get("seed"),
            "study": study.get("name"),
            "level": study.get("level"),
            "level_index": study.get("level_index"),
            "factor": factor.get("name"),
            "mlflow.parentRunId": tracking.get("parent_run_id"),
            "mlflow.runName": tracking.get("run_name") or name,
            "mlflow.source.git.commit": git.get("revision"),
        }
        | _method_tags(config)
        | (tracking.get("tags") or {})
    )
    return {key: str(value)[:TAG_LENGTH] for key, value in known.items() if value is not None}


def _method_tags(config: Mapping[str, Any]) -> dict[str, str]:
    """Where the members of the objective come from, ``method.status`` being the one furthest from a paper."""
    known = {path: about(node) for path, node in members(config).items()}
    departures = {path: facts["departures"] for path, facts in known.items() if facts["departures"] != "none"}
    return (
        {
            "method.status": furthest(facts["status"] for facts in known.values()),
            "method.sources": "; ".join(f"{path}: {facts['source']}" for path, facts in known.items()),
            "method.departures": "; ".join(f"{path}: {text}" for path, text in departures.items()) or "none",
        }
        if known
        else {}
    )


def parameters(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """``("optim.lr", "0.0001")`` for every leaf; what is a tag, a file or a text about the sweep is left out.

    MLflow refuses a whole batch for one character it does not like in a name, so those become ``_``.
    """
    chosen = {group: value for group, value in config.items() if group not in NO_PARAMETERS}
    return ((re.sub(r"[^\w\-. :/]", "_", key), value[:PARAM_LENGTH]) for key, value in _leaves(chosen))


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of every leaf; what is not a string, also an empty group and a list, is written as JSON."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
