"""The pretraining recipe in miniature, its traces, its figures, and the model that ships."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.pretrain.__main__ import PretrainConfig, learning_rate_at, main, parse_arguments
from trainer.pretrain.data import IGNORED, batches, encode, traces
from trainer.pretrain.evaluate import Sampled, figures, pass_at, sample_suite
from trainer.pretrain.habits import MOST_WORDS, WORDS, Habits
from trainer.pretrain.model import build_model, build_tokenizer
from trainer.tasks.countdown import Countdown
from trainer.tasks.countdown_problems import split_of
from trainer.tasks.countdown_steps import parse, solves

SHIPPED = Path(__file__).parents[3] / "trainer" / "assets" / "countdown-tiny"
PLAIN = Habits(chatter=0.0, skew=0.0)
MINIATURE = ["--steps", "12", "--batch-size", "16", "--hidden", "32", "--layers", "1", "--threads", "1"]


def test_traces_are_honest_and_avoid_every_other_split() -> None:
    drawn = list(traces(300, correct_share=0.7, number_max=9, habits=PLAIN, seed=0))
    right = 0
    for trace in drawn:
        numbers, end = trace.problem.numbers, trace.steps[-1].result
        assert split_of(trace.problem) == "pretrain" and parse(trace.response) == trace.steps
        assert solves(trace.steps, numbers, end)  # every step is correct, whatever it ends on
        right += end == trace.problem.target
    # Binomial(300, 0.7): mean 210, standard deviation 7.9; four of them are 32.
    assert abs(right - 210) < 32
    assert drawn == list(traces(300, correct_share=0.7, number_max=9, habits=PLAIN, seed=0))


def test_words_and_skew_change_the_writing_and_not_the_truth() -> None:
    drawn = list(traces(1000, 0.7, 9, Habits(chatter=0.5, skew=1.2), 0))
    assert all(parse(trace.response) == trace.steps for trace in drawn)
    words = [len(part.split()) - 1 for trace in drawn for part in trace.response.split(",")]
    # Of a step, k words have chance 1/2^(k+1) below the most, which has 1/2^4: mean 1/2 + 1/4 + 1/8 + 1/16 = 15/16.
    assert max(words) == MOST_WORDS and sum(words) / len(words) == pytest.approx(15 / 16, abs=0.1)
    spoken = Counter(word for trace in drawn for word in trace.response.split() if word.isalpha())
    assert set(spoken) <= set(WORDS)
    operators = Counter(step.operator for trace in drawn for step in trace.steps)
    plain = Counter(step.operator for trace in traces(1000, 0.7, 9, PLAIN, 0) for step in trace.steps)
    assert operators["+"] / operators.total() > 0.6 > plain["+"] / plain.total()


def test_words_are_tokens_of_the_talking_tokenizer() -> None:
    tokenizer = build_tokenizer(words=True)
    text = "so now 4*7=28,then 28-2=26"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 2 + 6 + 1 + 1 + 7 and tokenizer.decode(ids) == text
    assert len(tokenizer) == len(build_tokenizer()) + len(WORDS) and len(set(WORDS)) == 32


def test_targets_are_the_response_and_its_end_token_only() -> None:
    tokenizer = build_tokenizer()
    rows = [encode(trace, tokenizer) for trace in traces(64, 0.7, 9, PLAIN, 1)]
    for inputs, targets in batches(rows, 16, tokenizer.pad_token_id, 0):
        for line, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
            kept = [token for token in wanted if token != IGNORED]
            prompt, _, _ = tokenizer.decode(line, skip_special_tokens=True).partition(":")
            response = tokenizer.decode(kept, skip_special_tokens=True)
            assert kept[-1] == tokenizer.eos_token_id and kept.count(tokenizer.eos_token_id) == 1
            ids = list(tokenizer(f"{prompt}:{response}")["input_ids"])
            assert ([*ids, tokenizer.eos_token_id], len(prompt) + 1) in rows


def test_tokenizer_is_one_token_a_character_with_distinct_special_tokens() -> None:
    tokenizer = build_tokenizer()
    text = "4,7,3,2=26:4*7=28,28-2=26"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) and tokenizer.decode(ids) == text and tokenizer.bos_token is None
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
    assert tokenizer("é\x00")["input_ids"] == [tokenizer.unk_token_id] * 2


def test_learning_rate_warms_up_and_reaches_zero() -> None:
    # 100 steps, warm-up 5: step 0 is 1/5 of the peak; half the cosine lies at 5 + 95/2; the end is near 0.
    assert learning_rate_at(0, 100, 1.0) == 0.2
    assert learning_rate_at(5, 100, 1.0) == 1.0
    assert learning_rate_at(99, 100, 1.0) == pytest.approx(0.5 * (1 + math.cos(math.pi * 94 / 95)))
    assert learning_rate_at(99, 100, 1.0) < 0.001


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_recipe_in_miniature_learns_loads_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "again"):
        main([*MINIATURE, "--output", str(tmp_path / name)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    # ln 24 = 3.18 nats is the loss of a uniform guess over the 24 tokens; a dozen steps must beat it.
    assert losses[0] == pytest.approx(math.log(24), abs=0.3) and losses[-1] < losses[0] - 0.3
    assert digest(tmp_path / "first") == digest(tmp_path / "again")
    main([*MINIATURE, "--seed", "1", "--output", str(tmp_path / "other")])
    assert digest(tmp_path / "first") != digest(tmp_path / "other")
    capsys.readouterr()
    main(["--evaluate", str(tmp_path / "first"), "--prompts", "4", "--samples", "4", "--threads", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["suite"] for row in rows] == ["train", "heldout", "ood"]
    assert all(0 < row["entropy_nats"] <= math.log(24) for row in rows)


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_arguments([]) == PretrainConfig()
    for options, words in (
        (["--steps", "0"], "steps is 0; set it to 1 or more"),
        (["--correct-share", "1.5"], "correct_share is 1.5; set it between 0 and 1"),
        (["--chatter", "1"], "chatter is 1.0; set it to 0 or more and below 1"),
        (["--skew", "-1"], "skew is -1.0; set it between 0 and 8"),
        (["--hidden", "40"], "hidden is 40; set it to a multiple of 32"),
        (["--evaluate", "nowhere"], "nowhere is not a folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(options)
        assert stop.value.code == 2 and words in capsys.readouterr().err


def test_figures_by_hand() -> None:
    # 4 samples, 2 right: pass@1 = 1/2, pass@2 = 1 - C(2,2)/C(4,2) = 5/6, pass@4 = 1.
    assert [pass_at(k, [1.0, 0.0, 0.0, 1.0]) for k in (1, 2, 4)] == pytest.approx([1 / 2, 5 / 6, 1.0])
    one = Sampled(
        rewards=[1.0, 0.0, 0.0, 1.0],
        texts=["a", "a", "b", "c"],
        entropies=[0.0] * 6 + [1.0] * 2,
        lengths=[2] * 4,
        finished=[True] * 4,
    )
    two = Sampled(rewards=[0.0] * 4, texts=["a"] * 4, entropies=[0.5] * 4, lengths=[1] * 4, finished=[False] * 4)
    row = figures([one, two])
    assert row["reward"] == 2 / 8 and row["pass_at_4"] == 0.5 and row["mixed_groups_frac"] == 0.5
    assert row["distinct_frac"] == 4 / 8 and row["finished_frac"] == 0.5
    # Entropy is over tokens, not a mean of means: (2 * 1 + 4 * 0.5) / 12; 6 of 12 tokens are nearly certain.
    assert row["entropy_nats"] == pytest.approx(4 / 12) and row["nearly_certain_frac"] == 0.5
    assert row["length_mean"] == 12 / 8


def test_shipped_model_is_small_loads_and_solves_some() -> None:
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    assert model.config.model_type == "qwen3" and model.num_parameters() < 1_000_000
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 5_000_000
    assert model.num_parameters() == build_model(128, 4, 0).num_parameters()
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    task = Countdown(num_prompts=24)
    row = figures(sample_suite(model, tokenizer, task, task.train_prompts(), 8, 40, 0))
    # The card says about 0.25 and 0.4 nats over 256 prompts; 24 prompts scatter, so the bounds are wide.
    assert 0.08 < row["reward"] < 0.6 and 0.15 < row["entropy_nats"] < 0.8 and row["finished_frac"] > 0.97
