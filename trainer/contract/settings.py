"""Validation of settings: a mapping becomes a dataclass, or one sentence names the key, the value and what to do.

The trainer's components, the queues and the searches are all built here. The range of a single value is in the
annotation of its field (:class:`Range`); conditions on several values are in ``__post_init__``. Must not import torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

LARGEST = 1e9
"""No number of a configuration is meant to be larger, except where its :class:`Range` says so."""

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that a person has to mend; the message is one sentence that says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Range:
    """Ends of a number, both included, as part of its annotation: ``samples: Annotated[int, Range(0)] = 8``."""

    low: float = -LARGEST
    high: float = LARGEST

    def words(self, what: str) -> str:
        """What to give instead of a number outside."""
        if self == Range():
            return f"give {what} (of at most {LARGEST:.0f} in size)"
        return f"give {what}, at least {self.low:.12g}" + (
            "" if self.high >= LARGEST else f", at most {self.high:.12g}"
        )


Seed = Annotated[int, Range(0, 2**63 - 1)]
"""What a random generator can be seeded with."""

Steps = Annotated[int, Range(0, 10**7)]
"""Training steps of a run."""


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    """Raise :class:`ConfigError` naming ``key``, its ``value`` and the ``remedy`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(f"{key}={value!r} cannot be used: {remedy}")


def nearest(name: str, options: Iterable[str]) -> str:
    """``did you mean 'X'?`` for the only option that begins so or the closest one, or all options if none is close."""
    options = sorted(options)
    if not options:
        return "there is nothing to set"
    same = [option for option in options if option.lower() == name.lower()]
    longer = [option for option in options if name and option.startswith(name)]
    close = same or (longer if len(longer) == 1 else difflib.get_close_matches(name, options, n=1, cutoff=0.5))
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(options)}"


def filled(kind: type[T], node: Mapping[str, Any], key: str) -> T:
    """An instance of the dataclass ``kind`` from the mapping ``node`` that stands at ``key`` of a configuration.

    Raises :class:`ConfigError` for an unknown name (and names the nearest), a missing one, a value of the wrong type or
    size, or whatever the class itself refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in node:
        if name not in fields:
            raise ConfigError(f"{key}.{name} is not a setting of {kind.__name__}: {nearest(str(name), fields)}")
    for name, field in fields.items():
        if name not in node and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key} has no {name}: give {key}.{name}=VALUE")
    hints = typing.get_type_hints(kind, include_extras=True)
    return kind(**{name: coerced(value, hints[name], f"{key}.{name}") for name, value in node.items()})


def coerced(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the annotated type, where that is possible without guessing; otherwise a :class:`ConfigError`.

    Whole numbers serve as floats and whole floats as integers; true and false are no numbers, and a text is never read
    as something else.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin is Annotated:
        return _number(value, arguments[0], key, arguments[1])
    if hint in (int, float):
        return _number(value, hint, key, Range())
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments, key)
    if origin is typing.Literal:
        is_choice = value in arguments and not isinstance(value, bool)
        require(is_choice, key, value, nearest(str(value), map(str, arguments)))
        return arguments[arguments.index(value)]
    if origin in (tuple, list, Sequence) and isinstance(value, Sequence) and not isinstance(value, str):
        return _several(value, origin, arguments, key)
    if (origin or hint) in (dict, Mapping) and isinstance(value, Mapping):
        kind = arguments[1] if arguments else Any
        return {str(name): coerced(item, kind, f"{key}.{name}") for name, item in value.items()}
    plain = origin or hint
    require(isinstance(value, plain) and plain in (str, bool), key, value, _remedy(plain, key, value))
    return value


def _number(value: Any, kind: type, key: str, ends: Range) -> int | float:
    expected = "a whole number" if kind is int else "a number"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(is_number, key, value, f"give {expected}" if ends == Range() else ends.words(expected))
    require(isinstance(value, int) or math.isfinite(value), key, value, "give a finite number")
    require(kind is float or value == int(value), key, value, ends.words(expected))
    require(ends.low <= value <= ends.high, key, value, ends.words(expected))
    number: int | float = kind(value)
    return number


def _one_of(value: Any, kinds: Sequence[Any], key: str) -> Any:
    """The first kind that takes ``value``, its own type before others."""
    if value is None and type(None) in kinds:
        return None
    refusals = []
    for kind in sorted(kinds, key=lambda kind: kind is not type(value)):
        if kind is not type(None):
            try:
                return coerced(value, kind, key)
            except ConfigError as error:
                refusals.append(str(error))
    raise ConfigError(refusals[0] + (", or null" if type(None) in kinds else ""))


def _several(value: Sequence[Any], origin: Any, arguments: Sequence[Any], key: str) -> Any:
    fixed = origin is tuple and arguments[-1] is not Ellipsis
    kinds = list(arguments) if fixed else [arguments[0]] * len(value)
    require(len(kinds) == len(value), key, value, f"{len(kinds)} values are expected")
    items = [coerced(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
    return items if origin is list else tuple(items)


def _remedy(kind: Any, key: str, value: Any) -> str:
    """What to type instead of a value of another type."""
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return f"give a text, which a number is in two kinds of quotes: {key}='\"{value}\"'"
    if kind is str:
        return "give a text"
    if kind in (tuple, list, Sequence):
        return f"give a list, '{key}=[{'' if value is None else value}]'"
    if kind in (dict, Mapping):
        return f"give a mapping, '{key}={{NAME: VALUE}}'"
    return "give true or false" if kind is bool else f"give a {getattr(kind, '__name__', kind)}"
