"""Support metrics against the published row and the identities of specification 11."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.metrics.support import Support, support


def test_published_row() -> None:
    # ProRL-v2 overall: P 2388, E 48, S 175, O 793.
    row = Support(preserved=2388, expanded=48, lost=175, unsolved=793)
    assert [round(value, 4) for value in (row.srr, row.ndr, row.sds, row.nscr)] == [0.9317, 0.0197, 0.0386, -0.0486]
    # SDS = 2PE / (P^2 + 2PE + ES)
    assert row.sds == pytest.approx(2 * 2388 * 48 / (2388**2 + 2 * 2388 * 48 + 48 * 175))


def test_counts_become_sets() -> None:
    #           both  only base  only now  neither
    change = support([3, 1, 0, 0], [1, 0, 16, 0])
    assert change == Support(preserved=1, expanded=1, lost=1, unsolved=1)
    assert change.metrics() == pytest.approx(
        {"srr": 0.5, "ndr": 0.5, "sds": 0.5, "nscr": 0.0, "preserved": 1, "expanded": 1, "lost": 1, "unsolved": 1}
    )


def test_same_model_and_swapped_models() -> None:
    generator = np.random.default_rng(0)
    base, now = generator.integers(0, 2, 50), generator.integers(0, 2, 50)
    same = support(base, base)
    assert (same.srr, same.ndr, same.sds, same.nscr) == (1.0, 0.0, 0.0, 0.0)
    forth, back = support(base, now), support(now, base)
    assert (forth.expanded, forth.lost, forth.nscr) == (back.lost, back.expanded, -back.nscr)


def test_nothing_solved_gives_zeros() -> None:
    empty = support([0, 0], [0, 0])
    assert (empty.srr, empty.ndr, empty.sds, empty.nscr, empty.unsolved) == (0.0, 0.0, 0.0, 0.0, 2)


def test_other_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="same problems"):
        support([1, 2], [1, 2, 3])
