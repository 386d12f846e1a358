"""The real wheels: what comes out is the model and the problems that it should be. Skipped where pip finds them not."""

from __future__ import annotations

import json

import pytest
import torch
from real_model import real_problems, smollm2

from trainer.contract.config import ModelConfig
from trainer.downloads.folders import SOURCE
from trainer.policy.model import end_tokens, load_model, load_tokenizer

pytestmark = pytest.mark.slow


def test_smollm2_is_a_plain_llama_that_answers() -> None:
    folder = smollm2()
    config = ModelConfig(path=str(folder))
    model, tokenizer = load_model(config), load_tokenizer(config)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert model.config.vocab_size == len(tokenizer) == 49_152  # type: ignore[union-attr]
    assert end_tokens(config, tokenizer) == (2,) and tokenizer.chat_template
    assert "4 bits" in json.loads((folder / SOURCE).read_text())["note"]
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    said = model.generate(ids, max_new_tokens=12, do_sample=False)  # type: ignore[operator]
    assert "Paris" in tokenizer.decode(said[0, ids.shape[1] :])


@pytest.mark.parametrize(
    ("name", "file", "rows", "columns"),
    [
        ("gsm8k_100", "train.jsonl", 80, {"question", "answer"}),
        ("gsm8k_100", "test.jsonl", 20, {"question", "answer"}),
        ("humaneval", "test.jsonl", 164, {"task_id", "prompt", "entry_point", "canonical_solution", "test"}),
        ("champ", "test.jsonl", 270, {"problem", "answer", "solution"}),
    ],
)
def test_real_problems(name: str, file: str, rows: int, columns: set[str]) -> None:
    found = [json.loads(line) for line in (real_problems(name) / file).read_text().splitlines()]
    assert len(found) == rows and all(columns <= set(row) for row in found)
