"""Where jobs run: one file per kind of queue, chosen with ``launcher=NAME``."""
