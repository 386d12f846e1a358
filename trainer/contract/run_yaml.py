"""``run.yaml`` as text: every value is read back as it was written, by any YAML reader.

Used by the run folder of ``trainer``, by ``sweeps`` and by the tuned presets. Must not import torch or OmegaConf.

YAML guesses the type of an unquoted word, and readers guess differently: of PyYAML, YAML 1.2 and OmegaConf one takes
``38930e831968`` for infinity, one ``on`` for true, one ``1_000`` for a number and one ``2024-01-01`` for a date. So
the writer quotes every string that is not a plain word, and the reader knows JSON's types only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null|nan|inf|infinity)\Z)[a-z_/][a-z0-9_./-]*\Z", re.IGNORECASE)
"""Strings that no reader takes for anything else: they begin with a letter and are no word of YAML's."""

_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
"""Half a character, from a file name that is not UTF-8, or its escape: libyaml knows neither."""

_TYPES = {
    "null": (r"(?:~|null|)\Z", ["~", "n", "N", ""]),
    "bool": (r"(?:true|false)\Z", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)\Z", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*(?:e[-+]?[0-9]+)?|\.[0-9]+|[0-9]+e[-+][0-9]+|\.inf)\Z|\.nan\Z",
        list("-+0123456789."),
    ),
}
"""What an unquoted word can be but a string, and its first letters. A number with an exponent needs a dot or a sign:
the hexadecimal name of a run has neither."""


def dumps(document: Mapping[str, Any]) -> str:
    """``document`` (mappings, lists, strings, numbers, booleans, None) as YAML in block style, keys in their order."""
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 2**31 - 1}
    try:
        return str(yaml.dump(dict(document), Dumper=_FastDumper, **options))
    except UnicodeEncodeError:
        return str(yaml.dump(dict(document), Dumper=_Dumper, **options))


def loads(text: str) -> Any:
    """The document that :func:`dumps` wrote. Raises ``yaml.YAMLError``."""
    return yaml.load(text, Loader=_SafeLoader if _SURROGATE.search(text) else _FastSafeLoader)


class _Dumper(yaml.SafeDumper):
    """PyYAML's own, which knows half characters."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _SafeLoader(yaml.SafeLoader):
    """PyYAML's own, which knows half characters."""


class _FastDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """libyaml's, ten times as fast."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _FastSafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml's, ten times as fast."""


def _string(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if PLAIN.match(text) else '"')


for _kind in (_Dumper, _FastDumper):
    _kind.add_representer(str, _string)
for _loader in (_SafeLoader, _FastSafeLoader):
    _loader.yaml_implicit_resolvers = {}
    for _name, (_pattern, _first) in _TYPES.items():
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern, re.IGNORECASE), _first)
