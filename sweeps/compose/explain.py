"""Rewrites Hydra's errors of several lines as one sentence with the nearest valid name.

A message that is not known here is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from sweeps.compose.components import belongs_elsewhere
from sweeps.compose.compose import compose, groups
from sweeps.compose.overrides import key_of, parsed
from trainer.contract.config import LIST_SLOTS, SINGLE_SLOTS
from trainer.contract.settings import ConfigError, nearest


@contextmanager
def explained(arguments: Sequence[str]) -> Iterator[None]:
    """Errors of Hydra, OmegaConf and YAML become a :class:`ConfigError` of one sentence."""
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(explain(error, arguments)) from error


def explain(error: BaseException, arguments: Sequence[str] = ()) -> str:
    """One sentence for an error of Hydra or OmegaConf; ``arguments`` are the command line."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], arguments)
    if match := re.search(r"Could not (?:find|load) '([^'/]+)/([^']+)'", text):
        return f"{match[1]}={match[2]} does not exist: {nearest(match[2], groups().get(match[1], []))}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'|Sweep parameters '(.+?)' requires", text):
        return f"{match[1] or match[2]} names several values: put -m before it to run them all (python sweep.py -m ...)"
    if "override_grammar" in text:
        first = " ".join(line for line in text.splitlines() if "hydra.cc" not in line)
        remedy = "write KEY=VALUE, and quote what has brackets, commas or spaces"
        return f"a part of the command line cannot be read ({first}): {remedy}"
    if match := re.search(r"Could not delete from config\. '([^']+)'", text):
        return f"{match[1]} cannot be deleted: it is not in the configuration"
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{match[1]} is in the configuration already: leave out the + before it"
    if match := re.search(r"raised while resolving interpolation: (.+)", text):
        return f"{getattr(error, 'full_key', 'a value')} refers to what cannot be found: {match[1]}"
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"${{{match[1]}}} names nothing in the configuration: mend the value that refers to it"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        key = getattr(error, "full_key", None) or match[1]
        return f"{key} has no value yet: give one, {key}=VALUE"
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    """The message, and what caused it, on one line."""
    parts = [str(error), str(error.__cause__ or "")]
    return "; ".join(" ".join(part.split()) for part in parts if part) or type(error).__name__


def _unknown_key(key: str, arguments: Sequence[str]) -> str:
    slot, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    choices = groups()
    if slot in LIST_SLOTS and name in choices.get(slot, []):
        return f"{key} belongs to {slot}={name}, which is not chosen: add {slot}=[{name}]"
    if slot == "hydra":
        return f"{key} is no setting: what belongs to Hydra is set by sweep.py itself"
    if key in choices and (parts := _parts(key, arguments)):
        return _unknown_key(parts[0], ())
    nearby = _nearest_config(key, arguments)
    target = (nearby.get(slot) or {}).get("_target_") if slot in SINGLE_SLOTS else None
    if target and (elsewhere := belongs_elsewhere(slot, [rest], target)):
        return elsewhere
    known = list(_keys(nearby))
    if "." not in key and (longer := [path for path in known if path.endswith(f".{key}")]):
        return f"{key} is neither a group nor a setting: did you mean {' or '.join(map(repr, longer[:3]))}?"
    if "." not in key:
        names = {*choices, *(path for path in known if "." not in path)}
        return f"{key} is neither a group nor a setting: {nearest(key, names)}"
    if key in known:
        return f"a part of the value of {key} is not in the configuration: write ++{key}=... to add it"
    siblings = [path for path in known if path.startswith(f"{slot}.")]
    return f"{key} is not a setting: {nearest(key, siblings or [path for path in known if '.' in path])}"


def _parts(key: str, arguments: Sequence[str]) -> list[str]:
    """Dotted keys of the mapping that the command line gives ``key``."""
    values = [parsed(text) for text in arguments if key_of(text) == key and text.partition("=")[2].startswith("{")]
    return [path for value in values for path in _keys(value, f"{key}.") if "." in path.removeprefix(f"{key}.")]


def _nearest_config(key: str, arguments: Sequence[str]) -> Any:
    """What the command line composes to without its mistake; the default configuration if it has more than one."""
    others = [
        text for text in arguments if "=" in text and not text.startswith("-") and not text.lstrip("+~").startswith(key)
    ]
    single = [text for text in others if "," not in text.partition("=")[2] and "(" not in text]
    for overrides in (single, []):
        try:
            return compose(overrides)
        except Exception:  # the boundary: this only looks for a better hint
            continue
    return {}


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a configuration."""
    if not isinstance(node, Mapping):
        return
    for key in node:
        if key in ("_target_", "hydra"):
            continue
        path = f"{prefix}{key}"
        yield path
        yield from _keys(node._get_node(key) if hasattr(node, "_get_node") else node[key], f"{path}.")
