"""Speed and memory, measured side by side with the peers. Run from the root: ``python -m benchmarks.NAME``.

Nothing in the application imports this package. See README.md beside this file.
"""
