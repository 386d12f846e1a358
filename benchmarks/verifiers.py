"""Answers judged a second, by verifier, and how often math-verify says what Countdown's own checker says.

    make real-model real-data reasoning-gym
    python -m benchmarks.verifiers

No answer is judged twice. Half of them are wrong: the answer to another problem. Processes of verifiers are started
before the clock is. Countdown's responses are the shipped model's, eight a problem, and a solution found by search for
every problem; math-verify has to find that both sides of every step are equal, and that the last one is the target.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.common import MODEL, NUM_THREADS, save
from trainer.batch.types import Prompt
from trainer.tasks import algebra
from trainer.tasks.base import Task, verify_all
from trainer.tasks.code import CodeTask
from trainer.tasks.countdown import Countdown
from trainer.tasks.countdown_steps import Step, compute, num_correct, parse
from trainer.tasks.jsonl import JsonlTask
from trainer.tasks.reasoning_gym import ReasoningGymTask

Pair = tuple[Prompt, str]
SAMPLES = 8
OPINIONS = {True: "accepts", False: "refuses"}
SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 3, "max_digits": 3}
GSM8K, CHAMP = "cache:data/gsm8k_100/train.jsonl", "cache:data/champ/test.jsonl"


def with_neighbours(prompts: Sequence[Prompt], answer: Callable[[Prompt], str]) -> list[Pair]:
    """Every prompt with its own answer and with that of the next one."""
    following = [*prompts[1:], prompts[0]]
    return [
        pair
        for prompt, other in zip(prompts, following, strict=True)
        for pair in ((prompt, answer(prompt)), (prompt, answer(other)))
    ]


def gold(prompt: Prompt) -> str:
    """The reference answer, boxed."""
    return f"The answer is \\boxed{{{prompt.data['answer']}}}."


def is_expression(prompt: Prompt) -> bool:
    """Whether the reference answer is one value, no equation, list or sentence."""
    return not re.search(r"[=,<>]|(?<![\\A-Za-z])[A-Za-z]{4,}|\\(?:text|le|ge|in|pm)\b", str(prompt.data["answer"]))


def rewritten(prompt: Prompt) -> str:
    """The reference answer as half of its double, which takes algebra to see."""
    return f"The answer is \\boxed{{\\frac{{2({prompt.data['answer']})}}{{2}}}}."


def expert(task: Task) -> Callable[[Prompt], str]:
    """The task's own answer to a prompt."""
    return lambda prompt: str(task.expert(prompt))


def judged(task: Task, pairs: Sequence[Pair]) -> dict[str, float]:
    """Answers a second, the first pair left out, and the shares that are correct and that could not be compared."""
    first, rest = pairs[:1], pairs[1:]
    verify_all(task, first)
    start = time.perf_counter()
    verdicts = verify_all(task, rest)
    seconds = time.perf_counter() - start
    return {
        "answers": len(rest),
        "per_s": len(rest) / seconds,
        "correct": sum(verdict.reward == 1.0 for verdict in verdicts) / len(rest),
        "not_comparable": sum(bool(not verdict.comparable or verdict.failed) for verdict in verdicts) / len(rest),
    }


def sampled(prompts: Sequence[Prompt]) -> list[Pair]:
    """:data:`SAMPLES` responses of the shipped model to every prompt, temperature 1; prompts of one length together."""
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModelForCausalLM.from_pretrained(MODEL)
    by_length: dict[int, list[tuple[Prompt, list[int]]]] = {}
    for prompt in prompts:
        ids = tokenizer(prompt.text).input_ids
        by_length.setdefault(len(ids), []).append((prompt, ids))
    pairs = []
    for length, group in sorted(by_length.items()):
        given = torch.tensor([ids for _, ids in group]).repeat_interleave(SAMPLES, dim=0)
        told = model.generate(given, do_sample=True, top_k=0, max_new_tokens=48, attention_mask=torch.ones_like(given))
        texts = tokenizer.batch_decode(told[:, length:], skip_special_tokens=True)
        pairs += [(group[row // SAMPLES][0], text) for row, text in enumerate(texts)]
    return pairs


def by_algebra(steps: Sequence[Step], target: int) -> bool:
    """Whether math-verify, with this project's second opinion, accepts every step and the last one is the target."""
    last = steps[-1].result == target
    return last and all(algebra.equal(str(step.result), f"{step.left}{step.operator}{step.right}") for step in steps)


def agreement(pairs: Sequence[Pair]) -> dict[str, int]:
    """How many responses each of the two accepts, and why the exact checker refuses what math-verify accepts."""
    found: Counter[str] = Counter()
    for prompt, text in pairs:
        steps = parse(text)
        if steps is None:
            found["not a list of steps"] += 1
            continue
        numbers: Any = prompt.data["numbers"]
        target: Any = prompt.data["target"]
        right = all(compute(step.left, step.operator, step.right) == step.result for step in steps)
        exact, other = right and steps[-1].result == target, by_algebra(steps, target)
        found[f"arithmetic: exact {OPINIONS[exact]}, math-verify {OPINIONS[other]}"] += 1
        if other and num_correct(steps, numbers) < len(steps):
            found["accepted by math-verify, with numbers that are not given"] += 1
    return dict(found)


def main() -> None:
    """Measure, print and save."""
    torch.set_num_threads(NUM_THREADS)
    countdown, gym, code = (
        Countdown(),
        ReasoningGymTask(settings=SUMS, num_prompts=512),
        CodeTask(path="cache:data/humaneval/test.jsonl", heldout_every=164),
    )
    numbers = JsonlTask(path=GSM8K)
    expressions = JsonlTask(path=CHAMP, question_field="problem", bad_rows="drop")
    responses = sampled(countdown.suites()["heldout"])
    responses += [(prompt, expert(countdown)(prompt)) for prompt in countdown.train_prompts()]
    cases: dict[str, tuple[Task, list[Pair]]] = {
        "Countdown, exact": (countdown, responses),
        "GSM8K's numbers, match=math": (numbers, with_neighbours(numbers.train_prompts(), gold)),
        "GSM8K's numbers, match=numeric": (
            JsonlTask(path=GSM8K, match="numeric"),
            with_neighbours(numbers.train_prompts(), gold),
        ),
        "CHAMP's answers rewritten, match=math by math-verify": (
            expressions,
            with_neighbours(list(filter(is_expression, expressions.train_prompts())), rewritten),
        ),
        "reasoning-gym's own scorer": (gym, with_neighbours(gym.train_prompts(), expert(gym))),
        "HumanEval's own solutions, in the sandbox": (code, with_neighbours(code.train_prompts(), expert(code))),
    }
    table: dict[str, Any] = {}
    for name, (task, pairs) in cases.items():
        table[name] = judged(task, pairs)
        print(f"{name}: {table[name]['per_s']:.0f} answers a second, {table[name]['correct']:.1%} correct")
    both = agreement(responses)
    print(*(f"{count:5d}  {what}" for what, count in both.items()), sep="\n")
    save("verifiers", {"throughput": table, "countdown": both})


if __name__ == "__main__":
    main()
