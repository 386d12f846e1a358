"""The search space: configuration keys with their ranges, some conditional on the value of another key.

Optuna suggests the same values when it is asked twice for one trial, so :func:`suggest` also serves to resume a trial.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sweeps.compose.overrides import parsed, value_text
from trainer.contract.settings import ConfigError, filled, nearest, require

FIELDS = ("type", "low", "high", "log", "step", "choices", "when")
TYPES = ("float", "int", "categorical")

Value = float | int | str | bool | None


class SuggestingTrial(Protocol):
    """The methods of an Optuna trial that are used here."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One key of the configuration and the values it may take."""

    key: str
    type: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Earlier key -> values for which this parameter exists; all conditions have to hold."""

    def plain(self) -> dict[str, Any]:
        """As plain data, every field named."""
        return {
            "type": self.type,
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "step": self.step,
            "choices": list(self.choices),
            "when": {key: list(values) for key, values in self.when.items()},
        }

    def exists(self, values: Mapping[str, Value]) -> bool:
        """Whether the conditions of the parameter hold for ``values``."""
        return all(key in values and values[key] in allowed for key, allowed in self.when.items())

    def extremes(self) -> tuple[Value, ...]:
        """Both ends of the range, or every choice: the values with which the configuration is checked."""
        return self.choices if self.type == "categorical" else (self.low, self.high)


def parameters(space: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The parameters of ``search.space``, checked. Raises :class:`ConfigError`."""
    require(isinstance(space, Mapping) and bool(space), "search.space", space, "name at least one key and its range")
    known: dict[str, Parameter] = {}
    for key, node in space.items():
        known[str(key)] = _parameter(str(key), node, known)
    return tuple(known.values())


def _parameter(key: str, node: Any, earlier: Mapping[str, Parameter]) -> Parameter:
    where = f"search.space.{key}"
    require(isinstance(node, Mapping), where, node, "give {type: float, low: A, high: B} or {type: categorical, ...}")
    if unknown := [str(name) for name in node if name not in FIELDS]:
        name = unknown[0]
        raise ConfigError(f"{where}.{name}={node[name]!r} is no part of a range: {nearest(name, FIELDS)}")
    require(key != "seed", where, "seed", "the search chooses seeds itself: set search.seeds")
    when = _conditions(where, node.get("when") or {}, earlier)
    fields = {name: value for name, value in node.items() if value is not None} | {"key": key, "when": when}
    require(node.get("type") in TYPES, f"{where}.type", node.get("type"), "choose float, int or categorical")
    parameter = filled(Parameter, fields, where)
    if parameter.type == "categorical":
        require(
            bool(parameter.choices),
            f"{where}.choices",
            list(parameter.choices),
            "list at least one text, number or null",
        )
        once = len(set(map(repr, parameter.choices))) == len(parameter.choices)
        require(once, f"{where}.choices", list(parameter.choices), "name each choice once")
        return Parameter(key=key, type=parameter.type, choices=parameter.choices, when=parameter.when)
    return _checked_range(parameter, where)


def _checked_range(parameter: Parameter, where: str) -> Parameter:
    """Check the range of a numeric parameter. Raises :class:`ConfigError`."""
    cast = float if parameter.type == "float" else int
    expected = "a number" if cast is float else "a whole number"
    for name in ("low", "high", "step"):
        value = getattr(parameter, name)
        absent = name == "step" and value is None
        is_exact = value is not None and cast(value) == value
        require(absent or is_exact, f"{where}.{name}", value, f"{expected} is needed")
    low, high, step = parameter.low, parameter.high, parameter.step
    assert low is not None and high is not None
    if low > high:
        raise ConfigError(f"{where} has its bounds the wrong way round: low={low} is above high={high}; swap them")
    require(low < high, where, f"{low} to {high}", "low and high are equal, so nothing is varied: widen the range")
    require(not parameter.log or low > 0, f"{where}.low", low, "a logarithmic range begins above 0")
    require(step is None or step > 0, f"{where}.step", step, "give a step above 0")
    require(
        not (parameter.log and step is not None),
        f"{where}.step",
        step,
        "a logarithmic range has no steps: leave it out",
    )
    return replace(parameter, low=cast(low), high=cast(high), step=None if step is None else cast(step), choices=())


def _conditions(where: str, node: Any, earlier: Mapping[str, Parameter]) -> dict[str, tuple[Value, ...]]:
    require(isinstance(node, Mapping), f"{where}.when", node, "give {KEY: [VALUES]}")
    conditions = {}
    for key, allowed in node.items():
        require(
            key in earlier, f"{where}.when", key, f"it is no parameter above this one: {nearest(str(key), earlier)}"
        )
        values = tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,)
        choices = earlier[key].choices
        require(bool(choices), f"{where}.when", key, "a condition is on a categorical parameter")
        unknown = [value for value in values if value not in choices]
        require(not unknown, f"{where}.when.{key}", unknown, f"its choices are {', '.join(map(str, choices))}")
        conditions[str(key)] = values
    return conditions


def suggest(trial: SuggestingTrial, space: Sequence[Parameter]) -> dict[str, Value]:
    """Values for every parameter that exists in this trial, in the order of the space."""
    values: dict[str, Value] = {}
    for parameter in space:
        if parameter.exists(values):
            values[parameter.key] = _suggested(trial, parameter)
    return values


def _suggested(trial: SuggestingTrial, parameter: Parameter) -> Value:
    if parameter.type == "categorical":
        return trial.suggest_categorical(parameter.key, parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.type == "int":
        step = 1 if parameter.step is None else int(parameter.step)
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def override(key: str, value: Value) -> str:
    """``key=value`` in Hydra's syntax for the command line."""
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    if isinstance(value, str) and not re.fullmatch(r"\[[\w./+,-]*\]", value) and not _is_read_as_text(value):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{quoted}'"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"


def _is_read_as_text(value: str) -> bool:
    """Whether Hydra parses the unquoted value as a string; not so ``inf``, ``1e-3`` and ``null``."""
    return bool(re.fullmatch(r"[\w./+-]+", value)) and parsed(f"key={value}") == value


def overrides(values: Mapping[str, Value]) -> list[str]:
    """A trial's values as Hydra overrides."""
    return [override(key, value) for key, value in values.items()]


def described(values: Mapping[str, Value]) -> str:
    """A trial's values to display: ``clip_low 0.12, clip_high 0.3``."""
    short = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in values.items()}
    return ", ".join(f"{key.rpartition('.')[2]} {value_text(value)}" for key, value in short.items())


def probes(space: Sequence[Parameter]) -> Iterator[tuple[Parameter, list[dict[str, Value]]]]:
    """For each parameter the ends of its range, the others at their first value: what is checked before a search."""
    for parameter in space:
        first: dict[str, Value] = {}
        for other in space:
            forced = parameter.when.get(other.key) or _forced(other.key, parameter, space)
            if other.exists(first):
                first[other.key] = forced[0] if forced else other.extremes()[0]
        yield parameter, [_consistent(first | {parameter.key: value}, space) for value in parameter.extremes()]


def _forced(key: str, parameter: Parameter, space: Sequence[Parameter]) -> tuple[Value, ...]:
    """Values of ``key`` that the conditions of the parameter require, through any number of other parameters."""
    by_key = {other.key: other for other in space}
    for parent in parameter.when:
        values = by_key[parent].when.get(key) or _forced(key, by_key[parent], space)
        if values:
            return values
    return ()


def _consistent(values: Mapping[str, Value], space: Sequence[Parameter]) -> dict[str, Value]:
    """``values`` without parameters whose conditions fail, and with the first value of those that are missing."""
    complete: dict[str, Value] = {}
    for parameter in space:
        if parameter.exists(complete):
            complete[parameter.key] = values.get(parameter.key, parameter.extremes()[0])
    return complete
