"""Write ``docs/commands.md`` from the parsers of the command lines and the groups of ``conf/``:
``python docs/make_commands.py``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dashboards.__main__ import _parser as dashboards_parser  # noqa: E402
from sweeps.__main__ import _parser as sweeps_parser  # noqa: E402
from sweeps.cli.help import QUESTIONS  # noqa: E402
from sweeps.compose.compose import CONF, groups  # noqa: E402

HEADER = """# Command lines

Made by `python docs/make_commands.py` from the parsers and `conf/`; do not edit. `--help` says the same.
Completion in bash: `eval "$(python sweep.py -sc install=bash)"`.

| command | is for |
|---|---|
| `python sweep.py` | one run, a sweep (`-m`), a search (`-m search=NAME`), a study of claims (`-m study=claims`) |
| `python -m sweeps` | sweeps that exist: state, logs, going on, stopping |
| `python -m dashboards` | reports, tables and files, from what MLflow holds |
| `python -m trainer` | one run folder: train, `evaluate`, `export` |
"""


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, sentence and parser of every subcommand."""
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    sentences = {choice.dest: choice.help or "" for choice in found._choices_actions}
    yield from ((name, sentences[name], choice) for name, choice in found.choices.items())


def command_section(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table of subcommands with their options."""
    yield f"## {parser.prog}\n"
    yield "| command | what it does | options |\n|---|---|---|"
    for name, sentence, choice in subcommands(parser):
        actions = [action for action in choice._actions if not isinstance(action, argparse._HelpAction)]
        words = [_positional(action) for action in actions if not action.option_strings]
        options = [_option(action, choice.prog) for action in actions if action.option_strings]
        yield _row(f"`{' '.join([name, *words])}`", sentence, "<br>".join(options))
    yield ""


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest))
    return f"[{name}]" if action.nargs == "?" else name


def _option(action: argparse.Action, prog: str) -> str:
    value = str(action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "VALUE"))
    spelt = action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}")
    shown = "sqlite:///outputs/mlflow.db" if action.dest == "uri" else action.default
    text = (action.help or "").replace("%(default)s", str(shown))
    return f"`{spelt}` {text}"


def group_sections() -> Iterator[str]:
    """The groups of the configuration with their choices, and for some of them what each choice is."""
    yield "## Groups of the configuration\n"
    yield "`GROUP=CHOICE` behind `python sweep.py`. Every setting with its value: `python sweep.py --cfg job`.\n"
    yield "| group | question | choices |\n|---|---|---|"
    known = groups()
    for group in [*(name for name in QUESTIONS if name in known), *(name for name in known if name not in QUESTIONS)]:
        choices = ", ".join(f"`{choice}`" for choice in known[group])
        yield _row(
            f"`{group}`", QUESTIONS.get(group, ""), "[methods](methods.md#presets)" if group == "method" else choices
        )
    for group in ("factor", "search"):
        yield f"\n### {group}: what each choice is\n"
        yield "| choice | is |\n|---|---|"
        for choice in known[group]:
            yield _row(f"`{group}={choice}`", _comment(CONF / group / f"{choice}.yaml"))


def _comment(path: Path) -> str:
    """The comment at the head of a choice."""
    lines = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))
    words = [
        line.removeprefix("#").strip() for line in (lines[0] if lines else "").splitlines() if "@package" not in line
    ]
    return " ".join(words)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def pages() -> dict[Path, str]:
    """What the generated page should say."""
    parts = [HEADER, *command_section(sweeps_parser()), *command_section(dashboards_parser()), *group_sections()]
    return {ROOT / "docs" / "commands.md": "\n".join(parts).rstrip() + "\n"}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
