"""A scheduler for vLLM that takes the short way through steps in which every request decodes one token.

Chosen by ``engine/vllm.py`` on a CPU, for the version of vLLM it was written for. A small model spends a third of its
sampling time on choosing, request by request and step by step, what is the same every time, and on handing over one
token at a time to a caller who waits for whole responses. What is sampled is the same to the bit
(``tests/engine/test_vllm_scheduler.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput


@dataclass(slots=True)
class _Held:
    """What a request has produced and nobody has been told of."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)


class LockstepScheduler(Scheduler):
    """vLLM's scheduler; a response is handed over once, when it is complete.

    For requests that ask for the log-prob of each sampled token and nothing else, as those of the adapter do.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: dict[str, _Held] = {}
        self._lockstep: SchedulerOutput | None = None

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
        logprobs, ranks = sampled.logprobs.logprobs[:, 0].tolist(), sampled.logprobs.sampled_token_ranks.tolist()
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
            held.ranks.append(ranks[index])
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
        """Hold back an output that is not the last of its request; give the last one all that was held back."""
        held = self._held.setdefault(output.request_id, _Held())
        held.tokens += output.new_token_ids
        if output.new_logprobs is not None:
            held.logprobs += output.new_logprobs.logprobs[:, 0].tolist()
            held.ranks += output.new_logprobs.sampled_token_ranks.tolist()
        if not output.finished:
            return False
        del self._held[output.request_id]
        output.new_token_ids = held.tokens
        output.new_logprobs = LogprobsLists(
            np.array(held.tokens)[:, None], np.array(held.logprobs, np.float32)[:, None], np.array(held.ranks)
        )
        return True
