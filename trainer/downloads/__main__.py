"""``python -m trainer.downloads model|data``: what ``make real-model`` and ``make real-data`` run.

Exit codes: 0 everything is there, 2 something could not be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from trainer.contract.settings import ConfigError


def main(arguments: list[str]) -> int:
    """Bring what was asked for and say where it is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.downloads", description=__doc__)
    parser.add_argument("what", choices=("model", "data"))
    what = parser.parse_args(arguments).what
    failed = 0
    for fetch in _jobs(what):
        try:
            folder, created = fetch()
            print(f"{folder} {'is ready' if created else 'is there already'}", flush=True)
        except (ConfigError, OSError) as error:
            print(error, file=sys.stderr)
            failed = 2
    return failed


def _jobs(what: str) -> list[Callable[[], tuple[Path, bool]]]:
    if what == "model":
        from trainer.downloads import smollm2

        return [smollm2.fetch]
    from functools import partial

    from trainer.downloads import problems

    return [partial(problems.fetch, each) for each in problems.ALL]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
