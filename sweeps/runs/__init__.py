"""Run folders as ``sweeps`` reads and writes them."""
