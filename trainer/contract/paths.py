"""Paths of the project: its root folder, and the model that ships with it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds ``trainer``, ``sweeps``, ``dashboards`` and ``conf``."""

SHIPPED_MODEL = ROOT / "trainer" / "assets" / "countdown-tiny"
"""The language model that comes with the project."""
