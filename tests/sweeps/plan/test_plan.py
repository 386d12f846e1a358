"""The words of a plan, and the sweep that is too dear."""

from __future__ import annotations

import pytest

from sweeps.plan.estimate import Estimate
from sweeps.plan.plan import aligned, duration, require_affordable
from sweeps.queues.local import LocalQueue
from trainer.contract.settings import ConfigError


def test_a_sweep_above_the_cap_is_refused_and_the_remedy_named() -> None:
    dear = Estimate(wall_s=60, device_s=7200)
    require_affordable(dear, LocalQueue(), 2.0)
    require_affordable(None, LocalQueue(), 2.0)  # nobody knows what the first sweep takes
    with pytest.raises(
        ConfigError, match=r"about 2.0 h of jobs in all, .*more than max_hours=1\.5: .*yes=true"
    ) as refusal:
        require_affordable(dear, LocalQueue(), 1.5)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (200_000, "2.3 d")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_as_wide_as_their_widest_entry() -> None:
    assert aligned([("a", "b"), ("long", "")]) == ["a     b", "long"]
