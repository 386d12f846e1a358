"""Sweeps and runs as data frames: for Python, as files, for other trackers, and for the download of a page."""
