"""``python -m trainer evaluate RUN_OR_MODEL [suite=NAME,...] [KEY=VALUE ...]``.

RUN_OR_MODEL is the folder of a run (its newest checkpoint), of a model, or a hub name. Without ``suite`` a run's own
suites are evaluated. Keys are those of a configuration (``evaluation.samples=64``, ``engine.lockstep=false``,
``hardware.device=cuda``), a choice of ``conf/evaluation`` (``evaluation=siren``) and settings of a suite
(``suite.aime24.path=aime24.jsonl``, ``suite.aime24.top_p=0.95``). Results are in ``metrics.json`` of the output folder,
which the same command completes after an interruption, and in the run's MLflow run under ``evaluate/``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.batch.types import Prompt, Rollout
from trainer.contract.component_source import component_defaults
from trainer.contract.components import build_component
from trainer.contract.config import ModelConfig
from trainer.contract.files import make_folder, write_atomic
from trainer.contract.run_folder import last_checkpoint
from trainer.contract.settings import ConfigError, nearest
from trainer.engine.base import EngineConfig, EngineSetup
from trainer.evaluation.contamination import overlaps
from trainer.evaluation.evaluate import EvaluationConfig, chosen_suites, evaluate
from trainer.policy.model import context_length, end_tokens, load_config, load_tokenizer, model_path
from trainer.policy.prompts import PromptLength, misfits, prompt_ids
from trainer.policy.weights import weight_files
from trainer.rollout.sampler import PromptStream, Sampler
from trainer.runtime.ranks import Ranks
from trainer.storage.record import RunFolder
from trainer.suites.arguments import DEFAULTS, applied
from trainer.suites.kept import CompletionCache
from trainer.suites.named import named
from trainer.tasks.base import Task
from trainer.tasks.selected import selected

MAX_TOKENS = 1024
"""Longest response of a model that is no run, unless ``evaluation.max_tokens`` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be evaluated, on what, and where the results go."""

    model: ModelConfig
    engine: EngineConfig
    evaluation: EvaluationConfig
    device: str
    max_tokens: int
    tasks: Mapping[str, Task]
    """The task of each suite, by the suite's name."""
    trained: tuple[str, ...]
    """Texts of the run's training prompts."""
    step: int
    output: Path
    run: RunFolder | None


def plan(target: str, overrides: list[str], output: Path | None = None) -> Plan:
    """What a command line asks for; raises :class:`ConfigError` or ValueError with one sentence."""
    folder = Path(target).expanduser()
    run = RunFolder(folder) if (folder / "run.yaml").is_file() else None
    config: dict[str, Any] = (
        run.config()
        if run
        else {name: {"_target_": kind, **component_defaults(kind)} for name, kind in DEFAULTS.items()}
    )
    suites, suite_settings = applied(config, overrides)
    checkpoint = last_checkpoint(folder) if run else None
    if run and checkpoint is None:
        raise ConfigError(f"{folder} has no checkpoint: give the folder of a run that has saved one")
    config["model"] = config["model"] | {
        "path": str(checkpoint or target),
        "revision": None if run else config["model"]["revision"],
    }
    evaluation: EvaluationConfig = build_component(config["evaluation"], "evaluation")
    tasks = _tasks(config, suites, suite_settings, run is not None, evaluation)
    device = config["hardware"]["device"]
    return Plan(
        model=build_component(config["model"], "model"),
        engine=build_component(config["engine"], "engine"),
        evaluation=replace(evaluation, suites=()),
        device=_cuda_or_cpu() if device == "auto" else device,
        max_tokens=evaluation.max_tokens or (config["rollout"]["max_tokens"] if run else MAX_TOKENS),
        tasks=tasks,
        trained=_trained(config) if run else (),
        step=int(checkpoint.name.removeprefix("step-")) if checkpoint else 0,
        output=output or _default_output(folder, checkpoint, target),
        run=run,
    )


def _default_output(folder: Path, checkpoint: Path | None, target: str) -> Path:
    if checkpoint is not None:
        return folder / "evaluations" / checkpoint.name
    return Path("outputs") / "evaluations" / target.strip("/.~").replace("/", "--").replace(":", "-")


def _tasks(
    config: Mapping[str, Any],
    suites: list[str],
    suite_settings: Mapping[str, dict[str, Any]],
    is_run: bool,
    evaluation: EvaluationConfig,
) -> dict[str, Task]:
    if unused := sorted(name for name, settings in suite_settings.items() if settings and name not in suites):
        raise ConfigError(f"suite.{unused[0]} is set, but suite={','.join(suites) or '?'} does not name it")
    if not suites and not is_run:
        raise ConfigError("a model alone has no suites: name some, such as suite=math500,gsm8k")
    if suites:
        tasks: dict[str, Task] = {name: named(name, suite_settings.get(name, {})) for name in suites}
    else:
        task: Task = build_component(config["task"], "task")
        tasks = dict.fromkeys(chosen_suites(task.suites(), evaluation), task)
    if unused := sorted(suite_settings.keys() - tasks.keys()):
        raise ConfigError(f"suite.{unused[0]} is set, but is not evaluated: {nearest(unused[0], tasks)}")
    return tasks


def _trained(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts of the prompts of a run; none, and a word on it, where its data are gone."""
    try:
        task = selected(build_component(config["task"], "task"), build_component(config["model"], "model"))
        return tuple(prompt.text for prompt in task.train_prompts())
    except (ValueError, OSError) as error:
        print(f"overlap with the training prompts is not looked for: {error}", file=sys.stderr)
        return ()


def _cuda_or_cpu() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def run_plan(request: Plan) -> dict[str, float]:
    """Evaluate; the metrics, which are also in ``metrics.json`` suite by suite as they are done."""
    tokenizer = load_tokenizer(request.model)
    prompts = {
        name: chosen_suites(task.suites(), request.evaluation.of(name))[name] for name, task in request.tasks.items()
    }
    lengths = {name: _lengths(tokenizer, each) for name, each in prompts.items()}
    context = context_length(load_config(request.model))
    for name, sizes in lengths.items():
        too_long, sentence = misfits(f"suite {name!r}", sizes, "evaluation.max_tokens", request.max_tokens, context)
        if too_long:
            raise ConfigError(f"{sentence}; lower evaluation.max_tokens or take a model with a longer context")
    stop_ids = end_tokens(request.model, tokenizer)
    longest = max(size.tokens for sizes in lengths.values() for size in sizes) + request.max_tokens
    rounded = -(-(longest + 1) // 64) * 64
    folder = model_path(request.model)
    setup = EngineSetup(
        model_path=str(folder),
        dtype=request.model.dtype,
        trust_remote_code=request.model.trust_remote_code,
        max_length=min(rounded, context or rounded),
        end_tokens=stop_ids,
        device=request.device,
    )
    engine = request.engine.start(setup)
    try:
        metrics: dict[str, float] = {}
        for name, task in request.tasks.items():
            sampler = Sampler(
                engine=engine,
                tokenizer=tokenizer,
                task=task,
                stream=PromptStream([], 0),
                ranks=Ranks(),
                seed=0,
                measure_entropies=lambda rollouts, temperature: [],
                ends=frozenset(stop_ids),
            )
            responses = request.output / "responses" / name
            cache = CompletionCache(sampler=sampler, folder=responses, identity=_identity(folder))
            metrics |= _suite(request, name, task, cache, len(tokenizer))
            make_folder(request.output)
            document = json.dumps({"step": request.step, "metrics": metrics}, indent=2)
            write_atomic(request.output / "metrics.json", document)
    finally:
        engine.close()
    return metrics


def _suite(request: Plan, name: str, task: Task, cache: CompletionCache, vocabulary: int) -> dict[str, float]:
    sampled: list[Rollout] = []

    def generate(prompts: list[Prompt], **options: Any) -> list[Rollout]:
        sampled.extend(cache(prompts, **options))
        return sampled

    result = evaluate(
        generate,
        task,
        request.evaluation.of(name),
        step=request.step,
        max_tokens=request.max_tokens,
        vocabulary=vocabulary,
    )
    return result.metrics | _overlap(request, name, sampled)


def _overlap(request: Plan, name: str, sampled: list[Rollout]) -> dict[str, float]:
    """Share of the suite's problems that the run was trained on, whole or in many words in a row."""
    texts = list({rollout.group: rollout.prompt.text for rollout in sampled}.values())
    overlapping = overlaps(request.trained, {name: texts}) if request.trained else []
    return {f"eval/{row.suite}/contaminated_frac": row.share for row in overlapping}


def _lengths(tokenizer: Any, prompts: list[Prompt]) -> list[PromptLength]:
    return [
        PromptLength(
            id=prompt.id, where=str(prompt.data.get("where", prompt.id)), tokens=len(prompt_ids(tokenizer, prompt))
        )
        for prompt in prompts
    ]


def _identity(folder: Path) -> str:
    """Of the weights in a folder, without reading them: a changed file has another size or time."""
    return json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weight_files(folder)])


def main(arguments: list[str]) -> int:
    """The command line after ``evaluate``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", metavar="RUN_OR_MODEL", help="folder of a run or of a model, or a hub name")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where responses and metrics.json go")
    options = parser.parse_args(arguments)
    try:
        request = plan(options.target, options.overrides, options.output)
        metrics = run_plan(request)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for key, value in sorted(metrics.items()):
        print(f"{key}  {value:.4f}")
    print(request.output / "metrics.json")
    return _logged(request, metrics)


def _logged(request: Plan, metrics: Mapping[str, float]) -> int:
    """Copy the metrics to the run's MLflow run, if it has one; the exit code is 1 if that fails."""
    if request.run is None:
        return 0
    from trainer.contract.errors import reason
    from trainer.tracking.mlflow_copy import log_evaluation

    try:
        log_evaluation(request.run, metrics, request.step)
    except Exception as error:  # the boundary to MLflow, which raises whatever its store raises
        print(f"the metrics could not be copied to MLflow: {reason(error)}", file=sys.stderr)
        return 1
    return 0
