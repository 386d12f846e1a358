"""Sampling with vLLM's model, key-value cache and kernels, but without its scheduler: all responses grow together, by
one token a step, and whatever is known of them lies in tensors with one row for each.

Chosen by ``engine/vllm.py`` on a CPU, for the version of vLLM it was written for. vLLM's scheduler serves requests that
come and go, one by one and in Python, which takes longer than a small model does. A rollout batch is known as a whole,
and its prompts go through the model once for all their samples. The responses are those of ``LLM.generate``
(``tests/trainer/engine/test_vllm_lockstep.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.forward_context import set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import FullAttentionSpec

from trainer.engine.base import Completion, entropy, scaled


def serves(runner: Any) -> bool:
    """Whether a model runner of vLLM holds a plain decoder: text alone, and every layer looks at the whole past."""
    groups = runner.kv_cache_config.kv_cache_groups
    plain = len(groups) == len(runner.attn_groups[0]) == 1 and type(groups[0].kv_cache_spec) is FullAttentionSpec
    return plain and not (runner.supports_mm_inputs or runner.uses_mrope or runner.model_config.is_encoder_decoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """``R`` responses to ``P`` prompts, as far as they have grown; those to one prompt side by side."""

    prompts: Sequence[tuple[int, ...]]
    samples: int
    temperature: float
    top_p: float
    start: Tensor
    """[R], tokens of the prompt."""
    limit: Tensor
    """[R], most tokens to sample."""
    noise: Tensor
    """[R, T], the random number that each token is drawn with."""
    length: Tensor
    """[R], tokens sampled."""
    tokens: Tensor
    """[R, T], those sampled."""
    logprobs: Tensor
    """[R, T], nats."""
    entropies: Tensor
    """[R, T], nats."""

    @property
    def rows(self) -> int:
        """``R``."""
        return len(self.length)

    def append(self, rows: Tensor, logits: Tensor) -> None:
        """Draw the next token of each of ``rows`` (indices [n]) as vLLM's sampler does, from logits [n, V]."""
        at = self.length[rows]
        scaled_logits = scaled(logits, self.temperature, self.top_p)
        greedy = self.temperature == 0
        sampled = (
            scaled_logits.argmax(dim=-1)
            if greedy
            else torch.ops._C.fused_gumbel_argmax(scaled_logits, self.noise[rows, at])
        )
        logprobs = scaled_logits.log_softmax(dim=-1)
        self.tokens[rows, at] = sampled
        self.logprobs[rows, at] = logprobs.gather(1, sampled[:, None]).squeeze(1)
        self.entropies[rows, at] = entropy(logprobs).squeeze(1)
        self.length[rows] += 1

    def newest(self, rows: Tensor) -> Tensor:
        """The token last drawn for each of ``rows`` (indices [n]): token ids [n]."""
        return self.tokens[rows, self.length[rows] - 1]

    def completions(self, ends: Sequence[int]) -> list[list[Completion]]:
        """All responses, by prompt."""
        columns = zip(
            *(part.tolist() for part in (self.length, self.tokens, self.logprobs, self.entropies)), strict=True
        )
        flat = [
            Completion(
                token_ids=tuple(tokens[:length]),
                logprobs=tuple(logprobs[:length]),
                entropies=tuple(entropies[:length]),
                finish_reason="stop" if tokens[length - 1] in ends else "length",
            )
            for length, tokens, logprobs, entropies in columns
        ]
        return [flat[first : first + self.samples] for first in range(0, self.rows, self.samples)]


def _batch(
    prompts: Sequence[tuple[int, ...]],
    samples: int,
    temperature: float,
    max_tokens: int,
    seeds: Sequence[int],
    top_p: float,
    max_length: int,
) -> _Batch:
    """Nothing sampled yet; sample ``i`` of a prompt draws from a generator seeded with the prompt's seed + ``i``, as in
    vLLM."""
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < max_length:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens; the engine was started for 1 to {max_length - 1}"
            )
    size = (len(prompts) * samples, max_tokens)
    start = torch.tensor([len(prompt) for prompt in prompts]).repeat_interleave(samples)
    generators = (torch.Generator().manual_seed(seed + sample) for seed in seeds for sample in range(samples))
    return _Batch(
        prompts=prompts,
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        start=start,
        limit=(max_length - start).clamp(max=max_tokens),
        noise=torch.stack([torch.randint(0, 2**31, (max_tokens,), generator=generator) for generator in generators]),
        length=torch.zeros(size[0], dtype=torch.long),
        tokens=torch.zeros(size, dtype=torch.long),
        logprobs=torch.zeros(size),
        entropies=torch.zeros(size),
    )


def _positions(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Of the tokens of sequences laid end to end: which sequence each belongs to, and where in it."""
    sequence = torch.arange(len(lengths)).repeat_interleave(lengths)
    return sequence, torch.arange(len(sequence)) - (lengths.cumsum(0) - lengths)[sequence]


class Lockstep:
    """Samples whole batches on one model runner of vLLM, whose scheduler must be idle."""

    def __init__(self, runner: Any, ends: Sequence[int]) -> None:
        group = runner.kv_cache_config.kv_cache_groups[0]
        self._runner = runner
        self._layers = group.layer_names
        self._metadata = runner.attn_groups[0][0].get_metadata_builder()
        self._block: int = group.kv_cache_spec.block_size
        self._blocks = runner.kv_cache_config.num_blocks - 1
        self._ends = torch.tensor(ends)
        self._source: Tensor | None = None
        for name in self._layers:
            self._multiply(runner.compilation_config.static_forward_context[name].impl)

    def _multiply(self, attention: Any) -> None:
        """Let a layer write the keys and values of a prompt into the cache of each of its samples."""
        write = attention.do_kv_cache_update

        def multiplied(layer: Any, key: Tensor, value: Tensor, cache: Tensor, slots: Tensor) -> None:
            if self._source is not None:
                key, value = key[self._source], value[self._source]
            write(layer, key, value, cache, slots)

        attention.do_kv_cache_update = multiplied

    @torch.inference_mode()
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
        """See :meth:`trainer.engine.base.Engine.generate`."""
        if not prompts:
            return []
        batch = _batch(prompts, samples, temperature, max_tokens, seeds, top_p, self._runner.max_model_len)
        table = self._block_tables(max(map(len, prompts)) + max_tokens)
        free = list(range(len(table)))
        slot = torch.zeros(batch.rows, dtype=torch.long)
        waiting, running = 0, torch.empty(0, dtype=torch.long)
        while waiting < batch.rows or len(running):
            if admitted := self._admit(batch, waiting, len(free), idle=not len(running)):
                new = torch.arange(waiting, waiting + admitted)
                slot[new] = torch.tensor([free.pop() for _ in new])
                batch.append(new, self._prefill(batch, new, table[slot[new]]))
                running, waiting = torch.cat([running, new]), waiting + admitted
            else:
                batch.append(running, self._decode(batch, running, table[slot[running]]))
            ended = torch.isin(batch.newest(running), self._ends) | (batch.length[running] == batch.limit[running])
            if ended.any():
                free += slot[running[ended]].tolist()
                running = running[~ended]
        return batch.completions(self._ends.tolist())

    def _block_tables(self, longest: int) -> Tensor:
        """Blocks of the cache [n, b] for each of the ``n`` responses that can grow at a time. Block 0 is vLLM's."""
        blocks = -(-min(longest, self._runner.max_model_len) // self._block)
        count = min(self._runner.max_num_reqs, self._blocks // blocks)
        return 1 + torch.arange(count * blocks, dtype=torch.int32).view(count, blocks)

    def _admit(self, batch: _Batch, first: int, room: int, *, idle: bool) -> int:
        """How many waiting rows start now: all samples of a prompt together, and prompts that one pass can take."""
        rows = min(room, batch.rows - first)
        complete = (first + rows) // batch.samples * batch.samples - first
        if complete > 0 or not idle:
            rows = max(complete, 0)
        length, prompt = 0, first // batch.samples
        while prompt * batch.samples < first + rows:
            length += len(batch.prompts[prompt])
            if length > self._runner.max_num_tokens:
                return prompt * batch.samples - first
            prompt += 1
        return rows

    def _prefill(self, batch: _Batch, rows: Tensor, blocks: Tensor) -> Tensor:
        """Logits [n, V] after the prompts of ``rows``; each prompt is read once."""
        prompt, group, samples = torch.unique_consecutive(
            rows // batch.samples, return_inverse=True, return_counts=True
        )
        texts = [batch.prompts[number] for number in prompt.tolist()]
        lengths = torch.tensor([len(text) for text in texts])
        cumulative = lengths.cumsum(0)
        sequence, position = _positions(lengths[group])
        self._source = (cumulative - lengths)[group][sequence] + position
        try:
            hidden = self._forward(
                torch.tensor([token for text in texts for token in text]),
                _positions(lengths)[1],
                query_lengths=lengths,
                lengths=lengths,
                blocks=blocks[samples.cumsum(0) - samples],
                slots=self._slots(blocks[sequence], position),
            )
        finally:
            self._source = None
        logits: Tensor = self._runner.model.compute_logits(hidden[cumulative - 1])
        return logits[group]

    def _decode(self, batch: _Batch, rows: Tensor, blocks: Tensor) -> Tensor:
        """Logits [n, V] after the newest token of each of ``rows``."""
        position = batch.start[rows] + batch.length[rows] - 1
        hidden = self._forward(
            batch.newest(rows),
            position,
            query_lengths=torch.ones_like(rows),
            lengths=position + 1,
            blocks=blocks,
            slots=self._slots(blocks, position),
        )
        logits: Tensor = self._runner.model.compute_logits(hidden)
        return logits

    def _slots(self, blocks: Tensor, position: Tensor) -> Tensor:
        """Where in the cache tokens at ``position`` [n] of sequences with ``blocks`` [n, b] go."""
        block = blocks.gather(1, (position // self._block)[:, None]).squeeze(1).long()
        return block * self._block + position % self._block

    def _forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        query_lengths: Tensor,
        lengths: Tensor,
        blocks: Tensor,
        slots: Tensor,
    ) -> Tensor:
        """Hidden states [n, D] of ``n`` tokens: the last ``query_lengths`` of sequences of ``lengths``."""
        starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        starts[1:] = query_lengths.cumsum(0)
        metadata = self._metadata.build(
            0,
            CommonAttentionMetadata(
                query_start_loc=starts,
                query_start_loc_cpu=starts,
                seq_lens=lengths.int(),
                num_reqs=len(lengths),
                num_actual_tokens=len(tokens),
                max_query_len=int(query_lengths.max()),
                max_seq_len=int(lengths.max()),
                block_table_tensor=blocks,
                slot_mapping=slots,
                positions=positions,
            ),
        )
        with set_forward_context(
            dict.fromkeys(self._layers, metadata),
            self._runner.vllm_config,
            num_tokens=len(tokens),
            slot_mapping=dict.fromkeys(self._layers, slots),
        ):
            # int32, because a compiled model checks no types and was made for those of vLLM.
            hidden: Tensor = self._runner.model(input_ids=tokens.int(), positions=positions)
        return hidden
