"""Write ``docs/methods.md`` from presets, slot files and docstrings: ``python docs/make_methods.py``.

What a method costs beside GRPO comes from ``benchmarks/results/methods.json``, where that has been measured.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sweeps.cli.help import comment  # noqa: E402
from sweeps.compose.compose import CONF, compose, groups  # noqa: E402
from trainer.contract.about import SLOTS, about, furthest, members  # noqa: E402
from trainer.contract.components import build_component  # noqa: E402
from trainer.contract.config import LIST_SLOTS  # noqa: E402

COSTS = ROOT / "benchmarks" / "results" / "methods.json"
HEADER = """# Methods

Made by `python docs/make_methods.py` from the presets under `conf/method/`, the files under `conf/` that fill the
slots, and the docstrings of their components; do not edit. How to add one: [add_a_method.md](add_a_method.md).
Sources are cited by their arXiv numbers; "docs/specification.md" is the project's specification.

*Status* of a member, with its settings: **published** follows the paper, **released** follows the authors' code where
that differs, **reconstructed** is our reading of an incomplete source, and shows as such in tags, tables and reports. A
preset has that of the member furthest from a paper, of those it adds to plain GRPO; a preset called `_released` takes
the released scripts' constants, whatever its members are. *Passes*:
forward passes beside the one with gradient that every update makes; those "per update" are saved where a mini-batch
fits one micro-batch.

Presets are listed by what they act on; one that acts on several things stands under the first of these questions, and
its third column has the rest.
"""
HEAD = "| preset | what | beside plain GRPO | status | statistics | forward passes | time of a step / GRPO |"
NONE = "none"
PARITY = ROOT / "benchmarks" / "results" / "parity.json"
QUESTIONS = {
    "controller": "What holds entropy, or a coefficient, where it should be over a run?",
    "rollout": "Which prompts and responses are trained on?",
    "surrogate": "Which gradient does a token get, and how far may its probability move?",
    "shaping": "What is rewarded?",
    "weight": "Which tokens count, and how much?",
    "regularizer": "What is added to the loss?",
    "advantage": "How is a response judged against its group?",
    "clip": "Which gradient does a token get, and how far may its probability move?",
    "reduction": "How are the losses of tokens averaged?",
}
"""What a preset acts on, by slot; the first that it changes is the one that it is listed under. PPO's surrogate with
other thresholds often only comes along, so it is asked late."""
BASELINE = "What is everything compared with?"


def presets() -> list[str]:
    """Names of all presets, those for the shipped default after the papers' own; not those that a search wrote."""
    return sorted((name for name in groups()["method"] if not name.startswith("tuned/")), key=_order)


def _order(name: str) -> tuple[bool, str]:
    return "/" in name, name


def changed(config: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    """What a preset sets otherwise than plain GRPO, as ``slot=member(key=value)``."""
    plain = members(base)
    for path, node in members(config).items():
        if node != plain.get(path):
            component = build_component(node, path)
            values = [
                f"{field.name}={value}"
                for field in dataclasses.fields(component)
                if (value := getattr(component, field.name)) != field.default
            ]
            yield f"{path.split('.')[0]} {type(component).__name__}" + (f"({', '.join(values)})" if values else "")
    for key in ("updates_per_rollout", "epochs"):
        if config["optim"][key] != base["optim"][key]:
            yield f"{key}={config['optim'][key]}"


def forward_passes(built: list[Any]) -> str:
    """Further forward passes that members ask for."""
    asked = []
    if any(type(member).__name__ == "Cure" for member in built):
        asked.append("1 over the responses that branch")
    if any(getattr(member, "needs_reference", False) for member in built):
        asked.append("1 of the reference a step")
    if any(getattr(member, "needs_states", False) for member in built):
        asked.append("1 of the reference a step, without output layer")
    if any(getattr(member, "needs_current", False) for member in built):
        asked.append("1 per update")
    elif any(getattr(member, "needs_old", False) for member in built):
        asked.append("1 per step")
    return ", ".join(asked) or NONE


def statistics(built: list[Any]) -> str:
    """Token statistics that members ask for beside log-probs and entropy."""
    names: set[str] = set()
    for member in built:
        names |= getattr(member, "statistics", frozenset())
        names |= {f"old {name}" for name in getattr(member, "old_statistics", frozenset())}
    return ", ".join(f"`{name}`" for name in sorted(names)) or NONE


def status(config: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """That of the member furthest from a paper, among those that differ from plain GRPO's."""
    plain = members(base)
    own = {path: node for path, node in members(config).items() if node != plain.get(path)} or plain
    found = furthest(about(node)["status"] for node in own.values())
    return f"**{found}**" if found == "reconstructed" else found


def question(config: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """What the preset acts on: the first of :data:`QUESTIONS` that it answers otherwise than plain GRPO."""
    plain = members(base)
    slots = set()
    for path, node in members(config).items():
        if node != plain.get(path):
            slot = path.partition(".")[0]
            slots.add("clip" if slot == "surrogate" and str(node["_target_"]).endswith(".PPOClip") else slot)
    return next((asked for slot, asked in QUESTIONS.items() if slot in slots), BASELINE)


def preset_tables() -> Iterator[str]:
    """The presets by question, one row each."""
    costs = json.loads(COSTS.read_text())["data"]["step_ratio"] if COSTS.exists() else {}
    base = _resolved(["method=grpo"])
    tables: dict[str, list[str]] = {asked: [] for asked in (BASELINE, *QUESTIONS.values())}
    for name in presets():
        config = _resolved([f"method={name}"])
        built = [build_component(node, path) for path, node in members(config).items()]
        parts = "; ".join(changed(config, base)) or NONE
        cost = f"{costs[name]:.2f}" if name in costs else ""
        cells = (
            f"`{name}`",
            comment(name),
            parts,
            status(config, base),
            statistics(built),
            forward_passes(built),
            cost,
        )
        row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        tables[question(config, base)].append(row)
    for asked, rows in tables.items():
        if rows:
            yield f"### {asked}\n"
            yield from (HEAD, "|---" * 7 + "|", *rows, "")


def parity_section() -> Iterator[str]:
    """Our members against the peers' own functions, as ``benchmarks/parity.py`` found them."""
    if not PARITY.exists():
        return
    document = json.loads(PARITY.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(document["peers"].items()))
    yield "## Held against TRL and verl\n"
    agreed = f"{document['data']['agrees']:.0e}"
    yield f"`{document['command']}` calls functions of {versions} and these members on the same random batch:"
    yield "float64, loss and gradient by every log-prob. Differences are the largest one over the largest number; below"
    yield f"{agreed} the two agree (some sums are float32 on one side).\n"
    yield "| method | their function | what is compared | difference | agrees | remark |"
    yield "|---" * 6 + "|"
    for row in document["data"]["compared"]:
        what, size = row.get("of", NONE), f"{row['difference']:.0e}" if "difference" in row else ""
        agrees = row["missing"] if "missing" in row else "yes" if row["agrees"] else "**no**"
        compared = f"{what} and loss" if "loss" in row else what
        cells = (row["method"], f"{row['peer']}: `{row['function']}`", compared, size, agrees, row["note"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def component_sections() -> Iterator[str]:
    """Every member of every slot: its docstring and its settings."""
    for slot in SLOTS:
        yield f"## {slot}\n"
        for path in sorted((CONF / slot).glob("*.yaml")):
            config = _resolved([f"{slot}=[{path.stem}]" if slot in LIST_SLOTS else f"{slot}={path.stem}"])
            own = [node for at, node in members(config).items() if at in (slot, f"{slot}.{path.stem}")]
            component = build_component(own[0], slot)
            yield f"### {slot}: {path.stem}\n"
            yield from _documented(component, about(own[0]))


def _documented(component: Any, facts: Mapping[str, str]) -> Iterator[str]:
    text = inspect.cleandoc(type(component).__doc__ or "").replace("``", "`")
    blocks = re.sub(r"(?m)^(    .*(?:\n(?:    .*|\s*(?=\n    )))*)", lambda match: _fenced(match[0]), text)
    yield blocks + "\n"
    yield f"*Source*: {facts['source']}. *Departures*: {facts['departures']}. *Status*: {facts['status']}.\n"
    fields = [f"`{field.name}={field.default!r}`" for field in dataclasses.fields(component)]
    if fields:
        yield f"Settings: {', '.join(fields)}.\n"
    if getattr(type(component), "neutral", None):
        setting = ", ".join(f"{key}={value!r}" for key, value in type(component).neutral.items())
        yield f"Plain GRPO, bit for bit, with `{setting}`.\n"


def _fenced(block: str) -> str:
    return "```text\n" + inspect.cleandoc(block).rstrip() + "\n```"


def _resolved(overrides: list[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(compose(overrides), resolve=True)  # type: ignore[return-value]


def pages() -> dict[Path, str]:
    """What the generated page should say."""
    parts = [HEADER, "## Presets\n", *preset_tables(), *parity_section(), *component_sections()]
    text = "\n".join(parts).rstrip() + "\n"
    return {ROOT / "docs" / "methods.md": text}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
