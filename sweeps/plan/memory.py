"""Whether runs fit their device: the table of a plan, and the refusal of what cannot fit, with its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sweeps.memory.model_size import ModelSize, planned_size
from sweeps.memory.parts import GIB, MemoryParts, cache_per_token, memory_parts
from sweeps.plan.plan import aligned
from sweeps.queues.base import Queue
from sweeps.queues.machine import total_gib
from trainer.contract.settings import ConfigError

NAMES = {
    "gathered": "gathered weights",
    "masters": "master weights",
    "adam": "AdamW",
    "kv_cache": "KV cache",
    "logits": "logits chunk",
}
"""What the parts are called where a person reads them, if not by the name of their field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one configuration needs of one device, and what the device has, GiB."""

    name: str
    parts: MemoryParts
    ranks: int
    """Processes that share the device: all of a run on a CPU, one on a GPU."""
    device_gib: float | None
    """None: not known here."""
    setting: str
    """What says how much that is."""
    config: Mapping[str, Any]
    size: ModelSize

    @property
    def total_gib(self) -> float:
        """Of all ranks on the device."""
        return self.ranks * self.parts.total / GIB


def needs(configs: Sequence[Mapping[str, Any]], queue: Queue) -> list[Need]:
    """The distinct needs among configurations that the trainer has checked; those of a model of which nothing is known
    here are left out."""
    distinct: dict[tuple[str, MemoryParts], Need] = {}
    for config in configs:
        model, hardware = config["model"], config["hardware"]
        size = planned_size(model.get("path"), model.get("revision"))
        if size is None:
            continue
        need = Need(
            name=f"{model.get('path') or 'the shipped model'} on {_device(hardware)}",
            parts=memory_parts(config, size),
            ranks=int(hardware["processes"]) if hardware["device"] == "cpu" else 1,
            device_gib=device_gib(hardware, queue),
            setting="launcher.memory_gib" if _of_job(hardware, queue) else "hardware.memory_gib",
            config=config,
            size=size,
        )
        distinct.setdefault((need.name, need.parts), need)
    return list(distinct.values())


def _device(hardware: Mapping[str, Any]) -> str:
    ranks = int(hardware["processes"])
    return f"{hardware['device']} ({ranks} ranks)" if ranks > 1 else str(hardware["device"])


def device_gib(hardware: Mapping[str, Any], queue: Queue) -> float | None:
    """Memory of the device, GiB: ``hardware.memory_gib``, else that of a Slurm job on CPUs or of this machine."""
    if hardware.get("memory_gib") is not None:
        return float(hardware["memory_gib"])
    if hardware["device"] != "cpu":
        return None
    return _of_job(hardware, queue) or (total_gib() if queue.is_local else None)


def _of_job(hardware: Mapping[str, Any], queue: Queue) -> float | None:
    """Memory that a run on CPUs asks Slurm for, GiB."""
    given = getattr(queue, "memory_gib", None) if hardware["device"] == "cpu" else None
    return float(given) if given is not None and hardware.get("memory_gib") is None else None


def memory_table(found: Sequence[Need]) -> str:
    """A line per need: its parts in GiB of one rank, their sum, and what the device has; empty where there is none."""
    if not found:
        return ""
    shown = [field.name for field in fields(MemoryParts) if any(getattr(need.parts, field.name) for need in found)]
    rows = [("memory of a rank, GiB", *(NAMES.get(name, name) for name in shown), "sum", "device")]
    for need in found:
        parts = [f"{getattr(need.parts, name) / GIB:.2f}" for name in shown]
        device = "unknown" if need.device_gib is None else f"{need.device_gib:.1f}"
        rows.append((need.name, *parts, f"{need.parts.total / GIB:.2f}", device))
    return "\n".join(aligned(rows))


def require_memory(found: Sequence[Need]) -> None:
    """Raise :class:`ConfigError`, a sentence with the arithmetic for each need that its device cannot meet."""
    problems = [sentence for need in found for sentence in _problems(need)]
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(need: Need) -> Iterator[str]:
    if need.device_gib is None:
        return
    engine, hardware = need.config["engine"], need.config["hardware"]
    if hardware["device"] != "cpu" and "gpu_memory_frac" in engine:
        share, held = engine["gpu_memory_frac"] * need.device_gib, need.parts.engine / GIB
        wide = need.parts.engine / need.size.parameters
        least = need.config["rollout"]["max_tokens"] * cache_per_token(need.size.shape, round(wide)) / GIB
        if held + least > share:
            yield (
                f"{need.name}: vLLM's share of {need.device_gib:g} GiB is {share:.1f} GiB "
                f"(engine.gpu_memory_frac={engine['gpu_memory_frac']:g}), but its weights take {held:.1f} GiB and "
                f"one response {least:.2f} GiB: raise engine.gpu_memory_frac, or take a smaller model"
            )
            return
    if need.total_gib > need.device_gib:
        parts = [(field.name, getattr(need.parts, field.name) / GIB) for field in fields(MemoryParts)]
        sums = " + ".join(f"{NAMES.get(name, name)} {gib:.1f}" for name, gib in parts if gib >= 0.05)
        times = f"{need.ranks} ranks x ({sums})" if need.ranks > 1 else sums
        yield (
            f"{need.name} cannot fit: {times} = {need.total_gib:.1f} GiB, but the device has {need.device_gib:.1f} GiB "
            f"({need.setting}, if that is wrong): {_remedy(need)}"
        )


def _remedy(need: Need) -> str:
    """What to change: whatever brings the most."""
    parts, model = need.parts, need.config["model"]
    learning = parts.masters + parts.adam + parts.gradients + parts.reference
    if parts.activations > max(learning, parts.kv_cache):
        less = "" if model.get("gradient_checkpointing") else "set model.gradient_checkpointing=true, or "
        return f"{less}lower hardware.micro_batch_tokens={need.config['hardware']['micro_batch_tokens']}"
    if parts.kv_cache > learning:
        on_gpu = need.config["hardware"]["device"] != "cpu"
        keys = ("gpu_memory_frac" if on_gpu else "kv_cache_gib", "batch_size")
        return f"lower engine.{next(key for key in keys if key in need.config['engine'])}"
    if not model.get("lora_rank"):
        return "train an adapter (model.lora_rank=32), or take a smaller model or a larger device"
    return "take a smaller model or a larger device"
