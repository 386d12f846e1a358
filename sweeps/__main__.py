"""``python -m sweeps plan|status|attach|logs|retry|resume|cancel|sync|gc``: look after sweeps of ``sweep.py``.

For people, also from another terminal and after the launcher has gone: everything is read from the output folder.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps.after.finish import close_abandoned
from sweeps.after.leftovers import leftovers, remove, size_text
from sweeps.after.manage import cancel, drop_lost, reopened, sync
from sweeps.grid import sweep as studies
from sweeps.plan.schema import outdated_line, require_current
from sweeps.queues.base import open_queue
from sweeps.runs.progress import Followed
from sweeps.runs.run_folder import read_run
from sweeps.terminal.status import show, status_lines
from trainer.contract.config import ConfigError
from trainer.contract.errors import unusable
from trainer.contract.run_folder import last_attempt
from trainer.contract.status import ExitCode

Cells = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 after one sentence if it makes no sense."""
    options = _parser().parse_args(arguments)
    output = options.output.expanduser().absolute()
    try:
        if options.command == "gc":
            return _gc(output, options)
        if options.study is None:
            return _list(output)
        document = studies.load(output, options.study)
        command: Callable[[Path, studies.Document, argparse.Namespace], int] = COMMANDS[options.command]
        return command(output, document, options)
    except ConfigError as error:
        for sentence in str(error).splitlines():
            print(f"error: {sentence}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION
    except (BrokenPipeError, KeyboardInterrupt):  # a pager that was closed, a table that was watched long enough
        return 0
    except OSError as error:
        print(f"error: {unusable(error)}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sweeps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--output", type=Path, default=Path("outputs"), help="output folder (default: %(default)s)")
    common = argparse.ArgumentParser(add_help=False, parents=[place])
    common.add_argument("study", nargs="?", metavar="STUDY", help="name of the sweep; left out: list all")
    chosen = argparse.ArgumentParser(add_help=False, parents=[common])
    chosen.add_argument("--level", help="only cells of this level")
    chosen.add_argument("--seed", type=int, help="only cells of this seed")
    means_it = argparse.ArgumentParser(add_help=False)
    means_it.add_argument("--yes", action="store_true", help="even if it would take more than max_hours")

    def add(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=list(parents), help=text, description=text)

    add("plan", "what would run if the sweep were started again, and how long it would take", common)
    status = add("status", "a line per cell: state, step, reward, entropy, why it failed", chosen)
    status.add_argument("--watch", action="store_true", help="keep the table up to date until nothing runs")
    add("attach", "take the launcher's place: follow what runs, start what still waits", common, means_it)
    logs = add("logs", "the end of what cells have printed", chosen)
    logs.add_argument("--lines", type=int, default=20, help="of each file (default: %(default)s)")
    retry = add("retry", "run again what failed or was lost, from its last checkpoint", common, means_it)
    retry.add_argument(
        "which", nargs="?", default="all", choices=["failed", "lost", "all"], help="default: %(default)s"
    )
    resume = add("resume", "run what is missing or was interrupted or cancelled", common, means_it)
    resume.add_argument("--retry", choices=["failed", "lost", "all"], help="also run again what ended this way")
    stop = add("cancel", "stop running cells after their step, and waiting ones before theirs", chosen)
    stop.add_argument("--now", action="store_true", help="end jobs at once, with everything they started")
    add("sync", "fill MLflow from the run folders", common)
    gc = add("gc", "list what nothing needs any more; with --yes, delete it", place)
    gc.add_argument("--checkpoints", action="store_true", help="also checkpoints of completed runs")
    gc.add_argument("--outdated", action="store_true", help="also runs of another version, which nothing reuses")
    gc.add_argument("--yes", action="store_true", help="delete")
    return parser


def _list(output: Path) -> int:
    names = studies.names(output)
    print("\n".join(names) if names else f"no sweep in {output}")
    if old := outdated_line(output):
        print(old)
    return 0


def _chosen(document: studies.Document, options: argparse.Namespace) -> Cells:
    """Cells that ``--level`` and ``--seed`` leave. Raises ConfigError when none is left."""
    cells = [
        cell
        for cell in document["cells"]
        if options.level in (None, cell["level"], cell["label"]) and options.seed in (None, cell["seed"])
    ]
    if not cells:
        levels = ", ".join(dict.fromkeys(cell["level"] for cell in document["cells"]))
        seeds = ", ".join(dict.fromkeys(str(cell["seed"]) for cell in document["cells"]))
        raise ConfigError(f"no cell is left: the levels are {levels}, the seeds {seeds}")
    return cells


def _run_dirs(output: Path, cells: Cells) -> list[Path]:
    return [output / "runs" / cell["signature"] for cell in cells]


def _status(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    cells = _chosen(document, options)
    runs = [
        Followed(run_dir=run_dir, level=cell["label"], seed=str(cell["seed"]))
        for run_dir, cell in zip(_run_dirs(output, cells), cells, strict=True)
    ]
    run_dirs, concurrency = [run.run_dir for run in runs], 1
    trainer: tuple[str, ...] = ()
    if (run_dirs[0] / "run.yaml").exists():
        config = read_run(run_dirs[0])
        queue = open_queue(config["launcher"], [config])
        trainer, concurrency = queue.trainer, queue.concurrency

    def look() -> None:
        drop_lost(run_dirs, trainer)

    if options.watch:
        show(runs, sys.stdout, look=look, concurrency=concurrency)
        return 0
    look()
    for run in runs:
        run.refresh()
    print("\n".join([*status_lines(runs, concurrency=concurrency), *filter(None, [outdated_line(output)])]))
    return 0


def _logs(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    cells = _chosen(document, options)
    for cell, run_dir in zip(cells, _run_dirs(output, cells), strict=True):
        attempt = last_attempt(run_dir)
        for name in ("out", "err"):
            path = attempt / name if attempt is not None else None
            lines = path.read_text(errors="replace").splitlines() if path is not None and path.exists() else []
            if lines:
                print(f"==> {cell['label']}, seed {cell['seed']}: {path} <==")
                print("\n".join(lines[-options.lines :]))
    return 0


def _cancel(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    if document.get("search") and options.level is None and options.seed is None:
        (output / "sweeps" / options.study / "STOP").touch()
    asked = cancel(_run_dirs(output, _chosen(document, options)), now=options.now)
    print(
        f"{asked} cell{'s' * (asked != 1)} asked to stop; "
        f"to go on, start the same sweep again, or `python -m sweeps resume {options.study}`"
    )
    return 0


def _again(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    """plan, attach, retry and resume: the launcher once more, over the frozen configurations."""
    if document.get("search"):
        from sweeps.search.resume import again

        return again(output, document, plan=options.command == "plan", yes=getattr(options, "yes", False))
    from sweeps.launch import Request, run_study

    wish = {"retry": getattr(options, "which", None), "resume": getattr(options, "retry", None)}.get(options.command)
    limit = math.inf if getattr(options, "yes", False) else float(document.get("max_hours") or math.inf)
    request = Request(
        multirun=bool(document.get("multirun", True)),
        plan=options.command == "plan",
        retry=wish,
        only_waiting=options.command == "attach",
        max_hours=limit,
    )
    study = reopened(output, document)
    require_current(study.cells[0].config, study.command)
    return run_study(study, request)


def _sync(output: Path, document: studies.Document, options: argparse.Namespace) -> int:
    study = reopened(output, document)
    code = sync([study.run_dir(cell) for cell in study.cells], study.cells[0].config["launcher"]["trainer"])
    close_abandoned(study)
    return code


def _gc(output: Path, options: argparse.Namespace) -> int:
    found = leftovers(output, checkpoints=options.checkpoints, old_schema=options.outdated)
    for leftover in found:
        size = size_text(leftover.size)
        done = ("removed" if remove(leftover) else "in use now") if options.yes else "would go"
        print(f"{done}: {leftover.path} ({size}, {leftover.why})")
    if not found:
        print(f"nothing to remove in {output}")
    elif not options.yes:
        print("nothing was removed: add --yes")
    return 0


COMMANDS = {
    "plan": _again,
    "status": _status,
    "attach": _again,
    "logs": _logs,
    "retry": _again,
    "resume": _again,
    "cancel": _cancel,
    "sync": _sync,
}

if __name__ == "__main__":
    sys.exit(main())
