"""From prompts to tokens by the model's own conventions: chat template, begin token, context.

It must not know what a prompt asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainer.batch.types import Prompt
from trainer.contract.settings import ConfigError

TEMPLATE_DAY = datetime(2024, 7, 26)
"""What day it is for chat templates that print one (Llama 3's own fallback): a run that is resumed, or repeated,
tomorrow has the same prompts."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[int, ...]:
    """Tokens of a prompt: a chat turn in the tokenizer's template, or the text with the tokenizer's begin token.

    A template, or a text that starts with the begin token, brings its special tokens along and gets no others. A
    tokenizer that also ends what it reads with the end token does not: the response is still to come.
    Raises :class:`ConfigError` when the template is missing, fails, or leaves something out.
    """
    if is_chat(tokenizer, prompt):
        return tuple(tokenizer(_turns(tokenizer, prompt), add_special_tokens=False)["input_ids"])
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    text = "".join(f"{asked}{answered}\n\n" for asked, answered in prompt.examples) + prompt.text
    if begin and text.startswith(str(begin)):
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = tuple(tokenizer(text)["input_ids"])
    ended = bool(ids) and ids[-1] == tokenizer.eos_token_id and not text.endswith(str(end))
    return ids[:-1] if ended else ids


def is_chat(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> bool:
    """Whether the chat template applies; raises :class:`ConfigError` when it has to and there is none."""
    if prompt.chat is False:
        return False
    templated = bool(tokenizer.chat_template)
    if not templated and (prompt.chat or prompt.system is not None):
        key = "task.prompt_format=chat" if prompt.chat else "task.system_prompt"
        raise ConfigError(
            f"{key} needs a chat template, and the tokenizer of this model has none: use task.prompt_format=raw and "
            "write the whole prompt into task.prompt_template"
        )
    return templated


def _turns(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """A system turn, if there is one, two turns for each example, a user turn, and the opening of the model's own."""
    # The line break that ends a raw prompt is what the template now does.
    contents = [*(turn for example in prompt.examples for turn in example), prompt.text]
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": text.rstrip("\n")} for number, text in enumerate(contents)]
    if prompt.system is not None:
        turns.insert(0, {"role": "system", "content": prompt.system})
    options: dict[str, Any] = {"strftime_now": TEMPLATE_DAY.strftime}
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options))
    except Exception as error:  # a template is a program of the model's author, and says what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "leave out task.system_prompt or " if prompt.system is not None else ""
        raise ConfigError(
            f"the chat template of this model refuses prompt {prompt.id}: {reason}; {remedy}use task.prompt_format=raw"
        ) from error
    for turn in turns:
        if turn["content"].strip() not in text:
            raise ConfigError(
                f"the chat template of this model drops the {turn['role']} turn of prompt {prompt.id}: "
                "use task.prompt_format=raw and write the whole prompt into task.prompt_template"
            )
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLength:
    """Size of one prompt."""

    id: str
    where: str
    """File and line, where the task knows them, or the id."""
    tokens: int


def misfits(
    where: str, lengths: Sequence[PromptLength], key: str, max_tokens: int, context: int | None
) -> tuple[list[PromptLength], str]:
    """Prompts without tokens, or that leave no room for a response in the model's context, and a sentence on them.

    ``key`` is the setting that ``max_tokens`` comes from; ``context`` None knows no end.
    """
    room = math.inf if context is None else context - max_tokens
    unfit = [length for length in lengths if not 0 < length.tokens <= room]
    if not unfit:
        return [], ""
    first = unfit[0]
    return unfit, (
        f"{len(unfit)} of {len(lengths)} prompts of {where} do not fit: the first, {first.where}, has {first.tokens} "
        f"tokens, and {key}={max_tokens} more have to find room in the model's context of {context}"
    )
