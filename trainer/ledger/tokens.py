"""Responses of a ledger token by token, as rows of ``tokens.jsonl``: what the report's viewer colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainer.ledger.ledger import Ledger

DIGITS = 6
"""Significant digits of the numbers: enough for a colour, and a tenth of the bytes."""


def token_rows(ledger: Ledger, tokenizer: PreTrainedTokenizerBase, count: int) -> Iterator[dict[str, Any]]:
    """The first ``count`` responses that the updates of the step looked at: prompt, tokens, and for each token its
    influence (nats), entropy (nats), log-prob (nats), advantage, ratio and effective coefficient."""
    left = count
    for update, (entry, rows) in enumerate(zip(ledger.entries, ledger.examined, strict=True)):
        for row in range(min(left, rows.num_rows)):
            chosen = entry.tokens.row == row
            context_length = int(rows.prompt_lengths[row])
            columns = {
                name: [float(f"{value:.{DIGITS}g}") for value in getattr(entry.tokens, name)[chosen].tolist()]
                for name in ("influence", "entropy", "logprobs", "advantage", "ratio", "coefficient")
            }
            yield {
                "update": update,
                "prompt": tokenizer.decode(rows.inputs[row, :context_length]),
                "reward": float(rows.raw_rewards[row]),
                "tokens": [tokenizer.decode([token]) for token in rows.targets[row][rows.mask[row]].tolist()],
                **columns,
            }
        left -= min(left, rows.num_rows)
