"""``python -m trainer evaluate``: a run, a folder or a hub model on its own suites or on named ones."""
