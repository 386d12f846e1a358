"""``python -m sweeps plan|status|attach|logs|retry|resume|cancel|sync|gc``: inspect and control sweeps of ``sweep.py``.

It works from any terminal and after ``sweep.py`` has ended, because everything is read from the output folder.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps.after.finish import close_abandoned
from sweeps.after.leftovers import leftovers, remove, size_text
from sweeps.after.manage import cancel, load_sweep, record_lost, sync
from sweeps.grid.sweep import Document, full_name, load_document, sweep_names
from sweeps.plan.plan import aligned, screen_width
from sweeps.plan.schema import outdated_line, require_current
from sweeps.queues.base import open_queue
from sweeps.runs.progress import RunProgress
from sweeps.runs.run_folder import read_run
from sweeps.terminal.progress import URGENT
from sweeps.terminal.status import show, status_lines
from trainer.contract.errors import unusable
from trainer.contract.run_folder import last_attempt
from trainer.contract.settings import ConfigError
from trainer.contract.status import ExitCode, read_status

Cells = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 after an error message if the command cannot be used."""
    options = _parser().parse_args(arguments)
    output = options.output.expanduser().absolute()
    try:
        if options.command == "gc":
            return _gc(output, options)
        if options.study is None:
            return _list(output)
        options.study = full_name(output, options.study)
        document = load_document(output, options.study)
        command: Callable[[Path, Document, argparse.Namespace], int] = COMMANDS[options.command]
        return command(output, document, options)
    except ConfigError as error:
        for sentence in str(error).splitlines():
            print(f"error: {sentence}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION
    except (BrokenPipeError, KeyboardInterrupt):  # the pager was closed, or Ctrl-C ended `status --watch`
        return 0
    except OSError as error:
        print(f"error: {unusable(error)}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sweeps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    output_option = argparse.ArgumentParser(add_help=False)
    output_option.add_argument(
        "--output", type=Path, default=Path("outputs"), help="output folder (default: %(default)s)"
    )
    common = argparse.ArgumentParser(add_help=False, parents=[output_option])
    common.add_argument("study", nargs="?", metavar="STUDY", help="name of the sweep; left out: list all")
    cell_options = argparse.ArgumentParser(add_help=False, parents=[common])
    cell_options.add_argument("--level", help="only cells of this level (its beginning will do)")
    cell_options.add_argument("--seed", type=int, help="only cells of this seed")
    over_budget_option = argparse.ArgumentParser(add_help=False)
    over_budget_option.add_argument("--yes", action="store_true", help="even if it would take more than max_hours")

    def add(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=list(parents), help=text, description=text)

    add("plan", "what would run if the sweep were started again, and how long it would take", common)
    status = add("status", "a line per cell: state, step, reward, entropy, why it failed", cell_options)
    status.add_argument("--watch", action="store_true", help="keep the table up to date until nothing runs")
    add(
        "attach",
        "follow a sweep whose sweep.py has ended, and start what still waits",
        common,
        over_budget_option,
    )
    logs = add("logs", "the end of what cells have printed", cell_options)
    logs.add_argument("--lines", type=int, default=20, help="of each file (default: %(default)s)")
    retry = add("retry", "run again what failed or was lost, from its last checkpoint", common, over_budget_option)
    retry.add_argument(
        "which", nargs="?", default="all", choices=["failed", "lost", "all"], help="default: %(default)s"
    )
    resume = add("resume", "run what is missing or was interrupted or cancelled", common, over_budget_option)
    resume.add_argument("--retry", choices=["failed", "lost", "all"], help="also run again what ended this way")
    stop = add("cancel", "stop running cells after their step, and waiting ones before theirs", cell_options)
    stop.add_argument("--now", action="store_true", help="end jobs at once, with everything they started")
    add("sync", "fill MLflow from the run folders", common)
    gc = add("gc", "list what nothing needs any more; with --yes, delete it", output_option)
    gc.add_argument("--checkpoints", action="store_true", help="also checkpoints of completed runs")
    gc.add_argument("--outdated", action="store_true", help="also runs of another version, which nothing reuses")
    gc.add_argument("--yes", action="store_true", help="delete")
    return parser


def _list(output: Path) -> int:
    rows = [(name, _state_counts(output, name)) for name in sweep_names(output)]
    print("\n".join(aligned(rows, screen_width())) if rows else f"no sweep in {output}")
    if old := outdated_line(output):
        print(old)
    return 0


def _state_counts(output: Path, name: str) -> str:
    """The states of a sweep's cells, as their runs last wrote them."""
    try:
        cells = load_document(output, name)["cells"]
    except ConfigError as error:
        return str(error)
    statuses = [read_status(output / "runs" / cell["signature"]) for cell in cells]
    counts = Counter(status.state if status else "PLANNED" for status in statuses)
    return ", ".join(f"{counts[state]} {state.lower()}" for state in URGENT if counts[state])


def _chosen_cells(document: Document, options: argparse.Namespace) -> Cells:
    """The cells selected by ``--level`` and ``--seed``. Raises ConfigError when there is none."""
    level = _level(document["cells"], options.level)
    cells = [
        cell for cell in document["cells"] if level in (None, cell["level"]) and options.seed in (None, cell["seed"])
    ]
    if not cells:
        levels = ", ".join(dict.fromkeys(cell["level"] for cell in document["cells"]))
        seeds = ", ".join(dict.fromkeys(str(cell["seed"]) for cell in document["cells"]))
        raise ConfigError(f"no cell is left: the levels are {levels}, the seeds {seeds}")
    return cells


def _level(cells: Cells, asked: str | None) -> str | None:
    """The level that is asked for by name or label, or by the beginning of just one; otherwise what was asked."""
    for matches in (str.__eq__, str.startswith):
        found = {
            cell["level"] for cell in cells if asked and any(matches(cell[key], asked) for key in ("level", "label"))
        }
        if len(found) == 1:
            return str(found.pop())
    return asked


def _run_dirs(output: Path, cells: Cells) -> list[Path]:
    return [output / "runs" / cell["signature"] for cell in cells]


def _status(output: Path, document: Document, options: argparse.Namespace) -> int:
    cells = _chosen_cells(document, options)
    runs = [
        RunProgress(run_dir=run_dir, level=cell["label"], seed=str(cell["seed"]))
        for run_dir, cell in zip(_run_dirs(output, cells), cells, strict=True)
    ]
    run_dirs, concurrency = [run.run_dir for run in runs], 1
    trainer: tuple[str, ...] = ()
    if (run_dirs[0] / "run.yaml").exists():
        config = read_run(run_dirs[0])
        queue = open_queue(config["launcher"], [config])
        trainer, concurrency = queue.trainer, queue.concurrency

    def refresh_states() -> None:
        record_lost(run_dirs, trainer)

    if options.watch:
        show(runs, sys.stdout, before_each=refresh_states, concurrency=concurrency)
        return 0
    refresh_states()
    for run in runs:
        run.refresh()
    table = status_lines(runs, concurrency=concurrency, width=screen_width())
    print("\n".join([*table, *filter(None, [outdated_line(output)])]))
    return 0


def _logs(output: Path, document: Document, options: argparse.Namespace) -> int:
    cells = _chosen_cells(document, options)
    for cell, run_dir in zip(cells, _run_dirs(output, cells), strict=True):
        attempt = last_attempt(run_dir)
        for name in ("out", "err"):
            path = attempt / name if attempt is not None else None
            lines = path.read_text(errors="replace").splitlines() if path is not None and path.exists() else []
            if lines:
                print(f"==> {cell['label']}, seed {cell['seed']}: {path} <==")
                print("\n".join(lines[-options.lines :]))
    return 0


def _cancel(output: Path, document: Document, options: argparse.Namespace) -> int:
    if document.get("search") and options.level is None and options.seed is None:
        (output / "sweeps" / options.study / "STOP").touch()
    count = cancel(_run_dirs(output, _chosen_cells(document, options)), now=options.now)
    print(
        f"{count} cell{'s' * (count != 1)} asked to stop; "
        f"to go on, start the same sweep again, or `python -m sweeps resume {options.study}`"
    )
    return 0


def _relaunch(output: Path, document: Document, options: argparse.Namespace) -> int:
    """plan, attach, retry and resume: run the sweep again from the frozen configurations in its run folders."""
    if document.get("search"):
        from sweeps.search.resume import resume_search

        return resume_search(output, document, plan=options.command == "plan", yes=getattr(options, "yes", False))
    from sweeps.launch import Request, run_sweep

    retry = {"retry": getattr(options, "which", None), "resume": getattr(options, "retry", None)}.get(options.command)
    limit = math.inf if getattr(options, "yes", False) else float(document.get("max_hours") or math.inf)
    request = Request(
        multirun=bool(document.get("multirun", True)),
        plan=options.command == "plan",
        retry=retry,
        only_waiting=options.command == "attach",
        max_hours=limit,
    )
    sweep = load_sweep(output, document)
    require_current(sweep.cells[0].config, sweep.command)
    return run_sweep(sweep, request)


def _sync(output: Path, document: Document, options: argparse.Namespace) -> int:
    sweep = load_sweep(output, document)
    code = sync([sweep.run_dir(cell) for cell in sweep.cells], sweep.cells[0].config["launcher"]["trainer"])
    close_abandoned(sweep)
    return code


def _gc(output: Path, options: argparse.Namespace) -> int:
    candidates = leftovers(output, checkpoints=options.checkpoints, old_schema=options.outdated)
    for leftover in candidates:
        size = size_text(leftover.size)
        outcome = ("removed" if remove(leftover) else "in use now") if options.yes else "would go"
        print(f"{outcome}: {leftover.path} ({size}, {leftover.why})")
    if not candidates:
        print(f"nothing to remove in {output}")
    elif not options.yes:
        print("nothing was removed: add --yes")
    return 0


COMMANDS = {
    "plan": _relaunch,
    "status": _status,
    "attach": _relaunch,
    "logs": _logs,
    "retry": _relaunch,
    "resume": _relaunch,
    "cancel": _cancel,
    "sync": _sync,
}

if __name__ == "__main__":
    sys.exit(main())
