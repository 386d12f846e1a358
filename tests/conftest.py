"""Shared by the whole suite: no network, one thread for torch, helper modules on the path."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell that starts us in the background ignores Ctrl-C for us and all our children; the tests send it to them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Test files are imported one by one (importmode=importlib), so what they share lives in a folder of its own.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

with contextlib.suppress(ImportError):  # a machine lent for its GPU has no beartype either
    from shape_checking import install

    install(Path(__file__).parents[1])

with contextlib.suppress(ImportError):  # a machine lent for its GPU has no hypothesis, and its tests need none
    from hypothesis import settings

    # The same examples every time, and none fails because the machine was busy.
    settings.register_profile("suite", deadline=None, derandomize=True, database=None)
    settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs come first and small tests last, so that no process is left alone with a long file at the end."""
    root = Path(__file__).parent
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.parent not in (root, root / "end_to_end"), -slow[item.path]))


@pytest.fixture(autouse=True, scope="module")
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one state a process and refuses another precision: no test file inherits an earlier one's."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
