"""The data of the response viewer: some responses token by token, compact, for tokens.js.

A few responses a run and a bound on all of them keep the page small. Tokens are untrusted text: they leave this module
as JSON, and the page shows them as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dashboards.page.packing import rounded

COLUMNS = ("influence", "entropy", "advantage", "ratio", "logprobs", "coefficient")
MOST_RESPONSES = 96
MOST_TOKENS = 400
_DIGITS = 3
_PROMPT_CHARACTERS = 600


def viewer_responses(tokens: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each run a correct and an incorrect response of its first and of its last ledger, those with a gradient
    first; at most :data:`MOST_RESPONSES` in all (first seeds first), each cut after :data:`MOST_TOKENS` tokens."""
    chosen = []
    for _, run in tokens.groupby("signature", sort=False):
        for step in dict.fromkeys([run["step"].min(), run["step"].max()]):
            chosen.append(_correct_and_incorrect(run[run["step"] == step]))
    if not chosen:
        return []
    rows = pd.concat(chosen)
    kept = rows.sort_values(["seed", "level_index"], kind="stable").head(MOST_RESPONSES)
    return [
        response_row(row, f"{row['label']}, seed {row['seed']}", row["level"])
        for row in kept.sort_values(["level_index", "seed", "step"], kind="stable").to_dict("records")
    ]


def _correct_and_incorrect(rows: pd.DataFrame) -> pd.DataFrame:
    # Where all responses to a prompt have one reward nothing has influence, and there is nothing to see.
    rows = rows.loc[rows["coefficient"].map(lambda values: not any(values)).sort_values(kind="stable").index]
    rewards = pd.to_numeric(rows["reward"], errors="coerce")
    return pd.concat([rows[rewards > 0].head(1), rows[~(rewards > 0)].head(1)])


def response_row(row: Mapping[Any, Any], run: str, level: str) -> dict[str, Any]:
    """What the page shows of one response, cut after :data:`MOST_TOKENS` tokens."""
    tokens = [str(token) for token in row["tokens"]]
    prompt = str(row["prompt"])
    return {
        "level": level,
        "run": run,
        "step": int(row["step"]),
        "update": None if row.get("update") is None else int(row["update"]),
        "reward": row["reward"],
        "correct": bool(row["correct"] if "correct" in row else (row["reward"] or 0) > 0),
        "prompt": prompt if len(prompt) <= _PROMPT_CHARACTERS else f"\u2026{prompt[-_PROMPT_CHARACTERS:]}",
        "cut": max(len(tokens) - MOST_TOKENS, 0),
        "tokens": tokens[:MOST_TOKENS],
        **{name: _shown(row.get(name)) for name in COLUMNS},
    }


def _shown(values: Sequence[float] | None) -> list[Any] | None:
    """Numbers of the tokens that are shown; None where they were not computed."""
    return None if values is None else [rounded(value, _DIGITS) for value in values[:MOST_TOKENS]]
