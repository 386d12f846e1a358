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
