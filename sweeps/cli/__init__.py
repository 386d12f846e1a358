"""The command line of ``sweep.py``."""
