"""Loss and gradient norm of every preset on one fixed batch, against committed numbers.

A number that moves is either a mistake or a change of the method; ``python tests/golden/make_golden.py`` writes the
new ones, and the commit that does so says why.
"""

from __future__ import annotations

import json

import pytest
from golden import GOLDEN, PRESETS, measured

EXPECTED = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}


@pytest.mark.parametrize("preset", PRESETS)
def test_loss_and_gradient_norm(preset: str) -> None:
    assert preset in EXPECTED, f"no golden number of {preset}: run python tests/golden/make_golden.py"
    for name, value in measured(preset).items():
        # Advantages and weights are float32, so another order of summation moves these by about 1e-7.
        assert value == pytest.approx(EXPECTED[preset][name], rel=2e-5, abs=1e-9), name


def test_no_number_of_a_preset_that_is_gone() -> None:
    assert set(EXPECTED) == set(PRESETS)


def test_methods_differ() -> None:
    """Each paper's preset does something of its own on this batch, on the first update or on a later one."""
    alike: dict[str, list[str]] = {}
    for preset, values in EXPECTED.items():
        alike.setdefault(json.dumps(values), []).append(preset)
    assert [names for names in alike.values() if len(names) > 1 and not set(names) <= SAME] == []


SAME = {
    "grpo",
    "dynamic_sampling",
    "temperature_schedule",
    "cure",
    "small/cure",
    "small/temperature_schedule",
    "overlong",
    "small/overlong",
}
"""Presets that differ from plain GRPO in how they sample, or on responses that this batch does not have."""
