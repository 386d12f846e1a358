"""Every YAML that fills a slot of the objective, against every promise of docs/architecture.md.

Nobody has to add anything here: a new component and its YAML are found by looking.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest
from contract_checks import (
    CHECKS,
    GROUPS,
    Case,
    choices,
    from_yaml,
    independent_of_micro_batches,
    independent_of_ranks,
    neutral_is_plain,
)

import trainer.objective
from sweeps.compose.compose import CONF
from trainer.objective.base import (
    Advantage,
    Component,
    Controller,
    Reduction,
    Regularizer,
    Shaping,
    Surrogate,
    Weight,
)

BASES = (Advantage, Controller, Reduction, Regularizer, Shaping, Surrogate, Weight)

case = functools.cache(from_yaml)


WITH_MORE_STEPS = {independent_of_micro_batches, independent_of_ranks}
"""Checks of several steps each: a third of the time of all."""


@pytest.mark.parametrize(
    "check",
    [pytest.param(check, id=check.__name__, marks=[pytest.mark.slow] * (check in WITH_MORE_STEPS)) for check in CHECKS],
)
@pytest.mark.parametrize(("group", "choice"), choices(), ids=lambda text: text)
def test_component(group: str, choice: str, check: Callable[[Case], None]) -> None:
    member = case(group, choice)
    if check is neutral_is_plain and member.neutral is None:
        pytest.skip("declares no neutral setting")
    check(member)


def test_the_suite_finds_what_is_there() -> None:
    assert {group for group, _ in choices()} >= {
        "advantage",
        "weight",
        "surrogate",
        "regularizer",
        "reduction",
        "shaping",
    }
    for group in GROUPS:
        assert len([choice for found, choice in choices() if found == group]) == len(
            list((CONF / group).glob("*.yaml"))
        )


def test_every_component_has_a_yaml_and_is_so_tested() -> None:
    configured = {type(member) for group, choice in choices() for member in case(group, choice).members.values()}
    written: set[type[Component]] = set()
    for info in pkgutil.walk_packages(trainer.objective.__path__, "trainer.objective."):
        for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if issubclass(cls, BASES) and cls not in BASES and not cls.__name__.startswith("_"):
                written.add(cls)
    bases = {cls for cls in written if any(cls in each.__mro__[1:] for each in configured)}
    assert {cls.__name__ for cls in written - configured - bases} == set()
