"""Synthetic pretraining traces for the tiny countdown model, as padded batches of token ids.

It must never use a problem of a training, held-out or out-of-domain split: the base model has seen none of the
prompts that a run trains or evaluates on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from trainer.pretrain.habits import Writer
from trainer.tasks.countdown_problems import Problem, ProblemSpace, Taste, propose, random_walk, split_of
from trainer.tasks.countdown_steps import Step

IGNORED = -100
"""Target of positions that carry no loss: prompt and padding."""

Row = tuple[list[int], int]
"""Token ids of prompt, response and end token; length of the prompt."""

# Share of the traces by how many numbers the problem gives.
_MIXTURE = {3: 0.15, 4: 0.70, 5: 0.15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A prompt and a well-formed response: every step is correct, the target is reached or not."""

    problem: Problem
    steps: tuple[Step, ...]
    response: str
    """The response text without the end token."""


def traces(count: int, number_max: int, hands: Sequence[Writer], school: float, seed: int) -> Iterator[Trace]:
    """``count`` traces by ``hands``, drawn by their shares; in the first share ``school`` of them all are skilled."""
    rng = random.Random(f"{seed}/pretrain")
    spaces = [
        ProblemSpace(num_numbers=n, number_min=1, number_max=number_max, target_min=10, target_max=99, min_steps=2)
        for n in _MIXTURE
    ]
    shares = list(_MIXTURE.values())
    num_done = 0
    while num_done < count:
        space = rng.choices(spaces, shares)[0]
        trace = None
        while trace is None:
            hand = rng.choices(hands, [hand.share for hand in hands])[0]
            trace = _draw(space, hand, 1.0 if num_done < school * count else hand.skill, rng)
        num_done += 1
        yield trace


def _draw(space: ProblemSpace, hand: Writer, skill: float, rng: random.Random) -> Trace | None:
    proposal = propose(space, rng)
    if proposal is None or split_of(proposal[0]) != "pretrain":
        return None
    problem, steps = proposal
    if rng.random() >= skill:
        steps = _wander(problem, len(steps), space.target_max, hand.taste, rng)
    return Trace(problem=problem, steps=tuple(steps), response=hand.write(steps, rng))


def _wander(problem: Problem, num_steps: int, max_value: int, taste: Taste, rng: random.Random) -> list[Step]:
    """A walk that ends elsewhere than on the target."""
    while True:
        steps = random_walk(problem.numbers, num_steps, max_value, rng, taste)
        if steps is not None and steps[-1].result != problem.target:
            return steps


def encode(trace: Trace, tokenizer: PreTrainedTokenizerFast) -> Row:
    """Token ids of prompt, response and end token, and the length of the prompt."""
    vocabulary = tokenizer.get_vocab()
    prompt = [vocabulary[character] for character in trace.problem.text]
    response = tokenizer(trace.response)["input_ids"]
    return prompt + response + [tokenizer.eos_token_id], len(prompt)


def batches(rows: list[Row], batch_size: int, pad_id: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(inputs, targets), each [batch_size, T] int64 token ids, right-padded; targets are ``IGNORED`` off the response.

    Rows are sorted by length within windows of 16 batches, then the batches of a window are shuffled: little padding,
    and no trend of length over time.
    """
    rng = random.Random(f"{seed}/batches")
    padded = []
    window = 16 * batch_size
    for start in range(0, len(rows) - batch_size + 1, window):
        chunk = sorted(rows[start : start + window], key=lambda row: len(row[0]))
        pieces = [chunk[i : i + batch_size] for i in range(0, len(chunk) - batch_size + 1, batch_size)]
        rng.shuffle(pieces)
        padded += [_padded(piece, pad_id) for piece in pieces]
    return padded


def _padded(rows: list[Row], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows) - 1
    inputs = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORED, dtype=torch.int64)
    for row, (ids, prompt_length) in enumerate(rows):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[row, prompt_length - 1 : len(ids) - 1] = torch.tensor(ids[prompt_length:])
    return inputs, targets
