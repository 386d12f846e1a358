"""``python -m dashboards report|search|claims|verdicts|rollouts|table|list|export|record|mirror``: reports, tables and
files of the sweeps and runs in an MLflow store, and of a run from its folder.

A study is the name of a sweep (``study.name``); of several sweeps with one name the newest is shown. An error is one
line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import re
import sys
import webbrowser
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dashboards.store.open import open_store
from dashboards.store.store import default_uri

_REPORTS = Path("outputs/reports")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    # Replace characters that the terminal's encoding lacks, such as the minus sign, instead of raising.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    commands = {
        "report": _report,
        "search": _search,
        "rollouts": _rollouts,
        "table": _table,
        "claims": _claims,
        "verdicts": _verdicts,
        "record": _record,
        "list": _list,
        "export": _export,
        "mirror": _mirror,
    }
    try:
        commands[options.command](options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or 'the page was not written'}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboards", description="Reports and tables of studies, read from MLflow."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--uri", default=default_uri(), help="MLflow tracking URI (default: %(default)s, or MLFLOW_TRACKING_URI)"
    )
    page = argparse.ArgumentParser(add_help=False)
    page.add_argument(
        "--output", type=Path, help="file to write (default: a file below outputs/reports, or in the run's folder)"
    )
    page.add_argument("--open", action="store_true", help="open the page in a browser")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument(
        "study", metavar="STUDY", help="name of a study (its newest sweep), or a sweep's run id or run name"
    )
    either = argparse.ArgumentParser(add_help=False)
    either.add_argument(
        "study",
        metavar="STUDY_OR_RUN",
        help="a study (its newest sweep), a sweep's run id or run name, a run's signature, its MLflow run id or its "
        "folder OUTPUT/runs/SIGNATURE",
    )
    report = commands.add_parser(
        "report", parents=[either, common, page], help="write the self-contained HTML report of a study or a run"
    )
    report.add_argument("--log", action="store_true", help="also attach it to the MLflow run as report.html")
    report.add_argument(
        "--mlflow-ui", metavar="URL", help="address that links to runs begin with (default: the server, or mlflow ui's)"
    )
    _add_search(commands, common, page)
    rollouts = commands.add_parser("rollouts", parents=[page], help="write a page of one run's responses")
    rollouts.add_argument("run", metavar="RUN", type=Path, help="folder of a run, OUTPUT/runs/SIGNATURE")
    rollouts.add_argument("--only", choices=("correct", "incorrect"), help="leave the others out")
    rollouts.add_argument(
        "--most", choices=("surprising", "influential"), help="the most so first, where many are kept"
    )
    commands.add_parser("table", parents=[one, common], help="print one row a level and the verdict")
    _add_claims(commands, common, page)
    commands.add_parser("verdicts", parents=[common, page], help="the hypothesis of every sweep, printed and as a page")
    commands.add_parser("list", parents=[common], help="list the studies of the store")
    _add_copies(commands, either, common)
    return parser


def _add_claims(commands: Any, *parents: argparse.ArgumentParser) -> None:
    claims = commands.add_parser(
        "claims", parents=parents, help="judge the claims of the literature (python sweep.py -m study=claims)"
    )
    claims.add_argument("study", metavar="STUDY", nargs="?", help="name of the study (default: the newest of claims)")
    claims.add_argument("--markdown", type=Path, help="also write the table to this file")
    claims.add_argument(
        "--beside", metavar="STUDY", help="a second study of the same claims (testbed=real), in a column of its own"
    )
    claims.add_argument(
        "--beside-uri", metavar="URI", help="where that one is, if elsewhere; a record's folder will do"
    )
    claims.add_argument("--undecided", action="store_true", help="print only the numbers of the undecided, as JSON")
    claims.add_argument("--check", action="store_true", help="only check claims, as JSON on standard input")


def _add_copies(commands: Any, *parents: argparse.ArgumentParser) -> None:
    export = commands.add_parser("export", parents=parents, help="write a study or a run as CSV or Parquet files")
    export.add_argument("--format", choices=("csv", "parquet"), default="csv", help="default: %(default)s")
    record = commands.add_parser(
        "record", parents=parents, help="keep a study as files that every command reads (--uri)"
    )
    mirror = commands.add_parser("mirror", parents=parents, help="copy a study or a run to TensorBoard or W&B")
    mirror.add_argument("--to", choices=("tensorboard", "wandb"), required=True, help="which package, if installed")
    for command in (export, record, mirror):
        command.add_argument("--output", type=Path, help="folder to write to (default: a folder below outputs)")


def _add_search(commands: Any, *parents: argparse.ArgumentParser) -> None:
    search = commands.add_parser(
        "search", parents=parents, help="write the report of a search (python sweep.py -m search=...)"
    )
    search.add_argument("search", metavar="SEARCH", help="name of a search, or its folder OUTPUT/sweeps/NAME")
    search.add_argument(
        "--folder", type=Path, default=Path("outputs"), help="output folder the search wrote to (default: %(default)s)"
    )
    search.add_argument("--log", action="store_true", help="also attach it to the search's MLflow run as report.html")
    search.add_argument("--summary", action="store_true", help="write report/summary.json alone, without the page")


def _search(options: argparse.Namespace) -> None:
    location = Path(options.search)
    folder = location if (location / "sweep.json").exists() else options.folder / "sweeps" / options.search
    if not folder.is_dir():
        known = sorted(path.parent.name for path in options.folder.glob("sweeps/*/study.journal"))
        raise ValueError(
            f"no search named {options.search!r} in {options.folder / 'sweeps'}: "
            f"{'there are ' + ', '.join(known) if known else 'it holds none'}"
        )
    if options.summary:
        from dashboards.search.report import write_summary

        print(f"summary: {write_summary(folder)}")
    else:
        _report_search(options, folder)


def _report_search(options: argparse.Namespace, folder: Path) -> None:
    from dashboards.search.report import report_search

    path = report_search(folder, uri=options.uri if options.log else None, output=options.output)
    print(f"report: {path}")
    if options.log:
        print("attached to the search's MLflow run as report.html")
    _open(options, path)


def _report(options: argparse.Namespace) -> None:
    from dashboards.page.report import log_report, write_report
    from dashboards.page.run import write_run
    from dashboards.sweep.run import load, named_search

    if folder := named_search(options.uri, options.study):
        _report_search(options, folder)
        return
    sweep = load(options.uri, options.study)
    if options.log and "://" not in sweep.uri:
        raise ValueError(f"--log attaches to an MLflow run: name the run by its signature, {sweep.name}")
    target = options.output or _REPORTS / f"{_file_name(sweep.name)}.html"
    write = write_report if sweep.parent.tags.get("kind") == "sweep" else write_run
    path = write(sweep, target, options.mlflow_ui)
    print(f"report: {path}")
    if options.log:
        log_report(sweep, path)
        print(f"attached to MLflow run {sweep.parent.run_id} as report.html")
    _open(options, path)


def _export(options: argparse.Namespace) -> None:
    from dashboards.data.export import export
    from dashboards.data.frames import load

    frames = load(options.study, options.uri)
    folder = options.output or Path("outputs/exports") / _file_name(frames.name)
    for path in export(frames, folder, options.format):
        print(path)


def _mirror(options: argparse.Namespace) -> None:
    from dashboards.data.frames import load
    from dashboards.data.mirrors import mirror

    frames = load(options.study, options.uri)
    print(mirror(frames, options.to, options.output or Path("outputs") / options.to))


def _rollouts(options: argparse.Namespace) -> None:
    from dashboards.page.rollouts import write_rollouts

    path = write_rollouts(options.run, options.output, options.only, options.most)
    print(f"page: {path}")
    _open(options, path)


def _table(options: argparse.Namespace) -> None:
    from dashboards.page.terminal import level_table
    from dashboards.sweep.load import load_sweep

    print(level_table(load_sweep(options.uri, options.study)))


def _claims(options: argparse.Namespace) -> None:
    from dashboards.claims.study import check, load_study, undecided, verdicts

    if options.check:
        check(sys.stdin.read())
        return
    study = load_study(options.uri, options.study)
    results = verdicts(study)
    if options.undecided:
        print(undecided(results))
        return
    from dashboards.claims.beside import Beside
    from dashboards.claims.page import write_claims
    from dashboards.claims.text import markdown, verdicts_table
    from dashboards.store.files import write_atomically

    beside = Beside.of(load_study(options.beside_uri or options.uri, options.beside)) if options.beside else None
    path = write_claims(study, results, options.output or _REPORTS / f"{_file_name(study.sweep.name)}.html", beside)
    print(verdicts_table(results, beside))
    print(f"\npage: {path}")
    if options.markdown:
        write_atomically(markdown(results, study.sweep, beside), options.markdown)
        print(f"table: {options.markdown}")
    _open(options, path)


def _verdicts(options: argparse.Namespace) -> None:
    from dashboards.page.verdicts import load_verdicts, verdicts_text, write_verdicts

    results = load_verdicts(options.uri)
    path = write_verdicts(results, options.uri, options.output or _REPORTS / "verdicts.html")
    print(verdicts_text(results))
    print(f"\npage: {path}")
    _open(options, path)


def _record(options: argparse.Namespace) -> None:
    from dashboards.data.record import write_record
    from dashboards.sweep.load import load_sweep

    sweep = load_sweep(options.uri, options.study)
    folder = options.output or Path("outputs/records") / _file_name(sweep.name)
    for path in write_record(open_store(options.uri), sweep, folder):
        print(path)


def _list(options: argparse.Namespace) -> None:
    from dashboards.page.terminal import aligned
    from dashboards.sweep.load import list_sweeps

    parents = list_sweeps(open_store(options.uri))
    if not parents:
        print(f"the MLflow store {options.uri} holds no sweep yet")
        return
    rows = [
        [
            parent.tags.get("study") or parent.name,
            f"{datetime.fromtimestamp(parent.start_time, UTC):%Y-%m-%d %H:%M}",
            parent.status,
            parent.run_id,
        ]
        for parent in parents
    ]
    print("\n".join(aligned([["study", "begun (UTC)", "status", "run id"], *rows], rule_after=1)))


def _open(options: argparse.Namespace, path: Path) -> None:
    if options.open:
        webbrowser.open(path.resolve().as_uri())


def _file_name(study: str) -> str:
    """A study's name as a file name: the name may contain any character, also a path separator."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", study).lstrip(".") or "study"


if __name__ == "__main__":
    sys.exit(main())
