"""Run one configuration, or a sweep of them: ``python sweep.py --help``.

Everything is in :mod:`sweeps`; this file is the name people type.
"""

import sys

from sweeps.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
