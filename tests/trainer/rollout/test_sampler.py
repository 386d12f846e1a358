"""Order of the prompts, RNG streams, shares of the ranks: with an engine that answers with what it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from testbench import Meeting, ThreadRanks, on_ranks

from trainer.batch.types import Prompt, Rollout, Verdict
from trainer.engine.base import Completion
from trainer.objective.rollouts.standard import Standard
from trainer.rollout.sampler import PromptStream, Sampler
from trainer.runtime.ranks import Ranks

PROMPTS = [Prompt(id=f"p{n}", text=chr(ord("a") + n)) for n in range(5)]


class Characters:
    """One token per character."""

    bos_token = eos_token = eos_token_id = chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(number) for number in ids if number or not skip_special_tokens)


@dataclass
class Echo:
    """Sample i of a prompt is the letters of (seed mod 26, i), then the end token; remembers its calls."""

    weight_version: int = 7
    calls: list[dict[str, object]] = field(default_factory=list)

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        *,
        samples: int,
        temperature: float,
        max_tokens: int,
        seeds: Sequence[int],
        top_p: float = 1.0,
    ) -> list[list[Completion]]:
        self.calls.append(
            {"prompts": list(prompts), "seeds": list(seeds), "temperature": temperature, "max_tokens": max_tokens}
        )
        return [
            [
                Completion(
                    token_ids=(97 + seed % 26, 97 + sample, 0), logprobs=(-1.0, -2.0, -3.0), finish_reason="stop"
                )
                for sample in range(samples)
            ]
            for seed in seeds
        ]


class Echoes:
    """Right when the response starts with the prompt."""

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        return Verdict(reward=float(text.startswith(prompt.text)), answer=text)


def sampler(seed: int = 0, ranks: Ranks | None = None, engine: Echo | None = None) -> Sampler:
    stream = PromptStream(PROMPTS, seed)
    ranks = ranks or Ranks()
    made = Sampler(
        measure_entropies=lambda rollouts, temperature: [(0.0,) * len(r.completion_ids) for r in rollouts],
        engine=engine or Echo(),
        tokenizer=Characters(),
        task=Echoes(),
        stream=stream,
        ranks=ranks,
        seed=seed,
    )  # type: ignore[arg-type]
    made.begin(0)
    return made


def seeds_of(sampler: Sampler) -> list[int]:
    assert isinstance(sampler.engine, Echo)
    return [seed for call in sampler.engine.calls for seed in call["seeds"]]  # type: ignore[attr-defined]


def sample(sampler: Sampler, prompts: Sequence[Prompt] = PROMPTS, **options: object) -> list[Rollout]:
    return sampler.sample(prompts, **({"samples": 2, "temperature": 1.0, "max_tokens": 8} | options))  # type: ignore[arg-type]


def test_every_epoch_is_a_permutation_and_epochs_differ() -> None:
    stream = PromptStream(PROMPTS, seed=0)
    epochs = [[prompt.id for prompt in stream.take(5)] for _ in range(6)]
    assert all(sorted(epoch) == sorted(prompt.id for prompt in PROMPTS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_same_seed_same_order_and_different_seed_different_order() -> None:
    def order(seed: int) -> list[str]:
        return [prompt.id for prompt in PromptStream(PROMPTS, seed).take(20)]

    assert order(3) == order(3)
    assert len({tuple(order(seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("sizes", [[20], [1] * 20, [3, 4, 13], [7, 7, 6]])
def test_order_does_not_depend_on_portions(sizes: list[int]) -> None:
    stream = PromptStream(PROMPTS, seed=1)
    taken = [prompt.id for size in sizes for prompt in stream.take(size)]
    assert taken == [prompt.id for prompt in PromptStream(PROMPTS, seed=1).take(20)]
    assert (stream.position, stream.epoch) == (20, 4)


def test_position_is_all_that_has_to_be_kept() -> None:
    stream = PromptStream(PROMPTS, seed=1)
    stream.take(7)
    resumed = PromptStream(PROMPTS, seed=1, position=stream.position)
    assert [prompt.id for prompt in resumed.take(6)] == [prompt.id for prompt in stream.take(6)]


def test_groups_are_numbered_by_prompt_and_members_stand_together() -> None:
    rollouts = sample(sampler(), samples=3)
    assert [rollout.group for rollout in rollouts] == [group for group in range(5) for _ in range(3)]
    assert [rollout.prompt.id for rollout in rollouts] == [f"p{group}" for group in range(5) for _ in range(3)]
    assert {rollout.weight_version for rollout in rollouts} == {7}
    assert all(rollout.verdict is not None for rollout in rollouts)
    assert all(rollout.prompt_ids == (ord(rollout.prompt.text),) for rollout in rollouts)


def test_seeds_differ_between_prompts_calls_steps_purposes_and_runs() -> None:
    made = sampler()
    for step in (0, 1):
        made.begin(step)
        sample(made)
        sample(made)
        sample(made, purpose="branch")
    other = sampler(seed=1)
    sample(other)
    seeds = seeds_of(made) + seeds_of(other)
    assert len(seeds) == 35
    assert max(Counter(seeds).values()) == 1


def test_a_step_repeats_its_own_noise() -> None:
    first, again = sampler(), sampler()
    first.begin(4)
    sample(first)
    again.begin(2)
    sample(again)
    again.begin(4)
    sample(again)
    assert seeds_of(again)[5:] == seeds_of(first)


def test_settings_reach_the_engine_and_text_and_reward_come_back() -> None:
    engine = Echo()
    rollout = sample(sampler(engine=engine), PROMPTS[:1], samples=1, temperature=0.7, max_tokens=9)[0]
    assert engine.calls[0]["temperature"] == 0.7
    assert engine.calls[0]["max_tokens"] == 9
    letter = chr(97 + seeds_of(sampler(engine=engine))[0] % 26)
    assert rollout.text == f"{letter}a"
    assert rollout.reward == float(letter == "a")
    assert (rollout.completion_ids, rollout.sampler_logprobs) == ((ord(letter), 97, 0), (-1.0, -2.0, -3.0))


def test_given_tokens_are_context() -> None:
    engine = Echo()
    rollouts = sample(sampler(engine=engine), PROMPTS[:2], samples=1, prefixes=[(120, 121), ()])
    assert engine.calls[0]["prompts"] == [(97, 120, 121), (98,)]
    first, second = rollouts
    assert (first.num_context, second.num_context) == (2, 0)
    assert first.prompt_ids == (97,)
    assert first.completion_ids[:2] == (120, 121)
    assert first.sampler_logprobs == (0.0, 0.0, -1.0, -2.0, -3.0)
    assert first.text.startswith("xy")


@pytest.mark.parametrize(
    ("limit", "tokens", "reason"), [(5, (120, 121, -1, 97, 0), "stop"), (4, (120, 121, -1, 97), "length")]
)
def test_given_tokens_count_towards_the_limit(limit: int, tokens: tuple[int, ...], reason: str) -> None:
    engine = Echo()
    with_prefix, without = sample(
        sampler(engine=engine), PROMPTS[:2], samples=1, max_tokens=limit, prefixes=[(120, 121), (120,)]
    )
    # The engine samples as much as the shortest prefix leaves room for; the rest is cut off, as if never sampled.
    assert engine.calls[0]["max_tokens"] == limit - 1
    letter = with_prefix.completion_ids[2]
    assert with_prefix.completion_ids == tuple(letter if token == -1 else token for token in tokens)
    assert with_prefix.sampler_logprobs == (0.0, 0.0, -1.0, -2.0, -3.0)[: len(tokens)]
    assert (with_prefix.finish_reason, without.finish_reason) == (reason, "stop")
    assert len(without.completion_ids) == 4


def test_choices_between_samples_have_noise_of_their_own() -> None:
    made, again = sampler(), sampler()

    def drawn(sampler: Sampler, purpose: str = "a") -> float:
        return float(torch.rand((), generator=sampler.generator(purpose)))

    first = drawn(made)
    assert drawn(again) == first == drawn(made)
    sample(made)
    after_a_call = drawn(made)
    made.begin(1)
    assert len({first, after_a_call, drawn(made), drawn(again, "b"), drawn(sampler(seed=1))}) == 5


def test_rewards_of_all_that_was_sampled_for_the_rollouts_are_counted_by_step() -> None:
    made = sampler()
    rollouts = sample(made) + sample(made, PROMPTS[:1])
    sample(made, purpose="probe")
    assert made.generated == [rollout.reward for rollout in rollouts]
    made.begin(1)
    assert made.generated == []


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_the_prompts_and_all_get_everything(world: int) -> None:
    alone = sample(sampler())
    engines = [Echo() for _ in range(world)]

    def work(ranks: Ranks) -> list[Rollout]:
        return sample(sampler(ranks=ranks, engine=engines[ranks.rank]))

    results = on_ranks(world, work)
    assert all(result == alone for result in results)
    shares = [len(engine.calls[0]["prompts"]) for engine in engines]  # type: ignore[arg-type]
    assert sum(shares) == 5
    assert max(shares) - min(shares) <= 1


def test_a_standard_step_is_prompts_times_group_size() -> None:
    made = sampler()
    plan = Standard(prompts_per_step=3, group_size=4, temperature=0.5, max_tokens=6)
    rollouts = plan.collect(made, step=0, num_steps=1)
    assert [rollout.group for rollout in rollouts] == [0] * 4 + [1] * 4 + [2] * 4
    assert made.stream.position == 3
    second = plan.collect(made, step=0, num_steps=1)
    assert {r.completion_ids for r in second} != {r.completion_ids for r in rollouts}


def test_thread_ranks_exchange_in_rank_order() -> None:
    meeting = Meeting(3)
    results = on_ranks(3, lambda ranks: ThreadRanks(rank=ranks.rank, world=3, meeting=meeting).gather(ranks.rank * 10))
    assert results == [[0, 10, 20]] * 3
