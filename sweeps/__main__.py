"""``python -m sweeps status|cancel|resume|sync``: look after sweeps that were started with ``sweep.py``.

For people, also from another terminal and after the launcher has gone: everything is read from the output folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps import study as studies
from sweeps.follow import Followed
from sweeps.manage import cancel, reopened, status_lines
from trainer.config import ConfigError

BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 after one sentence if it makes no sense."""
    options = _parser().parse_args(arguments)
    output = options.output.expanduser().absolute()
    try:
        if options.study is None:
            return _list(output)
        document = studies.load(output, options.study)
        commands = {"status": _status, "cancel": _cancel, "resume": _resume, "sync": _sync}
        return commands[options.command](output, document, options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_CONFIGURATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sweeps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("study", nargs="?", metavar="STUDY", help="name of the sweep; left out: list all")
    common.add_argument("--output", type=Path, default=Path("outputs"), help="output folder (default: %(default)s)")
    status = commands.add_parser(
        "status", parents=[common], help="a line per cell: state, step, reward, entropy, why it failed"
    )
    status.add_argument("--watch", action="store_true", help="refresh every two seconds until nothing runs")
    stop = commands.add_parser(
        "cancel", parents=[common], help="stop running cells after their step, and waiting ones before theirs"
    )
    stop.add_argument("--now", action="store_true", help="kill local jobs instead of waiting for their step")
    resume = commands.add_parser(
        "resume", parents=[common], help="run what is missing or was interrupted, from the frozen configurations"
    )
    resume.add_argument("--retry", choices=["failed", "lost", "all"], help="also run again what ended this way")
    commands.add_parser("sync", parents=[common], help="fill MLflow from the run folders")
    return parser


def _list(output: Path) -> int:
    names = studies.names(output)
    print("\n".join(names) if names else f"no sweep in {output}")
    return 0


def _status(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    while True:
        runs = [
            Followed(run_dir=output / "runs" / cell["signature"], name=f"{cell['label']}, seed {cell['seed']}")
            for cell in document["cells"]
        ]
        lines = status_lines(runs)
        if options.watch and sys.stdout.isatty():
            print("\x1b[H\x1b[J", end="")
        print("\n".join(lines), flush=True)
        if not options.watch or all(run.state not in ("QUEUED", "RUNNING") for run in runs):
            return 0
        time.sleep(2)


def _cancel(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    asked = cancel([output / "runs" / cell["signature"] for cell in document["cells"]], now=options.now)
    print(
        f"{asked} cell{'s' * (asked != 1)} asked to stop; "
        f"to go on, start the same sweep again, or `python -m sweeps resume {options.study}`"
    )
    return 0


def _resume(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    from sweeps.launch import Request, run_study

    return run_study(
        reopened(output, document), Request(multirun=bool(document.get("multirun", True)), retry=options.retry)
    )


def _sync(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    study = reopened(output, document)
    trainer = study.cells[0].config["launcher"]["trainer"]
    folders = [str(study.run_dir(cell)) for cell in study.cells]
    return subprocess.run([sys.executable, *trainer, "--sync", *folders], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
