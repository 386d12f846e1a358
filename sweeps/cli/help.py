"""The text of ``python sweep.py --help``, with the configuration groups and choices found in ``conf/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from sweeps.compose.compose import CONF, groups
from trainer.contract.about import SLOTS, about

QUESTIONS = {
    "factor": "what is varied",
    "search": "what is searched for the best value",
    "method": "which published method",
    "task": "what is trained on",
    "model": "which language model",
    "engine": "what samples",
    "rollout": "what is sampled",
    "shaping": "are rewards reshaped",
    "advantage": "how rewards become advantages",
    "weight": "which tokens count more (list)",
    "surrogate": "which policy loss",
    "regularizer": "what is added to it (list)",
    "controller": "what changes coefficients (list)",
    "reduction": "how tokens are averaged",
    "optim": "how weights are updated",
    "evaluation": "how often and how well it is examined",
    "accounting": "how often entropy change is measured",
    "clip_regime": "a named pair of clip thresholds",
    "study": "a named setting of several of these",
    "checkpoint": "how often it is saved",
    "hardware": "where it is computed",
    "launcher": "where jobs run",
    "tracking": "where results go",
}
"""The question that each group answers, in the order of the help."""

TEXT = """\
Train a language model with verifiable rewards, once or for every level of a factor, and compare.

  python sweep.py [GROUP=CHOICE] [KEY=VALUE]           one run
  python sweep.py -m factor=NAME [...]                 every level of a factor x every seed, then a report
  python sweep.py -m search=NAME [...]                 search for the best values, confirm them, write a preset
  python sweep.py -m KEY=A,B,C 'seed=range(3)' [...]   any grid
  ... plan=true                                        show cells, what is done, the time it takes; start nothing
  ... retry=failed                                     also run again what crashed (or: lost, all)
  ... --cfg job                                        show every value of the configuration
  ... max_hours=20                                     refuse what would take longer by earlier runs (yes=true: do it)
  python sweep.py --help 2602.03392                    presets of a paper, by arXiv number or any word
  python -m sweeps status|attach|cancel|retry STUDY    look after a sweep (python -m sweeps --help)

GROUP=CHOICE (lists take several: weight=[sign]; + follows the authors' code where it differs from the paper, * is a
reading of an incomplete source: docs/methods.md)

{groups}

Examples

  python sweep.py -m factor=clip_high
  python sweep.py -m factor=clip_high surrogate.clip_high=0.2,0.5 'seed=range(5)'
  python sweep.py -m factor=off_policy_updates launcher=slurm launcher.partition=gpu
  python sweep.py -m optim.lr=1e-4,3e-4 'seed=range(3)' launcher.slots=2
  python sweep.py steps=10 evaluation=quick tracking=none

A sweep that is started again runs only what is missing."""


def help_text() -> str:
    """The whole help."""
    choices = {group: [f"{name}{_mark(group, name)}" for name in members] for group, members in groups().items()}
    names = [*(name for name in QUESTIONS if name in choices), *(name for name in choices if name not in QUESTIONS)]
    rows = [f"  {name:<12} {QUESTIONS.get(name, ''):<40} {', '.join(choices[name])}" for name in names]
    return TEXT.format(groups="\n".join(rows))


def found_text(words: Sequence[str]) -> str:
    """The presets whose name or comment has every word, or one sentence if there is none; a small one has its paper's
    comment too."""
    terms = [word.lower() for word in words]
    comments = {name: comment(name) for name in groups()["method"]}
    searchable = {
        name: f"{name} {text} {comments.get(name.rpartition('/')[2], '')}".lower() for name, text in comments.items()
    }
    matches = [name for name in comments if all(word in searchable[name] for word in terms)]
    if not matches:
        return f"no preset speaks of {' '.join(words)}: python sweep.py --help lists them all"
    return "\n".join(f"method={name}\n    {comments[name]}" for name in matches)


def comment(preset: str) -> str:
    """The comment lines at the head of a preset: what it is and where it comes from."""
    lines = (CONF / "method" / f"{preset}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if line.startswith("# ") and "@package" not in line)


def _mark(group: str, choice: str) -> str:
    """One character for how closely a component follows its paper; empty for groups that are not part of a method."""
    if group not in SLOTS:
        return ""
    node = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text(encoding="utf-8"))
    if not isinstance(node, Mapping) or "_target_" not in node:
        return ""
    plain = {key: value for key, value in node.items() if isinstance(key, str)}
    return {"released": "+", "reconstructed": "*"}.get(about(plain)["status"], "")
