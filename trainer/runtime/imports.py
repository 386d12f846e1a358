"""What other packages import without need."""

from __future__ import annotations

import sys

UNUSED = ("sklearn", "scipy")
"""transformers imports them with every model: for a kind of assisted decoding, and for the loss of detectors."""


def leave_out_unused() -> None:
    """Tell transformers that some packages are absent; nobody else. Call it before a model class is imported.

    They are a fifth of what a process imports before it can check a configuration. transformers asks once whether a
    package exists and remembers the answer.
    """
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # Python's own mark of a module that is not found
    try:
        from transformers.utils.import_utils import is_scipy_available, is_sklearn_available

        is_sklearn_available()
        is_scipy_available()
    finally:
        for name in hidden:
            del sys.modules[name]
