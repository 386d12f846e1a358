"""A scheduler for vLLM that takes the short way through steps in which every request decodes one token.

Chosen by ``engine/vllm.py`` on a CPU, for the version of vLLM it was written for. A small model spends a third of its
sampling time on choosing, request by request and step by step, what is the same every time, and on handing over one
token at a time to a caller who waits for whole responses. What is sampled is the same to the bit
(``tests/engine/test_vllm_scheduler.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import LogprobsLists, LogprobsTensors, ModelRunnerOutput
from vllm.v1.sample.sampler import Sampler

from trainer.engine.base import entropy

AHEAD = 32
"""Random numbers drawn at one time."""


@dataclass(slots=True)
class Sampled:
    """A response as far as it has come."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)

    def note(self, tokens: list[int], found: LogprobsLists) -> None:
        """Add what was found out about ``tokens``."""
        self.tokens += tokens
        self.logprobs += found.logprobs[:, 0].tolist()
        self.entropies += found.logprobs[:, -1].tolist()


class _Seeds:
    """The random number that each row's next token is drawn with: those that vLLM draws one at a time, ahead."""

    def __init__(self) -> None:
        self._ahead: WeakKeyDictionary[torch.Generator, Iterator[int]] = WeakKeyDictionary()

    def next_of(self, generator: torch.Generator) -> int:
        """The next number of a generator, which is left some numbers ahead."""
        number = next(self._ahead.get(generator, iter(())), None)
        if number is None:
            ahead = self._ahead[generator] = iter(torch.randint(0, 2**31, (AHEAD,), generator=generator).tolist())
            number = next(ahead)
        return number


def prepare_sampler(worker: Any) -> None:
    """Let the sampler of a worker append the entropy of each distribution it samples from to the log-prob, and draw
    random numbers ahead."""
    sampler, seeds = worker.model_runner.sampler, _Seeds()
    choose = sampler.topk_topp_sampler.forward

    def gather(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> LogprobsTensors:
        found: LogprobsTensors = Sampler.gather_logprobs(logprobs, num_logprobs, token_ids)
        return found._replace(logprobs=torch.cat([found.logprobs, entropy(logprobs)], dim=1))

    def draw(
        logits: Tensor, generators: Mapping[int, torch.Generator], k: Tensor | None, p: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if k is not None or p is not None or len(generators) < len(logits):  # no request of the adapter
            chosen: tuple[Tensor, Tensor | None] = choose(logits, generators, k, p)
            return chosen
        numbers = torch.tensor([seeds.next_of(generators[row]) for row in range(len(logits))])
        return torch.ops._C.fused_gumbel_argmax(logits, numbers), logits.log_softmax(dim=-1)

    sampler.gather_logprobs = gather
    sampler.topk_topp_sampler.forward = draw


class LockstepScheduler(Scheduler):
    """vLLM's scheduler; a response is handed over once, when it is complete, and its log-probs on a side way.

    For requests that ask for the log-prob of each sampled token and nothing else, as those of the adapter do, and for
    samplers that :func:`prepare_sampler` was called on.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: dict[str, Sampled] = {}
        self._complete_ones: dict[tuple[str, int], Sampled] = {}
        self._lockstep: SchedulerOutput | None = None

    def take(self, request_id: str, index: int) -> Sampled:
        """The complete response ``index`` of a request, by the name the caller knows it by; once."""
        return self._complete_ones.pop((request_id, index))

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """One token of every running request if that is all there is to do, else what vLLM decides."""
        if not self._only_decodes():
            self._lockstep = None
            return super().schedule(throttle_prefills)
        self.current_step += 1
        self.kv_cache_manager.new_step_starts()
        running = self.running
        ids = [request.request_id for request in running]
        output = SchedulerOutput(
            scheduled_new_reqs=[],
            scheduled_cached_reqs=CachedRequestData(
                req_ids=ids,
                resumed_req_ids=set(),
                new_token_ids=[],
                all_token_ids={},
                new_block_ids=[None] * len(ids),
                num_computed_tokens=[request.num_computed_tokens for request in running],
                num_output_tokens=[len(request._output_token_ids) for request in running],
            ),
            num_scheduled_tokens=dict.fromkeys(ids, 1),
            total_num_scheduled_tokens=len(ids),
            scheduled_spec_decode_tokens={},
            scheduled_encoder_inputs={},
            preempted_req_ids=self.reset_preempted_req_ids,
            finished_req_ids=self.finished_req_ids,
            free_encoder_mm_hashes=[],
            num_spec_tokens_to_schedule=0,
        )
        self.prev_step_scheduled_req_ids.clear()
        self.prev_step_scheduled_req_ids.update(ids)
        self._update_after_schedule(output)
        self._lockstep = output
        return output

    def _only_decodes(self) -> bool:
        """Whether nothing waits, and every running request has all but its newest token computed and room for it."""
        if self.waiting or self.kv_holding_waiting or self._pause_state != PauseState.UNPAUSED:
            return False
        block, running = self.block_size, self.running
        return 0 < len(running) <= self.max_num_scheduled_tokens and all(
            len(request._all_token_ids) == request.num_computed_tokens + 1
            and request.num_computed_tokens % block  # else the token begins a block, which has to be found first
            and request.request_id in self.prev_step_scheduled_req_ids
            for request in running
        )

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """Note what was sampled; the outputs of the requests that are complete with it."""
        if scheduler_output is self._lockstep:
            return self._outputs(self._note(scheduler_output.num_scheduled_tokens, model_runner_output))
        found: dict[int, EngineCoreOutputs] = super().update_from_output(scheduler_output, model_runner_output)
        for outputs in found.values():
            outputs.outputs = [output for output in outputs.outputs if self._complete(output)]
        return found

    def _note(self, scheduled: Mapping[str, int], sampled: ModelRunnerOutput) -> list[Any]:
        """Append the new token of every request; those that end with it."""
        assert sampled.logprobs is not None
        logprobs, entropies = (sampled.logprobs.logprobs[:, column].tolist() for column in (0, -1))
        stopped = []
        for request_id in scheduled:
            request = self.requests.get(request_id)
            if request is None:  # given up while its token was computed
                continue
            index = sampled.req_id_to_index[request_id]
            (token,) = sampled.sampled_token_ids[index]
            request.num_in_flight_tokens -= 1
            request.append_output_token_ids(token)
            held = self._held[request_id]
            held.tokens.append(token)
            held.logprobs.append(logprobs[index])
            held.entropies.append(entropies[index])
            if check_stop(request, self.max_model_len):
                stopped.append(request)
        return stopped

    def _outputs(self, stopped: list[Any]) -> dict[int, EngineCoreOutputs]:
        by_client: dict[int, EngineCoreOutputs] = {}
        for request in stopped:
            output = EngineCoreOutput(
                request_id=request.request_id,
                new_token_ids=[],
                finish_reason=request.get_finished_reason(),
                stop_reason=request.stop_reason,
            )
            self._complete(output)
            by_client.setdefault(request.client_index, EngineCoreOutputs(outputs=[])).outputs.append(output)
            self._free_request(request)
        if stopped:
            gone = set(stopped)
            self.running = [request for request in self.running if request not in gone]
        return by_client

    def _complete(self, output: EngineCoreOutput) -> bool:
        """Hold back an output that is not the last of its request; give the last one all tokens, and keep the rest for
        :meth:`take`."""
        held = self._held.setdefault(output.request_id, Sampled())
        if output.new_logprobs is not None:
            held.note(output.new_token_ids, output.new_logprobs)
        if not output.finished:
            return False
        output.new_token_ids, output.new_logprobs = held.tokens, None
        self._complete_ones[_name(output.request_id)] = self._held.pop(output.request_id)
        return True


def _name(request_id: str) -> tuple[str, int]:
    """(the caller's name of a request, number of the sample) from vLLM's ``SAMPLE_NAME-RANDOM`` or ``NAME-RANDOM``."""
    sample, _, name = request_id.rpartition("-")[0].rpartition("_")
    return name, int(sample or 0)
