"""How idle OpenMP threads are told to wait: it has to be said before torch is imported, and only once."""

from __future__ import annotations

import os

import pytest

from trainer.__main__ import _let_threads_wait


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
    ids=["nothing said", "turns said", "policy said"],
)
def test_threads_look_around_before_they_sleep(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    _let_threads_wait()
    assert os.environ == expected
