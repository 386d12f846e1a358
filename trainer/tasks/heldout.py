"""The split of an evaluation set that is trained on: every so many-th prompt, from the first, is held out.

Used by tasks that have ``heldout_every`` as a setting.
"""

from __future__ import annotations

from trainer.batch.types import Prompt
from trainer.contract.settings import ConfigError


def training_part(prompts: list[Prompt], heldout_every: int, source: str) -> list[Prompt]:
    """The prompts that are not held out. Raises :class:`ConfigError` where there are none; ``source`` names the task
    and its file."""
    rest = [prompt for number, prompt in enumerate(prompts) if number % heldout_every]
    if not rest:
        raise ConfigError(f"{source} leaves no prompt to train on; raise task.heldout_every")
    return rest


def heldout_part(prompts: list[Prompt], heldout_every: int) -> list[Prompt]:
    """The prompts that are held out."""
    return prompts[::heldout_every]


def heldout_notes(heldout_every: int, source: str) -> list[str]:
    """What training on an evaluation set costs; nothing where all of it is held out."""
    if heldout_every == 1:
        return []
    return [
        f"{source} is trained on, all but one prompt in {heldout_every}, so a model that comes out cannot be evaluated "
        "on the whole of it; suite heldout is not trained on"
    ]
