"""The split of an evaluation set into what is trained on and what is held out."""

from __future__ import annotations

import pytest

from trainer.batch.types import Prompt
from trainer.contract.settings import ConfigError
from trainer.tasks.heldout import heldout_notes, heldout_part, training_part

PROMPTS = [Prompt(id=str(number), text="") for number in range(5)]


def test_every_second_prompt_from_the_first_is_held_out() -> None:
    assert [prompt.id for prompt in heldout_part(PROMPTS, 2)] == ["0", "2", "4"]
    assert [prompt.id for prompt in training_part(PROMPTS, 2, "task x: f")] == ["1", "3"]
    assert [prompt.id for prompt in training_part(PROMPTS, 4, "task x: f")] == ["1", "2", "3"]
    assert heldout_notes(4, "task x: f")[0].startswith("task x: f is trained on, all but one prompt in 4, so")


def test_a_set_that_is_held_out_altogether_says_so_where_it_should_train() -> None:
    assert heldout_part(PROMPTS, 1) == PROMPTS and heldout_notes(1, "task x: f") == []
    with pytest.raises(ConfigError, match=r"task x: f leaves no prompt to train on; raise task\.heldout_every"):
        training_part(PROMPTS, 1, "task x: f")
