"""The table of sampled responses, early and late in training; the template escapes their text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards.sweep.load import SweepData
from dashboards.sweep.summary import labels

_SAMPLE_CHARACTERS = 600


def sample_rows(sweep: SweepData, samples: pd.DataFrame) -> list[Mapping[str, Any]]:
    """One row per level: a correct and an incorrect response of the last step with samples, and the responses of the
    first such step to the same prompts (otherwise again a correct and an incorrect one). Samples of evaluations are
    preferred, because these repeat their prompts."""
    rows: list[Mapping[str, Any]] = []
    for level, label in labels(sweep).items():
        of_level = samples[samples["level"] == level]
        if of_level.empty:
            continue
        of_seed = of_level[of_level["seed"] == of_level["seed"].min()]
        evaluated = of_seed[of_seed["source"] == "evaluation"]
        chosen = evaluated if evaluated["step"].nunique() > 1 else of_seed
        first, last = (chosen[chosen["step"] == step] for step in (chosen["step"].min(), chosen["step"].max()))
        late = _correct_and_incorrect(last)
        same = first[first["prompt"].isin(late["prompt"])].drop_duplicates("prompt")
        early = same if len(same) == len(late) else _correct_and_incorrect(first)
        several = chosen["step"].nunique() > 1
        rows.append(
            {
                "label": label,
                "seed": of_seed["seed"].iloc[0],
                "early": _shown(early),
                "late": _shown(late) if several else [],
            }
        )
    return rows


def _correct_and_incorrect(rows: pd.DataFrame) -> pd.DataFrame:
    rewards = pd.to_numeric(rows["reward"], errors="coerce")
    chosen = pd.concat([rows[rewards == rewards.max()].head(1), rows[rewards < rewards.max()].head(1)])
    return chosen if len(chosen) else rows.head(1)


def _shown(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "step": row["step"],
            "reward": row["reward"],
            "prompt": _short(row["prompt"]),
            "response": _short(row["response"]),
        }
        for row in rows.to_dict("records")
    ]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:_SAMPLE_CHARACTERS]}\u2026 ({len(text)} characters)"
