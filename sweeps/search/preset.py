"""Writes the configuration that a search found as a preset: ``python sweep.py method=tuned/NAME``.

The preset names its provenance in comments. It never replaces one that was edited by hand or made by another search.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from sweeps.compose.compose import CONF, compose
from sweeps.compose.overrides import key_of, parsed
from sweeps.compose.presets import chosen_groups
from sweeps.search.confirm import MAX_FRONT_MEMBERS
from sweeps.search.progress import best_trials
from trainer.contract import run_yaml
from trainer.contract.files import write_atomic
from trainer.contract.identity import NOT_IDENTITY
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError

GROUP = "tuned"
"""Folder in ``conf/method`` for presets written by searches."""

_CIRCUMSTANCES = frozenset({"seed", "steps", "evaluation", "accounting", "task", "model", "engine", "hardware"})
ELSEWHERE = NOT_IDENTITY - {"method"} | _CIRCUMSTANCES
"""Top-level keys that are not part of a tuned method (data, length, hardware, evaluation), unless the search varied
them."""

_STUDY, _CONTENT = "# study: ", "# content: "
_GLOBAL = "@package _global_"


def write_preset(study: optuna.Study, folder: Path, conf_dir: Path | None) -> list[Path]:
    """Write the presets to the search's ``folder`` and, with ``conf_dir``, to ``method/tuned`` there.

    With one objective it is one preset, ``tuned.yaml`` and ``method=tuned/NAME``; of a Pareto front it is one per
    confirmed trial, ``tuned-1.yaml`` and ``method=tuned/NAME-1``, ... Returns the files written. A file that must not
    be replaced, and a trial whose overrides no preset can express, are reported on standard error.
    """
    chosen = preset_trials(study)
    confirmation = _confirmation(folder) if study.user_attrs.get("confirm_sweep") else []
    texts = {}
    for level, trial in chosen.items():
        try:
            texts[level] = preset_text(study, level, trial, confirmation, conf_dir or CONF)
        except ConfigError as error:  # the end of a long search: its report must still be written
            print(f"no preset for trial {trial.number}: {error}", file=sys.stderr)
    for stale in set(folder.glob(f"{GROUP}*.yaml")) - {folder / f"{level}.yaml" for level in texts}:
        stale.unlink()
    written = []
    for level, text in texts.items():
        write_atomic(folder / f"{level}.yaml", text)
        written.append(folder / f"{level}.yaml")
        if conf_dir is not None:
            written += _publish(text, conf_dir / "method" / f"{_name(study, level)}.yaml")
    return written


def preset_trials(study: optuna.Study) -> dict[str, FrozenTrial]:
    """The trials to write, by level: the confirmed ones; without any, the best or up to four of the front."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])}
    confirmed = study.user_attrs.get("confirm_levels") or {}
    if by_level := {str(level): trials[number] for level, number in confirmed.items() if number in trials}:
        return by_level
    single = len(study.directions) == 1
    return {
        GROUP if single else f"{GROUP}-{rank}": trial
        for rank, trial in enumerate(best_trials(study)[:MAX_FRONT_MEMBERS], start=1)
    }


def preset_text(
    study: optuna.Study, level: str, trial: FrozenTrial, confirmation: Sequence[Mapping[str, Any]], conf: Path
) -> str:
    """The preset as YAML with its provenance as comments and, last of these, a hash of everything else.

    Raises :class:`~trainer.contract.settings.ConfigError` for an override that no preset can hold.
    """
    overrides = list(trial.user_attrs.get("overrides") or ())
    kept = [
        item for item in overrides if key_of(item) in trial.params or key_of(item).partition(".")[0] not in ELSEWHERE
    ]
    name = _name(study, level)
    body = run_yaml.dumps(_document(name, kept, conf))
    of_level = [item for item in confirmation if item["level"] == level]
    comments = [*_provenance(study, trial, of_level), *_left_out(overrides, kept), f"{_STUDY}{_identity(study)}"]
    head = "\n".join([f"# {_GLOBAL}", *comments])
    return "\n".join([head, _CONTENT + _digest(f"{head}\n{body}"), body])


def _document(name: str, overrides: Sequence[str], conf: Path) -> dict[str, Any]:
    """Presets first, then the values, then the choices of groups: Hydra requires ``override`` entries to be last."""
    included: list[str] = []
    groups: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    for text in overrides:
        key, value = key_of(text), _value(text)
        if "." in key or not (conf / key).is_dir() or isinstance(value, Mapping):
            _put(values, key.split("."), value)
        elif isinstance(value, str) and _is_global(conf / key / f"{value}.yaml"):
            included.append(f"/{key}/{value}@_global_")
        else:
            groups.append({f"override /{key}": value})
    if included and groups:
        values = _merged(_chosen_values(overrides, conf), values)
    defaults = [*included, "_self_", *groups]
    return ({"defaults": defaults} if len(defaults) > 1 else {}) | {"method": name} | values


def _chosen_values(overrides: Sequence[str], conf: Path) -> dict[str, Any]:
    """All values of the groups that ``overrides`` choose. They have to be written out where a preset is included: its
    values in these groups were dropped on the command line (:mod:`sweeps.compose.presets`), but would apply here."""
    config = compose(overrides)
    chosen = [key for key in chosen_groups(overrides) if (conf / key).is_dir()]
    return {key: _without_targets(OmegaConf.to_container(config[key], resolve=False)) for key in sorted(chosen)}


def _without_targets(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {str(key): _without_targets(value) for key, value in node.items() if key != "_target_"}


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        _put(below, [str(key)], value)
    return below


def _value(text: str) -> Any:
    if text.startswith("~"):
        raise ConfigError(f"the override {text!r} deletes a key, which no preset can: name what stands there instead")
    if "@" in key_of(text):
        raise ConfigError(f"the override {text!r} moves a group, which no preset can: use the overrides themselves")
    return parsed(text)


def _put(node: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set ``value`` at ``path``, and merge a mapping into one that is there, as Hydra does."""
    for part in path[:-1]:
        node = node.setdefault(part, {})
    if isinstance(value, Mapping):
        for key, item in value.items():
            _put(node, [path[-1], str(key)], item)
    else:
        node[path[-1]] = value


def _is_global(path: Path) -> bool:
    """Whether a choice is a preset of several groups, which is included with ``@_global_``."""
    return path.is_file() and _GLOBAL in path.read_text(encoding="utf-8").partition("\n")[0]


def _name(study: optuna.Study, level: str) -> str:
    """``tuned/NAME`` for the level ``tuned``, ``tuned/NAME-1`` for ``tuned-1``, without characters special to Hydra."""
    return f"{GROUP}/{re.sub(r'[^A-Za-z0-9_.+-]+', '-', study.study_name)}{level.removeprefix(GROUP)}"


def _identity(study: optuna.Study) -> str:
    """Name and start of the study, which tell it from another one of its name."""
    begun = min(trial.datetime_start for trial in study.get_trials(deepcopy=False) if trial.datetime_start)
    return f"{study.study_name}, begun {begun.isoformat(timespec='seconds')}"


def _provenance(study: optuna.Study, trial: FrozenTrial, confirmation: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    facts = study.user_attrs
    goals = [goal.get("label") or goal["metric"] for goal in facts["search"]["objectives"]]
    values = ", ".join(f"{goal} {value:.4g}" for goal, value in zip(goals, trial.values, strict=True))
    seeds = ", ".join(sorted(trial.user_attrs.get("values") or {}, key=int))
    yield _comment(
        f"Found by the search {study.study_name}: trial {trial.number} of {len(study.get_trials(deepcopy=False))}."
    )
    yield _comment(f"It reported {values}" + (f" (mean over seeds {seeds})." if seeds else "."))
    if not confirmation:
        yield _comment(
            "Not confirmed on fresh seeds: what it reported is the best of many noisy numbers, and too good."
        )
    for item in confirmation:
        yield _comment(_confirmed(item))
    yield _comment(f"Command: {facts.get('command', 'not known')}")
    if revision := (facts.get("origin") or {}).get("git revision"):
        yield _comment(f"Git revision: {revision}")


def _confirmed(item: Mapping[str, Any]) -> str:
    where = f"{item['label']}{' (the search never looked at it)' if item['unseen'] else ''}"
    if item["difference"] is None:
        return f"Fresh seeds: {where} was not measured."
    interval = "no interval" if item["low"] is None else f"95 % interval {item['low']:+.4g} to {item['high']:+.4g}"
    return (
        f"Fresh seeds ({item['seeds']}): {where} {item['difference']:+.4g} against the untuned default, {interval} "
        f"({item['tuned']:.4g} against {item['untuned']:.4g})."
    )


def _left_out(overrides: Sequence[str], kept: Sequence[str]) -> Iterator[str]:
    if left := [text for text in overrides if text not in kept]:
        yield _comment(f"Searched with {' '.join(left)}, which is no part of this preset.")


def _comment(text: str) -> str:
    """``text`` as a YAML comment of one line."""
    return f"# {' '.join(text.split())}"


def _confirmation(folder: Path) -> list[dict[str, Any]]:
    """The comparisons of the confirmation, computed by ``python -m dashboards``, which must not be imported here."""
    command = [sys.executable, "-m", "dashboards", "search", str(folder.absolute()), "--summary"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if completed.returncode:
        print(f"warning: the preset does not tell its confirmation: {completed.stderr.strip()[-300:]}", file=sys.stderr)
        return []
    document = json.loads((folder / "report" / "summary.json").read_text(encoding="utf-8"))
    return list(document["confirmation"]["comparisons"])


def _publish(text: str, path: Path) -> list[Path]:
    """Write the preset to ``path`` unless a file is there that this search did not write."""
    try:
        if reason := _foreign(path, text):
            print(f"{path} is left alone: {reason}", file=sys.stderr)
            return []
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        print(f"{path} is not written: {error.strerror}", file=sys.stderr)
        return []
    return [path]


def _foreign(path: Path, text: str) -> str | None:
    """Why the existing file must not be replaced by ``text``; None if it may."""
    if not path.exists():
        return None
    old = path.read_text(encoding="utf-8")
    if _line(old, _CONTENT) != _digest(_without_digest(old)):
        return "it was edited, or made by hand; move it away to get the new one"
    if _line(old, _STUDY) != _line(text, _STUDY):
        return "another search of that name made it; move it away, or give this search another name"
    return None


def _line(text: str, mark: str) -> str | None:
    return next((line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)), None)


def _without_digest(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.startswith(_CONTENT))


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
