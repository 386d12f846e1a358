"""``python -m trainer evaluate``: the numbers of the training's own evaluation, named suites, interruption, bad
input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import MOVING, write_run

from trainer.__main__ import main
from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.settings import ConfigError
from trainer.engine import transformers
from trainer.suites import command, kept
from trainer.suites.named import named, names
from trainer.tasks.base import verify_all


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, evaluated at the end, on nine problems a suite."""
    changes = {"steps": 2, "task.num_heldout": 9, "task.num_ood": 9, "evaluation.prompts": 9}
    folder = write_run(tmp_path_factory.mktemp("evaluated") / "run", MOVING | changes)
    assert main([str(folder.path)]) == 0
    return folder.path


def found(output: Path) -> dict[str, float]:
    content: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    metrics: dict[str, float] = content["metrics"]
    return metrics


def test_a_run_gives_what_its_last_evaluation_gave(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run)]) == 0
    output = run / "evaluations" / "step-000002"
    assert json.loads((output / "metrics.json").read_text())["step"] == 2
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
    expected = {key: value for key, value in logged.items() if key.startswith("eval/")}
    metrics = found(output)
    more = {f"eval/{suite}/{name}" for suite in ("heldout", "ood") for name in ("contaminated_frac",)}
    assert metrics.keys() - expected.keys() <= more
    assert metrics["eval/heldout/contaminated_frac"] == 0.0, "countdown's held-out problems are not trained on"
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert "eval/heldout/avg_at_2" in capsys.readouterr().out


def test_a_suite_of_the_run_may_be_sampled_in_its_own_way(run: Path, tmp_path: Path) -> None:
    own = ["suite.ood.samples=1", "suite.ood.temperature=0", "suite.heldout.top_p=0.5"]
    request = command.plan(str(run), own, tmp_path)
    ood, heldout = (request.evaluation.of(name) for name in ("ood", "heldout"))
    assert (ood.samples, ood.temperature, ood.ks, heldout.samples, heldout.top_p) == (1, 0, (1,), 2, 0.5)
    for outputs in (tmp_path / "a", tmp_path / "b"):
        assert main(["evaluate", str(run), *own, "--output", str(outputs)]) == 0
    metrics = found(tmp_path / "a")
    assert metrics == found(tmp_path / "b"), "greedy and seeded responses are the same again"
    assert {"eval/ood/avg_at_1", "eval/heldout/avg_at_2"} <= metrics.keys() and "eval/ood/pass_at_2" not in metrics
    with pytest.raises(ConfigError, match=r"suite_sampling names 'odd', not a suite: did you mean 'ood'"):
        command.plan(str(run), ["suite.odd.samples=1"], tmp_path)


def test_a_paper_s_sampling_is_a_word_and_what_follows_it_changes_it(run: Path, tmp_path: Path) -> None:
    chosen = command.plan(str(run), ["evaluation=siren", "evaluation.prompts=2"], tmp_path).evaluation
    assert (chosen.samples, chosen.temperature, chosen.top_p, chosen.prompts) == (16, 0.6, 0.7, 2)


def test_an_interrupted_evaluation_goes_on_where_it_was(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = transformers._Transformers.generate

    def generate(engine: Any, prompts: Any, **options: Any) -> Any:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return real(engine, prompts, **options)

    monkeypatch.setattr(transformers._Transformers, "generate", generate)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        main(["evaluate", str(run), "--output", str(parts)])
    asked[:] = [0, 0]  # no further interruption
    assert main(["evaluate", str(run), "--output", str(parts)]) == 0
    assert asked[2:] == [1, kept.PROMPTS_A_PART, 1]  # the first eight problems of the first suite were there
    assert main(["evaluate", str(run), "--output", str(whole)]) == 0
    assert found(parts) == found(whole)
    del asked[2:]
    assert main(["evaluate", str(run), "evaluation.samples=3", "--output", str(parts)]) == 0
    assert sum(asked) == 18  # other samples are other responses


def test_a_damaged_part_is_sampled_again(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(run), "--output", str(tmp_path)]) == 0
    before = found(tmp_path)
    part = next((tmp_path / "responses" / "heldout").glob("*.json"))
    part.write_text(part.read_text()[:100])
    assert main(["evaluate", str(run), "--output", str(tmp_path)]) == 0
    assert found(tmp_path) == before


def test_a_model_is_evaluated_on_a_named_suite_from_a_local_copy(tmp_path: Path) -> None:
    rows = [{"problem": f"What is {n} + 1000?", "answer": str(n + 1000)} for n in range(3)]
    (tmp_path / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = ["suite=aime24", f"suite.aime24.path={tmp_path / 'aime.jsonl'}"]
    settings = ["evaluation.samples=2", "evaluation.ks=[1]", "evaluation.max_tokens=8"]
    request = command.plan(str(SHIPPED_MODEL), [*suite, *settings], tmp_path / "out")
    metrics = command.run_plan(replace(request, engine=transformers.TransformersEngine()))
    assert metrics["eval/aime24/avg_at_2"] == 0.0 and 0 < metrics["eval/aime24/length_mean"] <= 8


ROWS = {
    "ifeval": {"prompt": "q", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    "humaneval": {"prompt": "def f():\n", "test": "def check(f):\n    assert f() == 1\n", "entry_point": "f"},
    "livecodebench": {
        "question_content": "q",
        "starter_code": "",
        "public_test_cases": '[{"input": "1", "output": "1", "testtype": "stdin"}]',
    },
}
"""A row of each suite that is no table of questions and answers."""


@pytest.mark.parametrize("name", names())
def test_named_suites_are_tasks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.tasks.code.require_sandbox", lambda: None)  # no program runs here
    row = ROWS.get(name, {"question": "q", "answer": "1", "problem": "q", "solution": r"\boxed{1}"})
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    settings = {"path": str(tmp_path / "a.jsonl")}
    if name not in ROWS:
        settings |= {"question_field": "question", "answer_field": "answer"}
    suites = named(name, settings).suites()
    assert (
        list(suites) == [name] and len(suites[name]) == 1 and "q" in suites[name][0].text + "q" * (name == "humaneval")
    )


def test_a_suite_of_another_kind_of_task_is_judged_by_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS["ifeval"]) + "\n")
    task = named("ifeval", {"path": str(tmp_path / "a.jsonl")})
    (prompt,) = task.suites()["ifeval"]
    assert [verdict.reward for verdict in verify_all(task, [(prompt, "a b"), (prompt, "a, b")])] == [1.0, 0.0]
    assert task.verify(prompt, "a b").reward == 1.0 and task.train_prompts() == [] and task.expert(prompt) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "a model alone has no suites: name some, such as suite=math500"),
        (["suite=math5000"], "suite=math5000 is no named suite: did you mean 'math500'?"),
        (["suite=math500", "suite.aime24.path=x"], "suite.aime24 is set, but suite=math500 does not name it"),
        (["suite=math500", "suite.math500.path=gone.jsonl"], "gone.jsonl is not a file"),
        (["suite=math500", "suite.math500.pth=x"], "suite.math500.pth is not a setting of JsonlTask"),
        (["suite=math500", "evaluation.sampels=2"], "evaluation.sampels is not a setting of EvaluationConfig"),
        (["suite=math500", "optim.lr=2"], "optim.lr is nothing that an evaluation has"),
        (["suite"], "suite is no KEY=VALUE"),
        (["evaluation.ks=[1"], "cannot be read"),
        (["evaluation=sirne"], "evaluation=sirne is no choice of conf/evaluation: did you mean 'siren'?"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["evaluate", str(SHIPPED_MODEL), *arguments, "--output", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert sentence in said


def test_a_run_without_a_checkpoint_and_too_long_prompts(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no checkpoint"):
        command.plan(str(write_run(tmp_path / "new").path), [])
    with pytest.raises(ConfigError, match=r"prompts of suite 'heldout' do not fit"):
        command.run_plan(command.plan(str(run), ["evaluation.max_tokens=100000"], tmp_path))


def test_the_numbers_are_copied_to_the_mlflow_run(run: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    from trainer.contract import run_yaml
    from trainer.storage.record import RunFolder
    from trainer.tracking.mlflow_copy import log_evaluation, sync

    folder = RunFolder(run)
    assert log_evaluation(folder, {"eval/heldout/avg_at_2": 0.5}, 2) is False
    config = folder.config()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config["tracking"] = config["tracking"] | {"uri": uri}
    folder.config_file.write_text(run_yaml.dumps(config))
    sync(run)
    assert log_evaluation(folder, {"eval/heldout/avg_at_2": 0.5}, 2) is True
    run_id = folder.read_mirror()["run_id"]
    metrics = MlflowClient(uri).get_run(run_id).data.metrics
    assert [value for key, value in metrics.items() if key.startswith("evaluate/heldout/avg")] == [0.5]
