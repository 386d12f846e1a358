"""Write ``tests/golden/methods.json``: ``python tests/golden/make_golden.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parent.parent)]

from golden import GOLDEN, PRESETS, measured  # noqa: E402

if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({preset: measured(preset) for preset in PRESETS}, indent=1, sort_keys=True) + "\n")
