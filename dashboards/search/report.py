"""The report of one search: ``report/index.html`` and ``report/summary.json`` in its folder, and its upload."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from dashboards.page.links import shown_uri
from dashboards.page.page import Section, render
from dashboards.page.report import attach_page
from dashboards.search.conclusion import conclude
from dashboards.search.confirm import Confirmation, TunedComparison, load_confirmation
from dashboards.search.figures import MARKS, value_text
from dashboards.search.load import COMPLETE, FAILED, PRUNED, RUNNING, WAITING, SearchData, TrialRecord, load_search
from dashboards.search.outcome import Saving, front, saving, tuned_trials
from dashboards.search.sections import parameter_columns, search_sections
from dashboards.statistics.format import number
from dashboards.store.files import write_atomically
from dashboards.store.open import open_store
from dashboards.sweep.load import find_parent, list_sweeps

SUMMARY, PAGE = "summary.json", "index.html"
MAX_NAMED_PARAMETERS = 4
"""The title of the page names up to this many parameters; more are only counted."""
_SIGNATURE = re.compile(r"[0-9a-f]{6,64}")


def report_search(folder: Path, *, uri: str | None = None, output: Path | None = None) -> Path:
    """Write the search's page (to ``output`` or ``report/index.html`` of its folder) and its numbers beside the
    sweep; with ``uri``, attach the page to the search's parent run there. Returns the page.

    Raises ValueError in one sentence when there is no such search or the store has no run of it.
    """
    search = load_search(folder)
    confirmation = load_confirmation(search)
    _write_summary(search, confirmation)
    page = write_atomically(search_html(search, confirmation), output or folder / "report" / PAGE)
    if uri is not None:
        attach_page(uri, find_parent(list_sweeps(open_store(uri)), search.name, uri).run_id, page)
    return page


def write_summary(folder: Path) -> Path:
    """Write ``report/summary.json`` only, from which the tuned preset takes the result of its confirmation."""
    search = load_search(folder)
    return _write_summary(search, load_confirmation(search))


def _write_summary(search: SearchData, confirmation: Confirmation) -> Path:
    text = json.dumps(summary(search, confirmation), indent=1, allow_nan=False)
    return write_atomically(f"{text}\n", search.folder / "report" / SUMMARY)


def summary(search: SearchData, confirmation: Confirmation) -> dict[str, Any]:
    """The numbers of the report as plain data; null where there is none."""
    saved = saving(search)
    return {
        "search": search.name,
        "trials": {
            "asked": search.n_trials,
            **{mark.label: len(search.of_state(state)) for state, mark in MARKS.items()},
        },
        "best_trials": {
            level: {"trial": trial.number, "values": list(trial.values), "params": dict(trial.params)}
            for level, trial in tuned_trials(search).items()
        },
        "pruning": {
            "trials": saved.pruned,
            "steps_saved": saved.steps,
            "steps_planned": saved.planned,
            "fraction": _plain(saved.fraction),
            "seconds_saved": _plain(saved.seconds),
        },
        "confirmation": {
            "sweep": search.confirm_sweep,
            "seeds": list(confirmation.seeds),
            "missing": confirmation.missing,
            "seeds_used_before": list(confirmation.used_before),
            "comparisons": [_comparison(item) for item in confirmation.comparisons],
        },
    }


def _comparison(item: TunedComparison) -> dict[str, Any]:
    numbers = {
        "tuned": item.tuned.mean,
        "untuned": item.untuned.mean,
        "difference": item.effect.difference.mean,
        "low": item.effect.difference.low,
        "high": item.effect.difference.high,
        "bootstrap_low": item.effect.bootstrap.low,
        "bootstrap_high": item.effect.bootstrap.high,
        "p_value": item.effect.p_value,
        "reported": item.reported,
        "selection_bias": item.selection_bias.mean,
        "selection_bias_low": item.selection_bias.low,
        "selection_bias_high": item.selection_bias.high,
    }
    return {
        "level": item.level,
        "trial": item.trial,
        "metric": item.objective.metric,
        "label": item.objective.label,
        "direction": "maximize" if item.objective.maximize else "minimize",
        "unseen": item.unseen,
        "seeds": item.effect.difference.count,
        **{key: _plain(value) for key, value in numbers.items()},
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def search_html(search: SearchData, confirmation: Confirmation) -> str:
    """The page as text."""
    sections, saved = search_sections(search, confirmation), saving(search)
    ended_at = [trial.ended for trial in search.trials if trial.ended]
    best = {trial.number for trial in front(search)}
    context = {
        "title": f"Search \u00b7 {search.name}",
        "search": search,
        "conclusion": conclude(search, confirmation),
        "heading": heading(search.name),
        "question": _question(search),
        "date": max(ended_at).strftime("%d %B %Y, %H:%M") if ended_at else "no trial has ended",
        "facts": _facts(search, saved),
        "missing": _missing(search, confirmation),
        "sections": sections,
        "best_trials": [_tuned_trial(search, level, trial) for level, trial in tuned_trials(search).items()],
        "confirmation": confirmation,
        "saved": saved,
        "duration": duration(saved.seconds),
        "busy": duration(saved.busy),
        "columns": parameter_columns(search),
        "presets": _presets(search),
        "trials": [_row(trial, trial.number in best) for trial in search.trials],
        "dashboard": f"optuna-dashboard {quote(shown_uri(search.storage))}",
        "commands": [search.command, f"python -m dashboards search {quote(str(search.folder))}"],
        "provenance": _provenance(search),
        "settings": _flat(search.settings),
        "glossary": _glossary(search, sections),
        "marks": MARKS,
        "value_text": value_text,
    }
    return render("search.html.j2", context, with_figures=True)


def duration(seconds: float) -> str:
    """``4.2 s``, ``12 min``, ``3.5 h``; a dash without a number."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{number(seconds / size, 1)} {unit}"
    return number(seconds, 1) if math.isnan(seconds) else f"{number(seconds, 1)} s"


def heading(name: str) -> str:
    """``search-adaptive_entropy-steps-20`` as ``Search: adaptive entropy, steps 20``."""
    words = name.removeprefix("search-").replace("_", " ").split("-", 1)
    return ", ".join([f"Search: {words[0]}", *(word.replace("-", " ") for word in words[1:])])


def _question(search: SearchData) -> str:
    objectives = [
        f"{'most' if objective.maximize else 'least'} {objective.label[:1].lower()}{objective.label[1:]}"
        for objective in search.objectives
    ]
    names = [name for _, name in parameter_columns(search)]
    values = f"values of {len(names)} parameters" if len(names) > MAX_NAMED_PARAMETERS else ", ".join(names) or "values"
    return f"Which {values} give the {' and the '.join(objectives)}?"


def _facts(search: SearchData, saved: Saving) -> list[tuple[str, str]]:
    facts = [(f"of {search.n_trials} trials completed", str(len(search.complete)))]
    facts += [
        (MARKS[state].label, str(count))
        for state in (PRUNED, FAILED, RUNNING, WAITING)
        if (count := len(search.of_state(state)))
    ]
    if saved.pruned:
        facts.append((f"steps saved by pruning ({saved.fraction:.0%} of those planned)", f"{saved.steps:,}"))
        facts.append(("of job time saved", duration(saved.seconds)))
    seeds = search.settings.get("seeds") or ()
    return facts + ([("seeds a trial" if len(seeds) > 1 else "seed a trial", str(len(seeds)))] if seeds else [])


def _missing(search: SearchData, confirmation: Confirmation) -> list[str]:
    """Warnings: what an unfinished search lacks, and what weakens its results."""
    ended = sum(trial.state in (COMPLETE, PRUNED, FAILED) for trial in search.trials)
    warnings = []
    if ended < search.n_trials:
        warnings.append(f"{ended} of {search.n_trials} trials have ended; everything below is as far as they go.")
    if failed := len(search.of_state(FAILED)):
        warnings.append(f"{failed} {'trial' if failed == 1 else 'trials'} failed; the table of trials says why.")
    if confirmation.missing:
        warnings.append(confirmation.missing)
    if confirmation.used_before:
        seeds = ", ".join(map(str, confirmation.used_before))
        warnings.append(
            f"The confirmation used seeds that the search had used ({seeds}): they flatter the tuned configuration."
        )
    return warnings


def _tuned_trial(search: SearchData, level: str, trial: TrialRecord) -> dict[str, Any]:
    return {
        "level": level,
        "trial": trial,
        "overrides": _shell(trial.overrides),
        "params": [(key, value_text(value)) for key, value in trial.params.items()],
    }


def _shell(overrides: Sequence[str]) -> str:
    """Overrides quoted for a shell, without the seed, which is swept instead."""
    return " ".join(quote(item) for item in overrides if not item.startswith("seed="))


def _presets(search: SearchData) -> list[dict[str, str]]:
    """The preset files in the search's folder: name, command and text."""
    presets = []
    for path in sorted(search.folder.glob("tuned*.yaml")):
        text = path.read_text(encoding="utf-8")
        name = re.search(r"^method: (.*)$", text, re.M)
        command = f"python sweep.py -m method={name[1] if name else ''} 'seed=range(3)'"
        presets.append({"path": path.name, "text": text, "command": command})
    return presets


def _row(trial: TrialRecord, best: bool) -> dict[str, Any]:
    return {
        "trial": trial,
        "mark": MARKS[trial.state],
        "best": best,
        "runs": [
            {
                "seed": cell.get("seed"),
                "run": str(cell.get("run")),
                "linked": bool(_SIGNATURE.fullmatch(str(cell.get("run")))),
            }
            for cell in trial.cells
        ],
    }


def _provenance(search: SearchData) -> list[tuple[str, str]]:
    begun = [trial.begun for trial in search.trials if trial.begun]
    ended_at = [trial.ended for trial in search.trials if trial.ended]
    facts = {"first trial begun": str(min(begun).replace(microsecond=0))} if begun else {}
    if begun and ended_at:
        span = max(ended_at) - min(begun)
        facts["last trial ended"] = (
            f"{max(ended_at).replace(microsecond=0)} ({timedelta(seconds=int(span.total_seconds()))})"
        )
    facts |= {"untuned default": " ".join(search.baseline) or "the configuration without the searched keys"}
    facts |= {key: value for key, value in search.origin.items() if key != "command"}
    return [*facts.items(), ("page written", datetime.now(UTC).isoformat(timespec="seconds"))]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as one line a leaf."""
    if isinstance(value, Mapping) and value:
        return {
            key: text for name, item in value.items() for key, text in _flat(item, f"{prefix}{name} \u203a ").items()
        }
    return {prefix.removesuffix(" \u203a "): str(value)}


def _glossary(search: SearchData, sections: list[Section]) -> list[Any]:
    keys = [objective.metric for objective in search.objectives]
    keys += [str(key) for section in sections for panel in section.panels for key in panel.figure.layout.meta or ()]
    return [metric for key in dict.fromkeys(keys) if (metric := search.glossary.describe(key)).definition]
