"""Checks of :class:`trainer.tasks.jsonl.JsonlTask`'s settings against each other, before a row is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from trainer.tasks.answers import Extract
from trainer.tasks.tables import require_source
from trainer.tasks.template import CHAT
from trainer.tasks.weighted import checked_weights

if TYPE_CHECKING:
    from trainer.tasks.jsonl import JsonlTask

OF_A_SUITE = ("question_field", "answer_field", "prompt_template")
"""Settings that a suite may have of its own."""


def check_settings(task: JsonlTask) -> None:
    """Raise ValueError with one sentence for the first setting that cannot be."""
    if task.path is None:
        raise ValueError(
            "task math: path is null; set task.path to a JSON-lines, CSV or Parquet file with the columns "
            f"{task.question_field!r} and {task.answer_field!r}, or to hub:OWNER/NAME/CONFIG:SPLIT"
        )
    for name in task.suite_paths:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
            raise ValueError(
                f"task math: suite_paths names a suite {name!r}, which becomes part of metric names; "
                "use letters, digits, _ and -"
            )
    for source in (task.path, *task.suite_paths.values(), *([task.shots_path] if task.shots_path else [])):
        require_source(source)
    for name, overrides in task.suite_settings.items():
        if name not in task.suite_paths or not set(overrides) <= set(OF_A_SUITE):
            raise ValueError(
                f"task math: suite_settings has {sorted(overrides)} for {name!r}; give {', '.join(OF_A_SUITE)} for a "
                f"suite of task.suite_paths ({', '.join(task.suite_paths) or 'none'})"
            )
    choices: dict[str, tuple[str, ...]] = {
        "extract": get_args(Extract),
        "repeats": ("keep", "drop", "refuse"),
        "match": ("math", "exact", "numeric", "choice"),
        "bad_rows": ("refuse", "drop"),
        "prompt_format": tuple(CHAT),
    }
    for name, allowed in choices.items():
        if getattr(task, name) not in allowed:
            raise ValueError(f"task math: {name} is {getattr(task, name)!r}; set it to one of {', '.join(allowed)}")
    checked_weights(task.verifiers)
    if not task.answer_marker.strip():
        raise ValueError("task math: answer_marker is empty; set it to what comes before the answer, such as ####")
    if any("{question}" not in task.template(suite) for suite in ("train", *task.suite_paths)):
        raise ValueError("task math: prompt_template lacks {question}; put it where the question goes")
    if task.system_prompt is not None and task.prompt_format == "raw":
        raise ValueError(
            "task math: prompt_format is raw, which has no turns, so system_prompt would be dropped: write it into "
            "prompt_template, or set prompt_format to chat"
        )
    if task.num_prompts is not None and task.num_prompts < 1:
        raise ValueError(f"task math: num_prompts is {task.num_prompts}; set it to 1 or more, or null for all")
