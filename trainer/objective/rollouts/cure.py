"""Responses branch at tokens of high entropy (CURE). It must not look at rewards beyond what dynamic sampling
does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from trainer.batch.types import Prompt, Rollout
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Diagnostic
from trainer.objective.rollouts.base import Groups, Source, by_group
from trainer.objective.rollouts.dynamic import Dynamic
from trainer.policy.model import load_tokenizer

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure(Dynamic):
    """Critical-token-guided re-concatenation: part of a group continues the others from a token of high entropy.

        n1       = group_size / (1 + branches)              responses sampled from the prompt
        valid    = {t > 0: len(strip(piece_t)) >= min_characters}                no special tokens
        t*       = uniform draw from the top_k of valid by old_entropy_t; 0 if valid is empty
        branch   = branches samples from prompt + response[0 : t*], for each of the n1 responses

    The token at t* is dropped and sampled again. All n1 * (1 + branches) responses are one group and share its
    prompt; the tokens before t* are context of their branch: no loss falls on them there. ``branches=0`` is the plan
    without branching. A branch may be as long as any response, given tokens included, so no prefix is ever cut.
    ``keep``, ``oversampling``, ``max_draws`` and ``when_short`` are those of dynamic sampling, on whole groups.

    Shape: lists of rollouts; cost: one forward pass without gradient over the first ``n1`` responses of each group
    generated.
    """

    about: ClassVar[About] = About(
        source="CURE, arXiv 2508.11016, stage 1 (stage 2 is plain DAPO from a checkpoint, another run)",
        status="released",
        departures=(
            "one budget for prefix and continuation together (authors: separate windows, prefixes cut at the right "
            'end); choice="random" draws from all valid positions'
        ),
    )

    prompts_per_step: int = 32
    """P: prompts in one rollout batch."""
    group_size: int = 16
    """G: responses per prompt, branches included."""
    temperature: float = 1.0
    """Divides the logits, in the sampler and in the trainer alike."""
    temperature_end: float | None = None
    """Temperature of the last step; None: ``temperature`` throughout."""
    temperature_curve: Literal["linear", "cosine"] = "linear"
    """The way from the one to the other."""
    max_tokens: int = 40
    """Longest response, tokens, given ones included."""
    keep: Literal["signal", "all"] = "all"
    """Which groups are trained on: those whose rewards differ, as in the authors' recipe, or all."""
    oversampling: float = 2.0
    """Prompts in one draw, as a multiple of ``prompts_per_step``, while groups are filtered."""
    max_draws: int = 10
    """Draws in one step."""
    when_short: Literal["error", "proceed"] = "error"
    """What happens after the last draw: stop the run, or fill up with groups of equal rewards."""
    branches: int = 3
    """n2: continuations of each first response."""
    top_k: int = 20
    """Positions of highest entropy among which the branching point is drawn."""
    min_characters: int = 2
    """Characters of a token's text, spaces around it left out, that make it worth branching at."""
    choice: Literal["critical", "random"] = "critical"
    """Branching points by entropy, or anywhere (ablation; saves the forward pass)."""

    def __post_init__(self) -> None:
        Dynamic.__post_init__(self)
        require(self.branches >= 0, "rollout.branches", self.branches, "give a number of continuations, 0 for none")
        require(
            self.group_size % (1 + self.branches) == 0,
            "rollout.group_size",
            self.group_size,
            f"first responses with rollout.branches={self.branches} each have to fill it: give a multiple of "
            f"{1 + self.branches}",
        )
        require(self.top_k >= 1, "rollout.top_k", self.top_k, "at least one position is needed")
        require(self.min_characters >= 1, "rollout.min_characters", self.min_characters, "empty tokens are no choice")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        yield from Dynamic.diagnostics(self, run)
        try:
            tokenizer = load_tokenizer(run.model)
        except OSError:  # a hub name, and no way to it from here: the run itself will say so
            return
        pieces = (tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer)))
        if self.branches and not any(len(str(piece).strip()) >= self.min_characters for piece in pieces):
            yield Diagnostic(
                message=f"no token of this model has rollout.min_characters={self.min_characters} characters, so "
                "CURE would start every branch at the prompt: set rollout.min_characters=1",
                fatal=False,
            )

    def groups_of(self, source: Source, prompts: Sequence[Prompt], temperature: float) -> Groups:
        """First responses and then their branches, prompt by prompt."""
        count = self.group_size // (1 + self.branches)
        first = source.sample(prompts, samples=count, temperature=temperature, max_tokens=self.max_tokens)
        if self.branches == 0:
            return by_group(first)
        points = self._branching_points(source, first, temperature)
        sampled_branches = source.sample(
            [rollout.prompt for rollout in first],
            samples=self.branches,
            temperature=temperature,
            max_tokens=self.max_tokens,
            prefixes=[rollout.completion_ids[:point] for rollout, point in zip(first, points, strict=True)],
        )
        # A call numbers its groups by what it was asked to continue; a branch belongs to its first response's prompt.
        return by_group([*first, *(replace(branch, group=first[branch.group].group) for branch in sampled_branches)])

    def _branching_points(self, source: Source, rollouts: Sequence[Rollout], temperature: float) -> list[int]:
        """t* of each rollout."""
        tokens = sorted({token for rollout in rollouts for token in rollout.completion_ids})
        pieces = dict(zip(tokens, source.pieces(tokens), strict=True))
        worth = {token for token in tokens if len(pieces[token].strip()) >= self.min_characters}
        valid = [[t for t, token in enumerate(r.completion_ids) if t > 0 and token in worth] for r in rollouts]
        if self.choice == "critical":
            entropies = source.entropies(rollouts, temperature=temperature)
            valid = [
                critical(positions, entropy, self.top_k) for positions, entropy in zip(valid, entropies, strict=True)
            ]
        generator = source.generator("branching points")
        return [
            positions[int(torch.randint(len(positions), (), generator=generator))] if positions else 0
            for positions in valid
        ]


def critical(positions: Sequence[int], entropy: Sequence[float], top_k: int) -> list[int]:
    """The ``top_k`` positions of highest entropy (nats), ties to the earlier one."""
    return sorted(positions, key=lambda t: -entropy[t])[:top_k]
