"""Sampling with transformers alone: slow, plain, the reference vLLM is checked against, and the fallback without vLLM.

Started by ``loop.py`` through the ``engine`` group. It keeps its own copy of the weights, as vLLM does, so that a
forgotten weight sync shows here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from trainer.contract.seeds import derive_seed
from trainer.contract.settings import Range, require
from trainer.engine.base import Completion, Engine, EngineSetup, entropy, preserve_torch_state, require_dtype, scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersEngine:
    """Settings of the reference engine."""

    batch_size: int = 256
    """Sequences sampled at once."""
    dtype: str | None = None
    """Type of weights and matmuls: float32, bfloat16 or float16. null: what the trainer computes with."""
    gap_max: Annotated[float, Range(1e-12, 1e3)] | None = None
    """Largest log-prob gap of sampler and trainer that a run goes on with, nats. null: by type, 2e-3 in float32."""
    gap_mean: Annotated[float, Range(1e-12, 1e3)] | None = None
    """Largest mean of it, nats. null: by type, 2e-4 in float32."""

    def __post_init__(self) -> None:
        require_dtype(self.dtype)
        require(
            self.batch_size >= 1,
            "engine.batch_size",
            self.batch_size,
            "at least one sequence has to be sampled at a time",
        )

    def require_available(self) -> None:
        """It needs nothing that the trainer does not."""

    def start(self, setup: EngineSetup) -> Engine:
        """Load a second copy of the model for sampling."""
        with preserve_torch_state():
            model = AutoModelForCausalLM.from_pretrained(
                setup.model_path,
                trust_remote_code=setup.trust_remote_code,
                dtype=getattr(torch, setup.dtype),
            )
        return _Transformers(model.eval().requires_grad_(False).to(setup.device), setup, self.batch_size)


def _sampled(log_p: Tensor, noise: Tensor) -> Tensor:
    """The token [n, 1] that uniform ``noise`` [n, 1] falls on, of log-probs [n, V]."""
    cdf = log_p.double().exp().cumsum(dim=-1)
    # Scaled by the total, which is 1 only up to rounding, so that no draw can fall beyond the last token.
    return torch.searchsorted(cdf, noise * cdf[:, -1:]).clamp(max=cdf.shape[1] - 1)


class _Transformers:
    """The running engine (see :class:`trainer.engine.base.Engine`)."""

    def __init__(self, model: Any, setup: EngineSetup, batch_size: int) -> None:
        self._model = model
        self._setup = setup
        self._batch_size = batch_size
        self.weight_version = -1

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
        # Rows of one prompt length go together, so that no padding is ever needed.
        rows = [(prompt, number, sample) for number, prompt in enumerate(prompts) for sample in range(samples)]
        rows.sort(key=lambda row: len(row[0]))
        results: dict[tuple[int, int], Completion] = {}
        start = 0
        while start < len(rows):
            width = len(rows[start][0])
            part = [row for row in rows[start : start + self._batch_size] if len(row[0]) == width]
            generators = [
                torch.Generator().manual_seed(derive_seed(seeds[number], sample)) for _, number, sample in part
            ]
            completions = self._sample([prompt for prompt, _, _ in part], generators, temperature, max_tokens, top_p)
            results |= {
                (number, sample): completion for (_, number, sample), completion in zip(part, completions, strict=True)
            }
            start += len(part)
        return [[results[number, sample] for sample in range(samples)] for number in range(len(prompts))]

    @torch.no_grad()
    def _sample(
        self,
        prompts: list[tuple[int, ...]],
        generators: list[torch.Generator],
        temperature: float,
        max_tokens: int,
        top_p: float,
    ) -> list[Completion]:
        """Inverse-CDF sampling with one generator per row: a row never depends on the rows beside it."""
        tokens = torch.tensor(prompts, device=self._setup.device)
        sampled: list[list[int]] = [[] for _ in prompts]
        logprobs: list[list[float]] = [[] for _ in prompts]
        entropies: list[list[float]] = [[] for _ in prompts]
        active = set(range(len(prompts)))
        cache = None
        noise = torch.stack([torch.rand(max_tokens, generator=stream, dtype=torch.float64) for stream in generators])
        noise = noise.to(tokens.device)
        for step in range(max_tokens):
            output = self._model(input_ids=tokens, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            log_p = scaled(output.logits[:, -1], temperature, top_p).log_softmax(dim=-1)
            chosen = log_p.argmax(dim=-1, keepdim=True) if temperature == 0 else _sampled(log_p, noise[:, step, None])
            picked = log_p.gather(1, chosen).squeeze(1).tolist()
            spread = entropy(log_p).squeeze(1).tolist()
            for row, token in enumerate(chosen.squeeze(1).tolist()):
                if row in active:
                    sampled[row].append(token)
                    logprobs[row].append(picked[row])
                    entropies[row].append(spread[row])
            active = {row for row in active if sampled[row][-1] not in self._setup.end_tokens}
            if not active:
                break
            tokens = chosen
        return [
            Completion(
                token_ids=tuple(sampled[row]),
                logprobs=tuple(logprobs[row]),
                entropies=tuple(entropies[row]),
                finish_reason="length" if row in active else "stop",
            )
            for row in range(len(prompts))
        ]

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        own = self._model.state_dict()
        missing = set(own)
        for name, tensor in weights:  # one at a time: together they might be a second model
            own[name].copy_(tensor)
            missing.discard(name)
        if missing:
            raise RuntimeError(f"no weights came for {len(missing)} tensors of the engine, such as {min(missing)}")
        self.weight_version = version

    def close(self) -> None:
        self._model = None
