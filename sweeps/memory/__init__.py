"""Estimates the memory of a run on its device, by part, from its configuration and the model's ``config.json``."""
