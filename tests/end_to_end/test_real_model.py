"""SmolLM2 through the whole program: chat template, vLLM, reward, checkpoint, export, reload; and on real problems.
Skipped where the packages cannot be had."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from real_model import real_problems, smollm2
from runs import VLLM
from small_models import math_run, run_folder
from transformers import AutoModelForCausalLM

from trainer.__main__ import main
from trainer.batch.types import Prompt
from trainer.contract.config import ModelConfig
from trainer.engine.base import EngineSetup
from trainer.engine.vllm import VLLMEngine
from trainer.policy.model import end_tokens, load_tokenizer
from trainer.policy.prompts import prompt_ids
from trainer.storage.export import export
from trainer.tasks.jsonl import JsonlTask

pytestmark = pytest.mark.slow
QUESTIONS = ("What is the capital of France?", "What is 2 + 3?", "Name a colour.")
TOKENS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of GRPO on additions."""
    pytest.importorskip("vllm")
    model, folder = smollm2(), tmp_path_factory.mktemp("smollm2")
    rows = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(2, 6) for b in range(2, 6)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"steps": 2, "rollout.prompts_per_step": 4, "rollout.group_size": 4, "rollout.max_tokens": TOKENS}
    changes = VLLM | small | {"optim.lr": 1e-5, "accounting.every": 0, "accounting.ledger_every": 0}
    task = {"prompt_template": "{question} Reply with the number only.", "extract": "number"}
    made = run_folder(folder / "run", math_run(model, folder / "sums.jsonl", changes, **task))
    assert main([str(made.path)]) == 0
    return made.path


def test_rollouts_in_the_chat_template_are_rewarded_and_trained_on(run: Path) -> None:
    records = [json.loads(line)["metrics"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 2
    for record in records:
        assert record["engine/logprob_gap_max"] < 1e-3 and 0 < record["policy/entropy"] < math.log(49_152)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert any(row["answer"] is not None for row in samples)  # it answers additions in numbers
    assert all("<|im_end|>" not in row["response"] for row in samples)


def greedy_by_vllm(config: ModelConfig, prompts: list[tuple[int, ...]], ends: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Near temperature 0 a sample is the most probable token."""
    setup = EngineSetup(
        model_path=str(config.path),
        dtype="float32",
        trust_remote_code=False,
        max_length=256,
        end_tokens=ends,
        device="cpu",
    )
    engine = VLLMEngine(kv_cache_gib=0.2).start(setup)
    try:
        found = engine.generate(prompts, samples=1, temperature=1e-6, max_tokens=TOKENS, seeds=[0] * len(prompts))
    finally:
        engine.close()
    return [completion.token_ids for (completion,) in found]


def greedy_by_transformers(config: ModelConfig, prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    model: Any = AutoModelForCausalLM.from_pretrained(str(config.path), dtype=torch.float32)
    said = [model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)[0] for ids in prompts]
    return [tuple(tokens[len(ids) :].tolist()) for tokens, ids in zip(said, prompts, strict=True)]


def test_greedy_text_of_vllm_transformers_and_the_exported_folder_agree(run: Path, tmp_path: Path) -> None:
    original, exported = ModelConfig(path=str(smollm2())), ModelConfig(path=str(export(run, tmp_path / "model")))
    said = {}
    for config in (original, exported):
        tokenizer = load_tokenizer(config)
        prompts = [prompt_ids(tokenizer, Prompt(id=text, text=text, chat=True)) for text in QUESTIONS]
        ends = end_tokens(config, tokenizer)
        said[config.path] = greedy_by_vllm(config, prompts, ends)
        assert said[config.path] == greedy_by_transformers(config, prompts)
    assert "Paris" in load_tokenizer(original).decode(list(said[original.path][0]))
    weights = [load(str(config.path)) for config in (original, exported)]
    assert not torch.equal(*weights)  # it was trained: the two folders are not one model


def load(folder: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor("model.layers.0.mlp.up_proj.weight")
    return tensor


def test_worked_answers_of_gsm8k_are_correct_and_others_are_not() -> None:
    folder = real_problems("gsm8k_100")
    task = JsonlTask(path=str(folder / "train.jsonl"), solution_field="answer", extract="marker", answer_marker="####")
    prompts = task.train_prompts()
    assert len(prompts) == 80 and task.notes() == []
    right = task.verify_all([(prompt, task.expert(prompt) or "") for prompt in prompts])
    wrong = task.verify_all([(prompt, f"{task.expert(prompt)}1") for prompt in prompts])
    assert [verdict.reward for verdict in right] == [1.0] * 80
    assert [verdict.reward for verdict in wrong] == [0.0] * 80


def test_answers_of_champ_can_be_given() -> None:
    folder = real_problems("champ")
    task = JsonlTask(path=str(folder / "test.jsonl"), question_field="problem", bad_rows="drop", solution_field="none")
    prompts = task.train_prompts()
    rewards = [task.verify(prompt, f"\\boxed{{{prompt.data['answer']}}}").reward for prompt in prompts]
    assert len(prompts) > 250 and sum(rewards) == len(prompts)
