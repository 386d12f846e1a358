"""A claim of the literature as ``conf/claim/*.yaml`` states it: arms to run here, tests that the dashboards judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sweeps.compose.compose import CONF
from trainer.contract.settings import ConfigError

FOLDER = CONF / "claim"
_KEYS = {"number", "statement", "source", "caveat", "base", "arms", "tests", "testbeds"}
_NEEDED = ("number", "statement", "source", "arms", "tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimConfig:
    """A statement, the arms that are compared, and the tests."""

    number: int
    statement: str
    source: str
    arms: Mapping[str, tuple[str, ...]]
    """Arm -> overrides, those that all arms share included."""
    tests: tuple[Mapping[str, Any], ...]
    """As in the YAML: see ``dashboards/claims/claim.py``."""
    caveat: str = ""


def load_claims(testbed: str | None = None, folder: Path = FOLDER) -> list[ClaimConfig]:
    """The claims of a folder by number; with ``testbed`` only those that have arms for that study, and these.

    Raises :class:`ConfigError` with a sentence for the first file that cannot be used.
    """
    claims = [claim for path in sorted(folder.glob("*.yaml")) if (claim := _claim(path, testbed)) is not None]
    numbers = [claim.number for claim in claims]
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise ConfigError(f"two files of {folder} have number {twice[0]}: give each claim its own")
    if not claims:
        where = f"arms under testbeds.{testbed}" if testbed else "claims"
        raise ConfigError(f"no file of {folder} has {where}: add some, or choose another testbed")
    return sorted(claims, key=lambda claim: claim.number)


def _claim(path: Path, testbed: str | None) -> ClaimConfig | None:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path} is no mapping of {', '.join(sorted(_KEYS))}")
    if wrong := sorted(set(document) - _KEYS):
        raise ConfigError(f"{path} has {wrong[0]!r}: a claim has {', '.join(sorted(_KEYS))}")
    if absent := [key for key in _NEEDED if not document.get(key)]:
        raise ConfigError(f"{path} has no {absent[0]}: a claim needs {', '.join(_NEEDED)}")
    other = (document.get("testbeds") or {}).get(testbed) if testbed else document
    if other is None:
        return None
    shared, arms = _overrides(path, "base", other.get("base") or ()), other.get("arms")
    if not isinstance(arms, Mapping):
        raise ConfigError(f"{path}: arms is a mapping of names to lists of overrides")
    named = {str(arm): (*shared, *_overrides(path, f"arms.{arm}", words or ())) for arm, words in arms.items()}
    tests = tuple(test for test in document["tests"] if set(map(str, test.get("arms") or ())) <= set(named))
    return ClaimConfig(
        number=int(document["number"]),
        statement=str(document["statement"]),
        source=str(document["source"]),
        caveat=str(document.get("caveat") or ""),
        arms=named,
        tests=tests,
    )


def _overrides(path: Path, key: str, words: Any) -> tuple[str, ...]:
    if isinstance(words, str) or not isinstance(words, Sequence) or any("=" not in str(word) for word in words):
        raise ConfigError(f"{path}: {key} is a list of overrides such as [optim.lr=1e-4], not {words!r}")
    return tuple(map(str, words))


def chosen_claims(claims: Sequence[ClaimConfig], wanted: Sequence[int]) -> list[ClaimConfig]:
    """The claims with these numbers, all without any. Raises :class:`ConfigError` for a number that does not exist."""
    known = {claim.number: claim for claim in claims}
    if absent := [number for number in wanted if number not in known]:
        raise ConfigError(f"claims={absent[0]} does not exist: there are {', '.join(map(str, known))}")
    return [known[number] for number in dict.fromkeys(wanted)] if wanted else list(claims)
