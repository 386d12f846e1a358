"""Log-prob and differentiable entropy from hidden states at a vocabulary of 151 936: time, memory, gradient error.

    python -m benchmarks.token_statistics [--rows 512 2048 8192] [--rounds 3] [--device cuda]

Every measurement is a fresh process, the ways take turns, so that a slow minute of the machine meets all of them.
Memory is what is needed beyond inputs and the two returned gradients: the peak of live tensors (exact, from the
profiler), and of resident memory. Errors are relative to float64 on the same inputs, at 256 rows.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.common import ChildFailed, available_gib, child, peak_memory, ratio, save, spread

VOCABULARY, WIDTH = 151_936, 896
ERROR_ROWS = 256
LOGIT_SPREAD = 0.1
"""Standard deviation of the head's weights; logits then have one of 3 nats and the entropy is near 7.5 nats."""

MAIN = {"full": {}, "ours": {"chunk": 4096}, "trl fused head": {}, "verl fused head": {}}
STATISTICS = {"full + statistics": {"statistics": True}, "ours + statistics": {"statistics": True, "chunk": 4096}}
SMALLEST_ONLY = {"ours 128": {"chunk": 128}, "ours 512": {"chunk": 512}}
SMALLEST_ONLY |= {"trl from logits": {}, "verl from logits": {}, "liger fused loss": {}}
PEERS = ("trl", "verl", "liger")
FULL_GIB_PER_ROW = VOCABULARY * 4 * 5 / 2**30
"""What the ways that keep all logits may take at most."""


def way(name: str, request: dict[str, Any]) -> Callable[..., tuple[Any, Any]]:
    """(hidden, weight, targets) -> (log-probs, entropy), as the named library computes them."""
    if name.startswith("ours"):
        from trainer.policy.token_stats import token_stats

        wanted = ("sum_p2_logp_h",) if request.get("statistics") else ()

        def ours(hidden: Any, weight: Any, targets: Any) -> tuple[Any, Any]:
            stats = token_stats(hidden, weight, targets, statistics=wanted, chunk=request["chunk"])
            return stats["logprobs"], stats["entropy"] + sum(stats[extra] for extra in wanted)

        return ours
    if name.startswith("full"):
        return lambda hidden, weight, targets: _full(hidden, weight, targets, bool(request.get("statistics")))
    if name == "trl fused head":
        from trl.kernels import ChunkedLogProbFunction

        # As GRPOTrainer calls it.
        return lambda hidden, weight, targets: ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, 1.0, 32768, None, 1.0, ("log_probs", "entropy")
        )[:2]
    if name == "trl from logits":
        from trl.trainer.utils import selective_log_softmax_and_entropy

        return lambda hidden, weight, targets: selective_log_softmax_and_entropy(hidden @ weight.T, targets)
    if name == "verl fused head":
        from verl.utils.experimental.torch_functional import FusedLinearForPPO

        return FusedLinearForPPO()
    if name == "verl from logits":
        from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

        def verl(hidden: Any, weight: Any, targets: Any) -> tuple[Any, Any]:
            logits = hidden @ weight.T
            return logprobs_from_logits(logits, targets), entropy_from_logits(logits)

        return verl
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    # It gives no entropy: only log-probs are asked of it.
    loss = LigerFusedLinearCrossEntropyLoss(reduction="none")
    return lambda hidden, weight, targets: (-loss(weight, hidden, targets), 0.0)


def _full(hidden: Any, weight: Any, targets: Any, statistics: bool) -> tuple[Any, Any]:
    """The definitions, left to autograd; logits in float32 at least."""
    import torch

    logits = hidden @ weight.T
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(dim=-1)
    chosen = log_p.gather(1, targets[:, None]).squeeze(1)
    return chosen, entropy + (p * p * (log_p + entropy[:, None])).sum(dim=-1) if statistics else entropy


def inputs(rows: int, rounded: str, dtype: str, device: str) -> tuple[Any, ...]:
    """Hidden states and head (``rounded`` to one dtype, held in another), targets, and the gradients from the loss."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(VOCABULARY, WIDTH).normal_(generator=generator).mul_(LOGIT_SPREAD)
    hidden, by_logprob, by_entropy = (torch.empty(rows, n).normal_(generator=generator) for n in (WIDTH, 1, 1))
    targets = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    narrow, wide = getattr(torch, rounded), getattr(torch, dtype)
    made = [value.to(narrow).to(device, wide).requires_grad_() for value in (hidden, weight)]
    return *made, targets.to(device), by_logprob.squeeze(1).to(device), by_entropy.squeeze(1).to(device)


def peak_of_tensors(run: Callable[[], object], device: str) -> float:
    """Largest total of tensors alive above those that were there before, MiB."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """One way in this process: seconds of each repetition after the first, and memory."""
    import torch

    device = request["device"]
    hidden, weight, targets, by_logprob, by_entropy = inputs(
        request["rows"], request.get("rounded", request["dtype"]), request["dtype"], device
    )
    compute = way(request["way"], request)

    def run(rows: int | None = None) -> tuple[Any, ...]:
        logprobs, entropy = compute(hidden[:rows], weight, targets[:rows])
        by = by_logprob[:rows], by_entropy[:rows]
        loss = (logprobs.float() * by[0]).sum() + (torch.as_tensor(entropy).float() * by[1]).sum()
        return logprobs, entropy, *torch.autograd.grad(loss, (hidden, weight))

    if "reference" in request:
        return _errors(run(), Path(request["reference"]))
    run(8)  # loads libraries and makes their buffers
    returned = sum(value.numel() * value.element_size() for value in (hidden, weight)) / 2**20
    seconds = []
    gc.collect()
    with peak_memory() as resident:
        seconds.append(_seconds(run, device))
    seconds += [_seconds(run, device) for _ in range(request["repetitions"] - 1)]
    tensors = peak_of_tensors(run, device)
    return {"seconds": seconds, "tensors_mib": tensors - returned, "resident_mib": resident["extra_mib"] - returned}


def _seconds(run: Callable[[], object], device: str) -> float:
    import torch

    gc.collect()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _errors(results: tuple[Any, ...], reference: Path) -> dict[str, Any]:
    """Relative 2-norm error of log-probs, entropy and both gradients; writes the reference if it is not there."""
    import torch

    if not reference.exists():
        torch.save([value.detach() for value in results], reference)
        return {}
    names = ("logprobs", "entropy", "grad_hidden", "grad_weight")
    pairs = zip(names, results, torch.load(reference), strict=True)
    return {
        name: float((torch.as_tensor(got).double() - want).detach().norm() / want.norm()) for name, got, want in pairs
    }


def attempt(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """One child; a way that cannot run says why."""
    python = peers.python() if name.startswith(PEERS) else sys.executable
    try:
        return child("benchmarks.token_statistics", {"way": name, **request}, python)
    except ChildFailed as error:
        return {"failed": str(error).splitlines()[-1]}


def times(rows: list[int], rounds: int, dtype: str, device: str) -> list[dict[str, Any]]:
    """Every way at every number of rows, in turns; beside each the ratio to full logits."""
    table = []
    for count in rows:
        names = MAIN | STATISTICS | (SMALLEST_ONLY if count == rows[0] else {})
        if device == "cpu" and FULL_GIB_PER_ROW * count > available_gib():
            print(f"{count} rows of full logits may not fit into memory: left out", flush=True)
            names = {name: more for name, more in names.items() if not name.startswith("full")}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        request = {"rows": count, "dtype": dtype, "device": device, "repetitions": 1 if count > rows[0] else 2}
        for _ in range(rounds if count == rows[0] else 1):
            for name, more in names.items():
                if not any("failed" in result for result in found[name]):
                    found[name].append(attempt(name, {**request, **more}))
                    print(count, dtype, name, found[name][-1], flush=True)
        table += [_line(name, count, dtype, results, found) for name, results in found.items()]
    return table


def _line(name: str, rows: int, dtype: str, results: list[dict[str, Any]], every: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"way": name, "rows": rows, "dtype": dtype}
    if "failed" in results[-1]:
        return line | {"failed": results[-1]["failed"]}
    seconds = [value for result in results for value in result["seconds"]]
    line |= {"seconds": spread(seconds)}
    line |= {key: spread([result[key] for result in results])["median"] for key in ("tensors_mib", "resident_mib")}
    base = every.get("full + statistics" if "statistics" in name else "full")
    if base and "seconds" in base[-1]:
        line["faster_than_full"] = ratio(seconds, [value for result in base for value in result["seconds"]])
        line["memory_of_full"] = line["tensors_mib"] / spread([result["tensors_mib"] for result in base])["median"]
    return line


def errors(device: str) -> list[dict[str, Any]]:
    """Error of every way in float32 and bfloat16 against plain autograd in float64."""
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("float32", "bfloat16"):
            common = {"rows": ERROR_ROWS, "device": device, "reference": f"{scratch}/{dtype}.pt", "rounded": dtype}
            attempt("full", {**common, "dtype": "float64"})
            for name, more in (MAIN | SMALLEST_ONLY).items():
                found = attempt(name, {**common, "dtype": dtype, **more})
                table.append({"way": name, "dtype": dtype, **found})
                print(table[-1], flush=True)
    return table


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(json.load(sys.stdin))))
        return
    data = {"errors": errors(options.device), "times": times(options.rows, options.rounds, "float32", options.device)}
    data["times"] += times(options.rows[:1], 1, "bfloat16", options.device)
    save("token_statistics", data)


if __name__ == "__main__":
    main()
