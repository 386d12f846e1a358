"""Shift, masks and splits, on an example small enough to write out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testbench import make_rollouts

from trainer.batch.collate import collate, micro_batches, mini_batches
from trainer.batch.types import Prompt, Rollout, Verdict

EOS = 9


def rollout(prompt: tuple[int, ...], completion: tuple[int, ...], **changes: object) -> Rollout:
    base = Rollout(
        prompt=Prompt(id="p", text="q"),
        prompt_ids=prompt,
        completion_ids=completion,
        sampler_logprobs=tuple(-0.5 - 0.25 * k for k in range(len(completion))),
        finish_reason="stop" if completion[-1:] == (EOS,) else "length",
        text="t",
        group=0,
        weight_version=0,
        verdict=Verdict(reward=1.0),
    )
    return replace(base, **changes)


def test_shift_and_masks_written_out() -> None:
    # Row 0: s = 1 2 | 5 6 9: inputs 1 2 5 6, targets 2 5 6 9; the sampled targets 5 6 9 stand at t = 1, 2, 3.
    # Row 1: s = 3 | 7 8 with 7 given: inputs 3 7, targets 7 8; only 8, at t = 1, was sampled.
    rows = [
        rollout((1, 2), (5, 6, EOS), group=4),
        rollout((3,), (7, 8), num_context=1, group=6, verdict=Verdict(reward=0.25)),
    ]
    batch = collate(rows, pad_id=0)
    assert batch.inputs.tolist() == [[1, 2, 5, 6], [3, 7, 0, 0]]
    assert batch.targets.tolist() == [[2, 5, 6, 9], [7, 8, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.lengths.tolist() == [4, 2]
    assert batch.mask.tolist() == [[False, True, True, True], [False, True, False, False]]
    assert batch.sampler_logprobs.tolist() == [[0.0, -0.5, -0.75, -1.0], [0.0, -0.75, 0.0, 0.0]]
    assert batch.rewards.tolist() == batch.raw_rewards.tolist() == [1.0, 0.25]
    assert batch.group.tolist() == [4, 6]
    assert batch.truncated.tolist() == [False, True]
    assert (batch.num_rows, batch.num_tokens) == (2, 4)
    assert batch.old_logprobs is batch.advantages is batch.weights is None


@pytest.mark.parametrize("pad_id", [0, EOS, 5])
def test_padding_with_a_real_token_moves_no_mask(pad_id: int) -> None:
    rows = [rollout((1, 2), (5, 6, EOS)), rollout((3,), (EOS,)), rollout((EOS, 5), (5, EOS))]
    batch = collate(rows, pad_id=pad_id)
    assert batch.mask.tolist() == [[False, True, True, True], [True, False, False, False], [False, True, True, False]]
    assert batch.targets[batch.mask].tolist() == [5, 6, EOS, EOS, 5, EOS]


def test_every_sampled_token_is_described_once_where_its_context_ends() -> None:
    rows = make_rollouts(5, groups=6, group_size=2, given=3)
    batch = collate(rows, pad_id=0)
    for index, row in enumerate(rows):
        sampled = row.completion_ids[row.num_context :]
        where = batch.mask[index].nonzero().squeeze(1).tolist()
        start = len(row.prompt_ids) + row.num_context
        assert batch.targets[index, batch.mask[index]].tolist() == list(sampled)
        assert where == [start + k - 1 for k in range(len(sampled))]
        assert batch.inputs[index, where[0]].item() == (row.prompt_ids + row.completion_ids)[start - 1]


def test_a_prompt_alone_has_no_sampled_token() -> None:
    batch = collate([rollout((1, 2), ()), rollout((1,), (5,))], pad_id=0)
    assert batch.mask.tolist() == [[False], [True]]


def test_nothing_to_pack_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rollouts"):
        collate([], pad_id=0)


def test_a_rollout_that_was_not_verified_is_an_error() -> None:
    with pytest.raises(ValueError, match="has not been verified"):
        collate([rollout((1,), (5,), verdict=None)], pad_id=0)


@pytest.mark.parametrize("logprobs", [(), (-1.0,), (-1.0, -1.0), (-1.0,) * 4])
def test_logprobs_that_do_not_match_the_tokens_are_an_error(logprobs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=f"3 completion tokens.*{len(logprobs)} log-probs"):
        collate([rollout((1, 2), (5, 6, EOS), sampler_logprobs=logprobs)], pad_id=0)


def test_a_prompt_without_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="prompt p has no tokens"):
        collate([rollout((1,), (5, EOS)), rollout((), (5, 6, EOS))], pad_id=0)


def test_rows_are_trimmed_to_their_own_longest() -> None:
    batch = collate([rollout((1, 2), (5, 6, EOS)), rollout((3,), (7, EOS)), rollout((4,), (EOS,))], pad_id=0)
    batch = replace(batch, extras={"a": torch.arange(12.0).view(3, 4), "b": torch.arange(3)})
    part = batch.rows(torch.tensor([2, 1]))
    assert part.inputs.tolist() == [[4, 0], [3, 7]]
    assert part.mask.tolist() == [[True, False], [True, True]]
    assert part.extras["a"].tolist() == [[8.0, 9.0], [4.0, 5.0]]
    assert part.extras["b"].tolist() == [2, 1]
    assert part.old_logprobs is None


LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 200))
def test_micro_batches_cover_each_row_once_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    parts = list(micro_batches(torch.tensor(lengths), max_tokens))
    assert sorted(index for part in parts for index in part.tolist()) == list(range(len(lengths)))
    for part in parts:
        widths = [lengths[index] for index in part.tolist()]
        assert len(part) == 1 or max(widths) * len(part) <= max_tokens
        assert widths == sorted(widths, reverse=True)


def test_micro_batches_by_hand() -> None:
    # Longest first: 5 alone (2 * 5 > 9), then 4 + 3 (8 positions), then 2 + 1.
    parts = [part.tolist() for part in micro_batches(torch.tensor([3, 5, 1, 4, 2]), 9)]
    assert parts == [[1], [3, 0], [4, 2]]


@given(st.integers(1, 6), st.lists(st.integers(0, 9), min_size=6, max_size=40), st.integers(0, 2**31))
def test_mini_batches_are_whole_groups_and_cover_each_row_once(count: int, group: list[int], seed: int) -> None:
    if len(set(group)) < count:
        return
    parts = [part.tolist() for part in mini_batches(torch.tensor(group), count, torch.Generator().manual_seed(seed))]
    assert len(parts) == count
    assert sorted(index for part in parts for index in part) == list(range(len(group)))
    sizes = []
    for part in parts:
        own = {group[index] for index in part}
        sizes.append(len(own))
        assert part == [index for index in range(len(group)) if group[index] in own]
    assert max(sizes) - min(sizes) <= 1


def test_mini_batches_are_shuffled_by_their_generator_alone() -> None:
    group = torch.arange(8).repeat_interleave(2)

    def draw(seed: int) -> list[list[int]]:
        return [part.tolist() for part in mini_batches(group, 4, torch.Generator().manual_seed(seed))]

    first = draw(1)
    torch.manual_seed(123)
    assert draw(1) == first
    assert draw(2) != first
    assert first != [list(range(4 * part, 4 * part + 4)) for part in range(4)]


def test_one_mini_batch_is_the_batch_in_its_own_order() -> None:
    assert mini_batches(torch.tensor([3, 1, 3]), 1, torch.Generator())[0].tolist() == [0, 1, 2]


def test_more_mini_batches_than_prompts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"updates_per_rollout=3 needs at least that many prompts in a step, got 2"):
        mini_batches(torch.tensor([0, 0, 1]), 3, torch.Generator())
