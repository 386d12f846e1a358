"""``python -m trainer RUN_DIR ...``: train the runs in these folders, one after another, with one engine.

Started by the jobs of a sweep, or by hand. Exit codes: 0 done, 2 bad configuration, 10 stopped on request, 20
preempted, 30 another process has the run, 130 interrupted, 1 crashed. ``--check`` validates configurations from
standard input; ``--sync`` fills the MLflow mirror of runs from their folders. ``python -m trainer
export RUN`` writes the model of a run's last checkpoint, ``python -m trainer evaluate RUN_OR_MODEL`` examines one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from trainer.contract.status import ExitCode
from trainer.storage.record import RunFolder
from trainer.supervise import run_all, say


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["export"]:
        from trainer.storage import export
        from trainer.tracking.mlflow_model import log_model, mlflow_run

        return export.main(arguments[1:], mlflow_run, log_model)
    if arguments[:1] == ["evaluate"]:
        _let_threads_wait()
        from trainer.suites import command

        return command.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUN_DIR", help="folder with a run.yaml")
    parser.add_argument(
        "--check", action="store_true", help="validate JSON lines {config, where} from standard input and start nothing"
    )
    parser.add_argument(
        "--sync", action="store_true", help="bring MLflow up to date with the folders and train nothing"
    )
    options = parser.parse_args(arguments)
    _let_threads_wait()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if options.check:
        return check(sys.stdin.read())
    if not options.folders:
        parser.error("name at least one run folder")
    try:
        return sync_all(options.folders) if options.sync else run_all(options.folders)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoint")
        return ExitCode.INTERRUPTED


def _let_threads_wait() -> None:
    """Idle OpenMP threads spin for some microseconds, then sleep; must be said before torch is imported.

    Without a word they spin for milliseconds, which makes a step four times slower beside another busy process. Asleep
    at once they have to be woken for each of the thousands of small operators of a step, up to a quarter of its time.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def check(lines: str) -> int:
    """One sentence for each configuration that cannot run; the exit code is 2 if there is any.

    A line is a JSON object with the resolved ``config`` and, if wanted, ``where`` it comes from, which is quoted, and
    ``here``, false if it is for another machine.
    """
    from trainer.objective.base import Diagnostic
    from trainer.setup.checks import problems

    failed = False
    for number, line in enumerate(lines.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if isinstance(request, dict) and isinstance(request.get("config"), dict):
            diagnostics, where = problems(request["config"], here=request.get("here", True)), request.get("where")
        else:
            diagnostics, where = [Diagnostic(message='not a JSON object with a "config"')], f"line {number}"
        for problem in diagnostics:
            prefix = "" if problem.fatal else "warning: "
            print(f"{prefix}{problem.message}{f' (in {where})' if where else ''}", flush=True)
            failed = failed or problem.fatal
    return ExitCode.BAD_CONFIGURATION if failed else ExitCode.DONE


def sync_all(folders: list[Path]) -> int:
    """Fill the mirror of every folder; one sentence for each that cannot be filled, and then the exit code is 1.

    A store that does not answer is asked once, not once for every folder.
    """
    from trainer.contract.errors import is_unreachable, reason
    from trainer.contract.store import require_answer
    from trainer.tracking.mlflow_copy import store_of, sync

    failed, silent = 0, dict[str, Exception]()
    for folder in folders:
        uri = None
        try:
            uri = store_of(RunFolder(folder))
            if uri in silent:
                raise silent[uri]
            require_answer(uri)
            sync(folder)
        except Exception as error:  # the boundary to MLflow, which raises whatever its store raises
            say(f"{folder} could not be brought to MLflow: {reason(error)}")
            if uri is not None and is_unreachable(error):
                silent[uri] = error
            failed += 1
    return ExitCode.CRASHED if failed else ExitCode.DONE


def _let_go() -> None:
    """Forget output that found no room: Python would try again at its end, fail, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    code = main()
    _let_go()
    sys.exit(code)
