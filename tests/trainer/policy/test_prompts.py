"""Instruct models: chat template, begin token and end tokens are the model's own, or refused in words."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import VLLM, run_config
from small_models import BEGIN, END, TURN_END, edit, fatal, instruct_model, math_run, questions, run_folder, tokenizer
from transformers import AutoModelForCausalLM

from trainer.__main__ import main
from trainer.batch.types import Prompt
from trainer.contract.config import ModelConfig
from trainer.contract.settings import ConfigError
from trainer.engine.base import EngineSetup
from trainer.engine.transformers import TransformersEngine
from trainer.policy.model import end_tokens, load_tokenizer
from trainer.policy.prompts import prompt_ids
from trainer.session.devices import engine_setup
from trainer.setup.build import build_run
from trainer.setup.examine import check_lengths, fitting, measured_prompts
from trainer.tasks.jsonl import JsonlTask


def spelt(prompt: Prompt, **options: object) -> str:
    text = tokenizer(**options)  # type: ignore[arg-type]
    return str(text.decode(prompt_ids(text, prompt)))


def prompts(folder: Path, question: str = "1+1?", **settings: object) -> list[Prompt]:
    return JsonlTask(path=str(questions(folder / "q.jsonl", question)), **settings).train_prompts()  # type: ignore[arg-type]


def test_a_question_becomes_a_turn_of_the_chat_template_with_one_begin_token(tmp_path: Path) -> None:
    (prompt,) = prompts(tmp_path, prompt_template="{question}\n")
    assert spelt(prompt) == "<s><|user|>1+1?<|end|><|assistant|>"
    (prompt,) = prompts(tmp_path, prompt_template="{question}", system_prompt="Be right.")
    assert spelt(prompt) == "<s><|system|>Be right.<|end|><|user|>1+1?<|end|><|assistant|>"


def test_raw_prompts_and_tokenizers_without_template_keep_the_text_as_it_stands(tmp_path: Path) -> None:
    (raw,) = prompts(tmp_path, prompt_template="{question}\n", prompt_format="raw")
    (auto,) = prompts(tmp_path, prompt_template="{question}\n")
    assert spelt(raw) == spelt(auto, chat=None) == "<s>1+1?\n"


def test_a_template_typed_by_hand_gets_no_second_begin_token(tmp_path: Path) -> None:
    typed = "<s><|user|>{question}<|end|><|assistant|>"
    (prompt,) = prompts(tmp_path, prompt_template=typed, prompt_format="raw")
    ids = prompt_ids(tokenizer(), prompt)
    assert ids.count(BEGIN) == 1 and spelt(prompt) == typed.replace("{question}", "1+1?")


def test_further_end_tokens_and_the_padding_are_named_by_their_text(tmp_path: Path) -> None:
    folder = str(instruct_model(tmp_path / "model", eos_token_id=END))
    config = ModelConfig(path=folder, end_tokens=("<|end|>",), pad_token="<|user|>")
    text = load_tokenizer(config)
    assert end_tokens(config, text) == (END, TURN_END) and text.pad_token == "<|user|>"
    assert end_tokens(ModelConfig(path=folder), text) == (END,)
    for key, value in (("end_tokens", ["<|stop|>"]), ("pad_token", "<|stop|>")):
        run = math_run(tmp_path / "model", questions(tmp_path / "q.jsonl", "1+1?"), {f"model.{key}": value})
        (said,) = fatal(run)
        assert said.startswith(f"model.{key}='<|stop|>' cannot be used: the model's vocabulary has no such token")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    folder, larger = instruct_model(tmp_path / "model"), tokenizer()
    size = len(larger)
    larger.add_tokens(["<|more|>"])
    larger.save_pretrained(folder)
    (said,) = fatal(math_run(folder, questions(tmp_path / "q.jsonl", "1+1?")))
    assert f"its token '<|more|>' is number {size}, but the model knows {size} tokens" in said


def test_a_tokenizer_that_ends_what_it_reads_does_not_end_the_prompt() -> None:
    assert spelt(Prompt(id="p", text="1+1?"), ends=True) == "<s>1+1?"
    assert spelt(Prompt(id="p", text="1+1?</s>"), ends=True).endswith("</s></s>")  # asked for, and then the tokenizer's


@pytest.mark.parametrize(
    ("settings", "chat", "words"),
    [
        ({"prompt_format": "chat"}, None, "task.prompt_format=chat needs a chat template"),
        ({"system_prompt": "s"}, None, "task.system_prompt needs a chat template"),
        ({"system_prompt": "s"}, "{{ raise_exception('no system') }}", "refuses prompt train-0: no system; leave out"),
        ({"system_prompt": "Be right"}, "{{ messages[1]['content'] }}", "drops the system turn"),
        ({}, "{{ nothing.at.all }}", "refuses prompt train-0: "),
        ({}, "{% if", "refuses prompt train-0: "),
    ],
)
def test_what_a_template_cannot_say_is_refused_before_anything_starts(
    tmp_path: Path, settings: dict[str, object], chat: str | None, words: str
) -> None:
    model = instruct_model(tmp_path / "model", chat=chat)
    (sentence,) = fatal(math_run(model, questions(tmp_path / "q.jsonl", "1+1?"), **settings))
    assert words in sentence


def test_a_system_prompt_in_a_raw_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="system_prompt would be dropped"):
        prompts(tmp_path, prompt_format="raw", system_prompt="s")
    with pytest.raises(ValueError, match="prompt_format is 'chatml'; set it to one of auto, chat, raw"):
        prompts(tmp_path, prompt_format="chatml")


def test_a_template_that_prints_the_date_prints_the_same_one_every_day() -> None:
    dated = "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    assert spelt(Prompt(id="p", text="q", chat=True), chat=dated) == "26 Jul 2024 q"
    assert datetime.date.today().year > 2024


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (r"{question}\nReason.\n", "1+1?\nReason.\n"),
        ("{question}\nReason.", "1+1?\nReason."),
        (r"{question}\n\nput it within \boxed{}", "1+1?\n\nput it within \\boxed{}"),
        (r"{question} \neq \nabla \nu \ne0 \not\in", r"1+1? \neq \nabla \nu \ne0 \not\in"),
        (r"{question}\nnever \\n", "1+1?\nnever \\\\n"),
    ],
)
def test_a_line_break_typed_on_a_command_line_is_one(tmp_path: Path, typed: str, read: str) -> None:
    (prompt,) = prompts(tmp_path, prompt_template=typed)
    assert prompt.text == read


def test_the_end_tokens_are_those_of_tokenizer_configuration_and_generation_configuration(tmp_path: Path) -> None:
    def ends(folder: Path) -> tuple[int, ...]:
        config = ModelConfig(path=str(folder))
        return end_tokens(config, load_tokenizer(config))

    model = instruct_model(tmp_path / "model")
    assert ends(model) == (END, TURN_END)
    edit(model / "config.json", eos_token_id=5)
    edit(model / "generation_config.json", eos_token_id=[TURN_END, 7])
    assert ends(model) == (END, TURN_END, 5, 7)
    (model / "generation_config.json").unlink()
    edit(model / "config.json", eos_token_id=None)
    assert END in ends(model)
    assert end_tokens(ModelConfig(), load_tokenizer(ModelConfig())) == (1,)


def likely_to_end(folder: Path) -> Path:
    """The model at ``folder``, now sampling one of its two end tokens half the time."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.get_output_embeddings().weight.data.normal_(0, 1e-3)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        model.base_model.norm.weight.zero_()[0] = 1.0
        for layer in model.base_model.layers:
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.zero_()
        model.get_input_embeddings().weight.zero_()[:, 0] = 1.0
        head[[END, TURN_END], 0] = 0.9
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def test_every_end_token_ends_a_response_in_every_engine(tmp_path: Path, engine: str) -> None:
    model = likely_to_end(instruct_model(tmp_path / "model", tied=False, head_dim=32))
    if engine == "vllm":
        pytest.importorskip("vllm")
    run = build_run(math_run(model, questions(tmp_path / "q.jsonl", "1+1?"), VLLM if engine == "vllm" else {}))
    text = load_tokenizer(run.model)
    started: Any = run.engine.start(engine_setup(run, text, torch.device("cpu")))
    try:
        for _ in range(1 + (engine == "vllm")):
            ((*responses,),) = started.generate(
                [prompt_ids(text, run.task.train_prompts()[0])], samples=64, temperature=1.0, max_tokens=12, seeds=[3]
            )
            stopped = [response.token_ids for response in responses if response.finish_reason == "stop"]
            assert {tokens[-1] for tokens in stopped} == {END, TURN_END}
            assert not any({END, TURN_END} & set(response.token_ids[:-1]) for response in responses)
            assert all(
                (END in r.token_ids or TURN_END in r.token_ids) == (r.finish_reason == "stop") for r in responses
            )
            started._lockstep = None  # then with vLLM's own scheduler
    finally:
        started.close()


def test_a_run_trains_on_the_template_and_keeps_the_end_token_out_of_the_text(tmp_path: Path) -> None:
    model = likely_to_end(instruct_model(tmp_path / "model", tied=False))
    folder = run_folder(tmp_path / "run", math_run(model, questions(tmp_path / "q.jsonl", "1+1?")))
    assert main([str(folder.path)]) == 0
    samples = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    assert samples and all(
        "<|end|>" not in sample["response"] and "</s>" not in sample["response"] for sample in samples
    )


def test_prompts_that_leave_no_room_are_counted_before_anything_starts(tmp_path: Path) -> None:
    model = instruct_model(tmp_path / "model", max_position_embeddings=64)
    file = questions(tmp_path / "q.jsonl", "short", "a" * 50, "b" * 60)
    config = math_run(model, file, prompt_template="{question}")
    (sentence,) = fatal(config)
    assert f"2 of 3 prompts of the training set do not fit: the first, {file}:2, has 54 tokens" in sentence
    assert "rollout.max_tokens=12 more" in sentence and "context of 64; lower rollout.max_tokens" in sentence
    with pytest.raises(ConfigError, match="2 of 3 prompts"):
        run = build_run(config)
        engine_setup(run, load_tokenizer(run.model), torch.device("cpu"))


def test_prompts_that_do_not_fit_are_left_out_where_the_task_says_so(tmp_path: Path) -> None:
    model = instruct_model(tmp_path / "model", max_position_embeddings=64)
    file = questions(tmp_path / "q.jsonl", "short", "a" * 50, "b" * 60)
    run = build_run(math_run(model, file, prompt_template="{question}"))
    run = replace(run, task=JsonlTask(path=str(file), prompt_template="{question}", bad_rows="drop"))
    fitted, longest = fitting(run)
    assert [prompt.text for prompt in fitted.task.train_prompts()] == ["short"]
    assert longest == len("short") + 4 + 12
    _, (sentence,) = check_lengths(run, measured_prompts(run.task, run.model, evaluated=False))
    assert "2 of 3 prompts" in sentence and sentence.endswith("they are left out (task.bad_rows=drop)")
    none = replace(run, task=JsonlTask(path=str(questions(tmp_path / "long.jsonl", "a" * 90)), bad_rows="drop"))
    with pytest.raises(ConfigError, match="1 of 1 prompts of the training set do not fit"):
        fitting(none)


@pytest.mark.parametrize("tokens", [58, 59])
def test_a_context_is_used_to_its_last_position(tmp_path: Path, tokens: int) -> None:
    model = instruct_model(tmp_path / "model", max_position_embeddings=64)
    file = questions(tmp_path / "q.jsonl", "1?")
    config = math_run(model, file, {"rollout.max_tokens": tokens}, prompt_template="{question}")
    assert bool(fatal(config)) == (tokens > 58)
    if tokens == 58:
        run = build_run(config)
        setup: EngineSetup = engine_setup(run, load_tokenizer(run.model), torch.device("cpu"))
        assert setup.max_length == 64
        engine = TransformersEngine().start(setup)
        engine.close()


def test_responses_of_the_evaluation_have_to_fit_too(tmp_path: Path) -> None:
    (sentence,) = fatal(run_config({"evaluation.max_tokens": 250}))
    assert "of suite 'heldout' do not fit" in sentence and "evaluation.max_tokens=250" in sentence


def test_examples_are_turns_of_a_chat_or_text_before_the_prompt() -> None:
    prompt = Prompt(id="p", text="2+2?\n", chat=None, system="Be right.", examples=(("1+1?\n", "2"), ("0+1?\n", "1")))
    turns = "<|user|>1+1?<|end|><|assistant|>2<|end|><|user|>0+1?<|end|><|assistant|>1<|end|><|user|>2+2?<|end|>"
    assert spelt(prompt) == f"<s><|system|>Be right.<|end|>{turns}<|assistant|>"
    assert spelt(replace(prompt, chat=False, system=None)) == "<s>1+1?\n2\n\n0+1?\n1\n\n2+2?\n"
