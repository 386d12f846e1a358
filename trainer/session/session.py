"""Everything a run holds while it lives: policy, optimiser, engine, sampler; how it starts and how it resumes.

It must not decide what happens in a step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from trainer.batch.types import Prompt, Rollout
from trainer.contract.seeds import derive_seed
from trainer.contract.settings import ConfigError, require
from trainer.engine.base import Engine, EnginePool
from trainer.objective.base import Context, State
from trainer.objective.objective import REFERENCE_STEP, ROLLOUT_TEMPERATURE
from trainer.objective.rollouts.base import RolloutPlan
from trainer.policy import adapter, prompt_head
from trainer.policy.model import load_tokenizer, model_path
from trainer.policy.policy import Policy
from trainer.policy.precision import precision
from trainer.rollout.sampler import PromptStream, Sampler
from trainer.runtime.ranks import Ranks
from trainer.runtime.sharding import shared_out, whole
from trainer.session import reference
from trainer.session.devices import engine_setup, make_accelerator
from trainer.session.policies import open_policies
from trainer.session.reference import Reference
from trainer.session.services import SessionServices, completion_entropies
from trainer.setup.build import Run
from trainer.setup.examine import fitting
from trainer.storage import checkpoint
from trainer.storage.export import description
from trainer.storage.record import RunFolder
from trainer.update.gradient import Learner
from trainer.update.loss_scale import LossScale
from trainer.update.master_weights import MasterWeights

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Session:
    """A run in progress. The fields that change are the last three; a checkpoint is made of them and the weights."""

    run: Run
    folder: RunFolder
    ranks: Ranks
    learner: Learner
    reference: Reference
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    sampler: Sampler
    described: dict[str, bytes]
    """Files that make a folder of weights a model: its configuration and tokenizer."""
    step: int = 0
    """Steps done."""
    version: int = 0
    """Optimiser updates done."""
    state: State
    """What the objective's members remember, and the solved counts of the first evaluation."""

    @property
    def policy(self) -> Policy:
        """The policy that is trained."""
        return self.learner.policy

    def context(self) -> Context:
        """Where the run is."""
        return Context(
            seed=self.run.seed,
            step=self.step,
            num_steps=self.run.steps,
            epoch=self._epoch(self.step),
            num_epochs=max(1, self._epoch(self.run.steps)),
        )

    def _epoch(self, steps: int) -> int:
        """Whole passes over the training prompts that so many steps train on.

        Not those that were drawn: how many prompts dynamic sampling will throw away is known only at the end, and a
        schedule needs the present and the end on one scale.
        """
        return steps * self.run.rollout.prompts_per_step // len(self.sampler.stream.prompts)

    def services(self, rollouts: Sequence[Rollout] = ()) -> SessionServices:
        """What components may ask for, with the rollouts of this step."""
        return SessionServices(
            sampler=self.sampler,
            learner=self.learner,
            rollouts=rollouts,
            temperature=self.policy.temperature,
            max_tokens=self.run.rollout.max_tokens,
            reference=self.reference.policy,
        )

    def set_temperature(self, temperature: float) -> None:
        """Divide logits by what the sampler divides them by."""
        if temperature != self.policy.temperature:
            self.learner = replace(self.learner, policy=replace(self.policy, temperature=temperature))
            self.reference.set_temperature(temperature)

    def begin_step(self) -> RolloutPlan:
        """How the step's rollouts are collected; temperature, reference and optimiser are made to fit, which a
        controller may have asked for."""
        objective, plan, context = self.run.objective, self.run.rollout, self.context()
        temperature = objective.driven(ROLLOUT_TEMPERATURE, self.state, context)
        if temperature is not None:
            plan = replace(plan, temperature=temperature, temperature_end=None)
        self.set_temperature(plan.temperature_at(self.step, self.run.steps))
        renewed = int(objective.driven(REFERENCE_STEP, self.state, context) or 0)
        if renewed > self.reference.step:
            self.reference.renew(self.policy, renewed)
            self.learner.forget_moments()
        self.sampler.begin(self.step)
        return plan

    def setup(self) -> None:
        """Let the objective's members do what they do once, and keep their prompts out of the rollouts."""
        objective = self.run.objective
        if self.step == 0:
            self.sampler.begin(0)
            self.state = self.state | objective.setup(self.state, replace(self.context(), services=self.services()))
        excluded = objective.excluded_prompts(self.state)
        prompts = [prompt for prompt in self.sampler.stream.prompts if prompt.id not in excluded]
        if not prompts:
            raise ConfigError(
                "no training prompt is left: a member of the objective keeps all of them for itself "
                "(the base model solves them all); use harder prompts or a stricter threshold"
            )
        self.sampler.stream.prompts = prompts

    def generate(
        self, prompts: list[Prompt], *, samples: int, temperature: float, top_p: float, max_tokens: int, seed: int
    ) -> list[Rollout]:
        """Unverified rollouts for the evaluation, on a RNG stream of its own."""
        seeds = [derive_seed(seed, prompt.id) for prompt in prompts]
        return self.sampler.complete(
            prompts, samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seeds=seeds
        )

    def sync(self) -> None:
        """Give the engine the trainer's weights.

        Those of a state dict, which names a tied output layer a second time: vLLM's reload leaves out what is not
        named. One tensor is whole at a time.
        """
        weights = ((name, whole(tensor)) for name, tensor in adapter.merged(self.policy.model))
        self.engine.load_weights(weights, self.version)

    def save(self) -> None:
        """Write a checkpoint: the main rank all of it or, of sharded weights, every rank a part."""
        model, main = self.policy.model, self.ranks.is_main
        with self.folder.timing("checkpoint"):
            parts = (self.learner.state(), self.reference.state(), adapter.state(model), prompt_head.state(model))
            moments = {name: value for part in parts for name, value in part.items()}
            weights, writers = dict(adapter.merged(model)), Ranks()
            if self.run.hardware.sharding != "none":
                writers = self.ranks
                weights, moments = shared_out((weights, moments), writers.rank, writers.world)
            elif not main:
                return
            if main:
                self.folder.flush()  # the record must not be shorter than the checkpoint, even after a power failure
            checkpoint.save(
                self.folder.checkpoints,
                self.step,
                model_state={name: tensor for name, tensor in weights.items() if tensor is not None},
                tied=getattr(model, "all_tied_weights_keys", ()),
                described=self.described | adapter.adapter_files(model, str(model_path(self.run.model))),
                optimizer_state=moments,
                state={"version": self.version, "position": self.sampler.stream.position, "objective": self.state},
                signature=self.run.one_rank_signature,
                keep=self.run.checkpoint.keep,
                record=self.folder.extent() if main else None,
                ranks=writers,
            )

    def resume(self) -> None:
        """Go on from the newest good checkpoint that the record reaches; forget what was recorded after it."""
        loaded = checkpoint.load_latest(self.folder.checkpoints, self.run.one_rank_signature, self.folder.lacks)
        if loaded is not None:
            adapter.resume(self.policy.model, loaded.model_state, loaded.optimizer_state)
            prompt_head.resume(self.policy.model, loaded.optimizer_state)
            self.reference.load(loaded.optimizer_state)
            names = (reference.NAME, adapter.NAME, prompt_head.NAME)
            self.learner.load({key: value for key, value in loaded.optimizer_state.items() if key not in names})
            self.step = loaded.step
            self.version = loaded.state["version"]
            self.sampler.stream.position = loaded.state["position"]
            self.state = loaded.state["objective"]
        if self.ranks.is_main and self.folder.truncate(self.step - 1) != self.step - 1:
            raise ConfigError(
                f"{self.folder.metrics} does not reach step {self.step}, at which the checkpoint is: restore the file, "
                f"or move {self.folder.checkpoints} away to train from the beginning"
            )
        self.sync()


def open_session(run: Run, folder: RunFolder, engines: EnginePool) -> Session:
    """Load everything a run needs and go back to its last checkpoint."""
    accelerator = make_accelerator(run)
    ranks = Ranks(rank=accelerator.process_index, world=accelerator.num_processes)
    started = f"{ranks.world} rank(s) were started; several take `accelerate launch`, which the queue does by itself"
    require(ranks.world == run.hardware.processes, "hardware.processes", run.hardware.processes, started)
    torch.set_num_threads(run.hardware.num_threads or 1)
    torch.manual_seed(derive_seed(run.seed, "torch"))
    tokenizer, (policy, frozen) = load_tokenizer(run.model), open_policies(run, accelerator.device)
    types = precision(run.model, run.hardware, run.engine.dtype)
    masters = MasterWeights(policy.model.parameters())
    optimizer = torch.optim.AdamW(
        masters.parameters(),
        lr=run.optim.lr,
        betas=run.optim.betas,
        eps=run.optim.eps,
        weight_decay=run.optim.weight_decay,
        fused=True,
    )
    setup = engine_setup(run, tokenizer, accelerator.device)
    run, _ = fitting(run)
    folder.begin_phase("starting engine")
    engine = engines.get(run.engine, setup)
    learner = Learner(
        policy=policy,
        optimizer=accelerator.prepare_optimizer(optimizer),
        accelerator=accelerator,
        ranks=ranks,
        optim=run.optim,
        dtype=types.coarsest,
        gap_bounds=(run.engine.gap_max, run.engine.gap_mean),
        masters=masters,
        loss_scale=LossScale(enabled=types.scales_loss),
    )
    session = Session(
        run=run,
        folder=folder,
        ranks=ranks,
        learner=learner,
        reference=Reference(frozen),
        tokenizer=tokenizer,
        engine=engine,
        sampler=Sampler(
            engine=engine,
            tokenizer=tokenizer,
            task=run.task,
            stream=PromptStream(run.task.train_prompts(), run.seed),
            ranks=ranks,
            seed=run.seed,
            ends=frozenset(setup.end_tokens),
            measure_entropies=partial(completion_entropies, learner, tokenizer),
        ),
        described=description(model_path(run.model), run.model.dtype),
        state=run.objective.initial_state(),
    )
    session.resume()
    return session
