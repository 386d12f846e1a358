"""What other packages import without need."""

from __future__ import annotations

import sys


def leave_out_sklearn() -> None:
    """Tell transformers that scikit-learn is absent; nobody else. Call it before a model class is imported.

    transformers imports it, and with it scipy, for a kind of assisted decoding that is not used here: a quarter of what
    a process imports before its first step. It asks once whether the package exists and remembers the answer.
    """
    if "sklearn" in sys.modules:
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # Python's own mark of a module that cannot be found
    try:
        from transformers.utils.import_utils import is_sklearn_available

        is_sklearn_available()
    finally:
        del sys.modules["sklearn"]
