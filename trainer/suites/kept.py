"""Responses of an evaluation, kept on disk as they come, so that an interrupted one goes on where it was.

The RNG stream of a prompt's samples depends on the prompt alone, so the parts may come from different attempts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.batch.types import Prompt, Rollout
from trainer.contract.files import make_folder, write_atomic
from trainer.contract.seeds import derive_seed
from trainer.rollout.sampler import Sampler

PROMPTS_A_PART = 8
"""Lost at most, when an evaluation is interrupted."""
FIELDS = ("prompt_ids", "completion_ids", "sampler_logprobs", "sampler_entropies", "finish_reason", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCache:
    """A :class:`trainer.evaluation.evaluate.Generate` that asks the engine only for what is not in ``folder``."""

    sampler: Sampler
    folder: Path
    identity: str
    """Of the weights that sample: parts of others are not taken."""

    def __call__(
        self, prompts: list[Prompt], *, samples: int, temperature: float, top_p: float, max_tokens: int, seed: int
    ) -> list[Rollout]:
        """See the protocol."""
        rollouts: list[Rollout] = []
        for start in range(0, len(prompts), PROMPTS_A_PART):
            part = prompts[start : start + PROMPTS_A_PART]
            texts = [(prompt.id, prompt.text, prompt.system, prompt.chat, prompt.examples) for prompt in part]
            key = derive_seed(self.identity, samples, temperature, top_p, max_tokens, seed, json.dumps(texts))
            file = self.folder / f"{key:016x}.json"
            sampled = _read(file, part)
            if sampled is None:
                seeds = [derive_seed(seed, prompt.id) for prompt in part]
                sampled = self.sampler.complete(
                    part, samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seeds=seeds
                )
                make_folder(self.folder)
                write_atomic(file, json.dumps([_row(rollout) for rollout in sampled]))
            rollouts += [_shifted(rollout, start) for rollout in sampled]
        return rollouts


def _row(rollout: Rollout) -> dict[str, Any]:
    return {"group": rollout.group} | {name: getattr(rollout, name) for name in FIELDS}


def _read(file: Path, prompts: Sequence[Prompt]) -> list[Rollout] | None:
    """The rollouts of a part, or None if it is not there or cannot be read."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return [_rollout(row, prompts[row["group"]]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _rollout(row: dict[str, Any], prompt: Prompt) -> Rollout:
    values: dict[str, Any] = {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in FIELDS}
    return Rollout(prompt=prompt, group=row["group"], weight_version=-1, **values)


def _shifted(rollout: Rollout, start: int) -> Rollout:
    return replace(rollout, group=rollout.group + start)
