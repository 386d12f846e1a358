"""The pretraining recipe in miniature, its traces, its figures, and the model that ships."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.pretrain.__main__ import PretrainConfig, learning_rate_at, main, parse_arguments
from trainer.pretrain.data import IGNORED, batches, encode, traces
from trainer.pretrain.evaluate import Sampled, figures, pass_at, sample_suite
from trainer.pretrain.habits import MOST_WORDS, WORDS, writers
from trainer.pretrain.model import build_model, build_tokenizer
from trainer.tasks.countdown import Countdown
from trainer.tasks.countdown_problems import random_walk, split_of
from trainer.tasks.countdown_steps import parse, solves

SHIPPED = Path(__file__).parents[3] / "trainer" / "assets" / "countdown-tiny"
HANDS = writers(16, 4, 1.2)
MINIATURE = ["--steps", "12", "--batch-size", "16", "--hidden", "32", "--layers", "1", "--threads", "1"]


def test_traces_are_honest_and_avoid_every_other_split() -> None:
    drawn = list(traces(600, number_max=9, hands=HANDS, school=0.5, seed=0))
    right = [trace.steps[-1].result == trace.problem.target for trace in drawn]
    for trace in drawn:
        assert split_of(trace.problem) == "pretrain" and parse(trace.response) == trace.steps
        assert solves(trace.steps, trace.problem.numbers, trace.steps[-1].result)  # right steps, whatever the end
    # Writers 4, 8, 12 and 16 are skilled: of shares 1/1 + ... + 1/16 = 3.381 they have 0.521, so that a trace is right
    # with chance 0.05 + 0.9 * 0.154 = 0.189. Binomial(300, 0.189): mean 57, standard deviation 6.8; four are 27.
    assert all(right[:300]) and abs(sum(right[300:]) - 57) < 27
    assert drawn == list(traces(600, number_max=9, hands=HANDS, school=0.5, seed=0))


def test_every_writer_has_words_and_a_taste_of_its_own() -> None:
    rng = random.Random(0)
    steps = parse("4*7=28,28-2=26") or ()
    spoken = [Counter(hand.write(steps, rng).split()[0] for _ in range(500)) for hand in HANDS]
    assert all(set(words) <= set(WORDS) for words in spoken)  # the first step always has a word
    # The favourite of 32 words with weights rank^-1.2 has 1 / (1 + 2^-1.2 + ... + 32^-1.2) = 0.369 of the openings.
    assert all(words.most_common(1)[0][1] / 500 == pytest.approx(0.369, abs=0.09) for words in spoken)
    assert len({words.most_common(1)[0][0] for words in spoken}) == len(HANDS)
    second = [len(HANDS[1].write(steps, rng).split(",")[1].split()) - 1 for _ in range(4000)]
    # Chatter 1/2: k words have chance 1/2^(k+1) below the most, four, which has 1/2^4: mean 15/16.
    assert max(second) == MOST_WORDS and sum(second) / 4000 == pytest.approx(15 / 16, abs=0.08)
    walks = [random_walk((2, 3, 4, 6), 1, 99, rng, HANDS[2].taste) for _ in range(900)]
    operators = Counter(steps[0].operator for steps in walks if steps)
    assert operators.most_common(1)[0][0] == "*" and HANDS[2].taste.operators == "*/+-"


def test_words_are_tokens() -> None:
    tokenizer = build_tokenizer()
    text = "so now 4*7=28,then 28-2=26"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 2 + 6 + 1 + 1 + 7 and tokenizer.decode(ids) == text
    assert len(tokenizer) == 24 + len(WORDS) and len(set(WORDS)) == 32


def test_targets_are_the_response_and_its_end_token_only() -> None:
    tokenizer = build_tokenizer()
    rows = [encode(trace, tokenizer) for trace in traces(64, 9, HANDS, 0.5, 1)]
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
    # ln 56 = 4.03 nats is the loss of a uniform guess over the 56 tokens; a dozen steps must beat it.
    assert losses[0] == pytest.approx(math.log(56), abs=0.3) and losses[-1] < losses[0] - 0.3
    assert digest(tmp_path / "first") == digest(tmp_path / "again")
    main([*MINIATURE, "--seed", "1", "--output", str(tmp_path / "other")])
    assert digest(tmp_path / "first") != digest(tmp_path / "other")
    capsys.readouterr()
    main(["--evaluate", str(tmp_path / "first"), "--prompts", "4", "--samples", "4", "--threads", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["suite"] for row in rows] == ["train", "heldout", "ood"]
    assert all(0 < row["entropy_nats"] <= math.log(56) for row in rows)


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_arguments([]) == PretrainConfig()
    for options, words in (
        (["--steps", "0"], "steps is 0; set it to 1 or more"),
        (["--writers", "0"], "writers is 0; set it to 1 or more"),
        (["--school", "1.5"], "school is 1.5; set it between 0 and 1"),
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
    # The card says about 0.04 and 0.9 nats over 256 prompts; 24 prompts scatter, so the bounds are wide.
    assert 0.01 < row["reward"] < 0.2 and 0.6 < row["entropy_nats"] < 1.2 and row["finished_frac"] > 0.97
