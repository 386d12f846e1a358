"""Shared by the whole suite: no network, one thread for torch, helper modules on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Test files are imported one by one (importmode=importlib), so what they share lives in a folder of its own.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
