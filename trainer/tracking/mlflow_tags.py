"""Tags and parameters of a run in MLflow, computed from its frozen configuration.

Pure; must not import mlflow.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.contract.about import about, furthest, members
from trainer.contract.identity import group_signature, signature

NO_PARAMETERS = ("factor", "provenance", "study", "tracking")
PARAM_LENGTH, TAG_LENGTH, NAME_LENGTH = 6000, 5000, 250
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
    return {mlflow_name(key): str(value)[:TAG_LENGTH] for key, value in known.items() if value is not None}


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
    """``("optim.lr", "0.0001")`` for every leaf; what is a tag, a file or a text about the sweep is left out."""
    chosen = {group: value for group, value in config.items() if group not in NO_PARAMETERS}
    return ((mlflow_name(key), value[:PARAM_LENGTH]) for key, value in _leaves(chosen))


def mlflow_name(key: str) -> str:
    """``key`` as MLflow takes the name of a metric, parameter or tag: different keys have different names.

    It refuses a whole batch for one character that it does not like, for a path that is not in normal form and for more
    than 250 characters. Such a character becomes its code between colons, ``@`` for example ``:40:``; a name that is
    too long ends in a checksum.
    """
    refused = r"[^\w\-. /]"  # colons too, though MLflow takes them: so a name can be read back
    if posixpath.normpath(key) != key or key.startswith((".", "/")):
        refused = r"[^\w\- ]"
    name = re.sub(refused, lambda match: f":{ord(match[0]):x}:", key)
    if len(name) <= NAME_LENGTH:
        return name
    start, digest = name[: NAME_LENGTH - 18].rstrip("/"), hashlib.sha256(key.encode(errors="replace")).hexdigest()[:16]
    return f"{start}{':' if start.count(':') % 2 == 0 else '::'}{digest}"  # an odd number: no short name has that


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of every leaf; what is not a string, also an empty group and a list, is written as JSON."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
