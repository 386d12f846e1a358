"""What a trainer that died without a word is said to have died of."""

from __future__ import annotations

import signal

import pytest

from sweeps.queues.exit_reason import last_error_line, signal_of_rank, state_after_signal

TORCHRUN = """
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 4711)
  traceback : Signal 9 (SIGKILL) received by PID 4711
============================================================
"""


@pytest.mark.parametrize("number", [int(number) for number in signal.valid_signals()])
def test_every_signal_has_an_end_and_a_name(number: int) -> None:
    state, message = state_after_signal(number)
    assert state in ("LOST", "FAILED") and (str(number) in message or "SIG" in message)


def test_a_killed_rank_is_found_behind_what_started_it() -> None:
    assert signal_of_rank(TORCHRUN) == signal.SIGKILL
    assert signal_of_rank("ValueError: no") is None


def test_bars_that_show_progress_are_no_reason() -> None:
    text = "ValueError: no such model\nLoading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00]\n"
    assert last_error_line(text) == "ValueError: no such model"
    assert last_error_line("10%|#    | 1/10\r100%|#####| 10/10\n") == ""
