"""Checkpoints, and where a run came from."""
