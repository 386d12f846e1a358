"""Hydra configurations: composing them, filling in defaults, explaining errors."""
