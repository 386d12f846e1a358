"""A tiny Llama with a tokenizer of characters, a begin token, two end tokens and a chat template: an instruct model.

Made anew for each test in a folder that the test may spoil.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from runs import run_config
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.contract import run_yaml
from trainer.contract.component_source import component_defaults
from trainer.contract.identity import signature
from trainer.setup.checks import problems
from trainer.storage.record import RunFolder

SPECIAL = ("<pad>", "<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
BEGIN, END, TURN_END = 1, 2, 3
CHARACTERS = "\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!+-*/=(){}\\<>|$^_'\""

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(*, chat: str | None = CHAT, ends: bool = False) -> PreTrainedTokenizerFast:
    """One token a character; ``ends``: it closes what it reads with its end token."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    single = "<s> $A </s>" if ends else "<s> $A"
    inner.post_processor = processors.TemplateProcessing(single, special_tokens=[("<s>", BEGIN), ("</s>", END)])
    # The token that ends a turn is special to the chat template only, as <|end|> is to several released models.
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )
    made.add_tokens([token for token in SPECIAL if token.startswith("<|")])
    made.chat_template = chat
    return made


def instruct_model(folder: Path, *, chat: str | None = CHAT, tied: bool = True, **settings: Any) -> Path:
    """Write the model to ``folder``; ``settings`` change its configuration."""
    text = tokenizer(chat=chat)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {"max_position_embeddings": 256, "bos_token_id": BEGIN, "eos_token_id": [END, TURN_END], **sizes}
    config = LlamaConfig(vocab_size=len(text), tie_word_embeddings=tied, **(options | settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    text.save_pretrained(folder)
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def questions(file: Path, *texts: str) -> Path:
    """A file of questions, each with the answer 2."""
    file.write_text("".join(json.dumps({"question": text, "answer": "2"}) + "\n" for text in texts))
    return file


def math_run(model: Path | None, file: Path, changes: Mapping[str, Any] | None = None, **task: Any) -> dict[str, Any]:
    """Resolved configuration of one small step on the questions in ``file``; ``task`` are settings of the task."""
    small = {"rollout.prompts_per_step": 1, "rollout.max_tokens": 12, "evaluation.every": 0, "steps": 1}
    config = run_config(small | {"model.path": model and str(model)} | dict(changes or {}))
    target = "trainer.tasks.jsonl.JsonlTask"
    config["task"] = {"_target_": target, **component_defaults(target), "path": str(file), **task}
    return config | {"signature": signature(config)}


def run_folder(path: Path, config: Mapping[str, Any]) -> RunFolder:
    """A folder that is ready to start."""
    path.mkdir()
    (path / "run.yaml").write_text(run_yaml.dumps(config))
    return RunFolder(path)


def fatal(config: Mapping[str, Any]) -> list[str]:
    """Why it cannot run: what the check before the queue says, a sentence each."""
    found = [problem.message for problem in problems(config) if problem.fatal]
    assert all("\n" not in sentence for sentence in found)
    return found
