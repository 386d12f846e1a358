"""Every checkpoint, and ``python -m trainer export``, is a folder that transformers, vLLM and ``model.path`` load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import MOVING, run_config, write_run
from safetensors.torch import load_file, save_file
from small_models import CHAT, END, TURN_END, edit, fatal, instruct_model, math_run, questions, run_folder
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from trainer.__main__ import main
from trainer.contract.config import ModelConfig
from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.settings import ConfigError
from trainer.engine.base import EngineSetup
from trainer.engine.vllm import VLLMEngine
from trainer.policy.model import load_model, load_tokenizer, model_path
from trainer.storage.export import description
from trainer.storage.record import RunFolder

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tied_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the shipped model, whose head is its embedding; a umask that lets a group read."""
    before = os.umask(0o027)
    try:
        folder = write_run(tmp_path_factory.mktemp("tied") / "run", MOVING | {"steps": 2, "evaluation.every": 0})
        assert main([str(folder.path)]) == 0
    finally:
        os.umask(before)
    return folder.path


@pytest.fixture
def chat_run(tmp_path: Path) -> Iterator[Path]:
    """A step of an instruct model that was saved in bfloat16 and is trained in float32."""
    model = instruct_model(tmp_path / "model", tied=False)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(model / WEIGHTS).items()}
    save_file(tensors, model / WEIGHTS, metadata={"format": "pt"})
    edit(model / "config.json", dtype="bfloat16", torch_dtype="bfloat16")
    changes = MOVING | {"rollout.prompts_per_step": 1}
    folder = run_folder(tmp_path / "run", math_run(model, questions(tmp_path / "q.jsonl", "1+1?"), changes))
    assert main([str(folder.path)]) == 0
    yield folder.path


def last(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def test_a_checkpoint_is_a_model_that_transformers_loads(chat_run: Path) -> None:
    checkpoint = last(chat_run)
    model, found = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    stored = load_file(checkpoint / WEIGHTS)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())
    assert model.dtype == torch.float32, "the configuration says what the weights are now"
    assert AutoTokenizer.from_pretrained(checkpoint).chat_template == CHAT
    assert GenerationConfig.from_pretrained(checkpoint).eos_token_id == [END, TURN_END]


def test_tied_weights_are_stored_under_the_name_that_loaders_look_for(tied_run: Path) -> None:
    names = load_file(last(tied_run) / WEIGHTS).keys()
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    mine, shipped = (AutoModelForCausalLM.from_pretrained(path) for path in (last(tied_run), SHIPPED_MODEL))
    assert not torch.equal(mine.lm_head.weight, shipped.lm_head.weight)
    assert torch.equal(mine.lm_head.weight, mine.model.embed_tokens.weight)


def test_the_files_of_a_checkpoint_follow_the_umask(tied_run: Path) -> None:
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in last(tied_run).iterdir()}
    assert set(modes.values()) == {"0o640"}, modes
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS} <= set(modes)


def test_a_checkpoint_is_a_model_path(tied_run: Path, tmp_path: Path) -> None:
    changes = {"model.path": str(last(tied_run)), "steps": 1, "evaluation.every": 0}
    assert fatal(run_config(changes)) == []
    folder = write_run(tmp_path / "run", changes)
    assert main([str(folder.path)]) == 0
    names = {file.name for file in last(folder.path).iterdir()}
    assert names == {file.name for file in last(tied_run).iterdir()}
    assert fatal(run_config({"model.path": str(tied_run)})) == []
    assert model_path(ModelConfig(path=str(tied_run))) == last(tied_run)


def test_a_run_that_has_not_ended_is_no_model_path(tied_run: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {})
    (sentence,) = fatal(run_config({"model.path": str(folder.path)}))
    assert "is a run without a checkpoint" in sentence
    shutil.copytree(tied_run / "checkpoints", folder.checkpoints)
    for state in (None, "PREEMPTED"):
        if state:
            folder.write_status(state, 2, 4)
        words = f"is a run that is {state or 'not started'}: let it finish, or give one of its checkpoints"
        with pytest.raises(ConfigError, match=words):
            model_path(ModelConfig(path=str(folder.path)))


def test_vllm_loads_a_checkpoint(tied_run: Path) -> None:
    pytest.importorskip("vllm")
    config = ModelConfig(path=str(last(tied_run)))
    ids = tuple(load_tokenizer(config)("4,7,3,2=26:")["input_ids"])
    setup = EngineSetup(
        model_path=str(last(tied_run)),
        dtype="float32",
        trust_remote_code=False,
        max_length=64,
        end_tokens=(1,),
        device="cpu",
    )
    engine = VLLMEngine(kv_cache_gib=0.1).start(setup)
    try:
        (((completion,)),) = engine.generate([ids], samples=1, temperature=1.0, max_tokens=16, seeds=[0])
    finally:
        engine.close()
    tokens = torch.tensor([ids + completion.token_ids])
    with torch.no_grad():
        logits = load_model(config)(input_ids=tokens).logits[0, len(ids) - 1 : -1]
    logprobs = logits.log_softmax(-1).gather(1, tokens[0, len(ids) :, None]).squeeze(1)
    torch.testing.assert_close(logprobs, torch.tensor(completion.logprobs), atol=1e-4, rtol=0)


def test_export_leaves_the_optimiser_out(chat_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(chat_run)]) == 0
    model = chat_run / "model"
    assert capsys.readouterr().out.strip() == str(model)
    assert {"state.json", "optimizer.pt", "manifest.json"}.isdisjoint(file.name for file in model.iterdir())
    assert (model / WEIGHTS).read_bytes() == (last(chat_run) / WEIGHTS).read_bytes()
    AutoModelForCausalLM.from_pretrained(model)
    assert main(["export", str(last(chat_run)), "--output", str(tmp_path / "deep/er")]) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "deep/er").chat_template == CHAT


def test_what_cannot_be_exported_is_a_sentence(
    chat_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([str(tmp_path)], "has no whole checkpoint"),
        ([str(tmp_path / "gone")], "has no whole checkpoint"),
        ([str(chat_run), "--output", str(tmp_path)], "exists already"),
    ):
        assert main(["export", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_checkpoint_of_an_earlier_version_is_exported_too(tied_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tied_run, tmp_path / "run"))
    for folder in (run / "checkpoints").iterdir():  # as they were: weights, optimiser, state, manifest
        for file in folder.iterdir():
            if file.name not in (WEIGHTS, "optimizer.pt", "state.json", "manifest.json"):
                file.unlink()
    assert main(["export", str(run)]) == 0
    model: Any = AutoModelForCausalLM.from_pretrained(run / "model")
    expected: Any = AutoModelForCausalLM.from_pretrained(last(tied_run))
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_describes_a_model_is_copied_byte_for_byte(tmp_path: Path) -> None:
    model = instruct_model(tmp_path / "model")
    (model / "README.md").write_text("a card")
    (model / "optimizer.pt").write_bytes(b"x")
    (model / "own.py").write_text("code = True")
    files = description(model, "float32")
    assert files["own.py"] == b"code = True" and {"README.md", "optimizer.pt", WEIGHTS}.isdisjoint(files)
    assert all(content == (model / name).read_bytes() for name, content in files.items() if name != "config.json")
    edit(model / "config.json", torch_dtype="bfloat16", dtype=None)
    config = json.loads(description(model, "float32")["config.json"])
    assert config["dtype"] == config["torch_dtype"] == "float32"


def test_a_run_without_mlflow_is_not_exported_to_it(
    chat_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(chat_run), "--mlflow", "--output", str(tmp_path / "out")]) == 2
    assert "tracking.uri" in capsys.readouterr().err and not (tmp_path / "out").exists()
    copied_to(chat_run, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert main(["export", str(last(chat_run)), "--mlflow", "--output", str(tmp_path / "out")]) == 2
    assert "python -m trainer --sync" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_mlflow_model_of_a_run_is_loaded_back_and_generates(
    tied_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow
    from mlflow.tracking import MlflowClient

    from trainer.tracking.mlflow_copy import sync

    run, uri = Path(shutil.copytree(tied_run, tmp_path / "run")), f"sqlite:///{tmp_path / 'mlflow.db'}"
    copied_to(run, uri)
    sync(run)
    client, run_id = MlflowClient(uri), RunFolder(run).read_mirror()["run_id"]
    before = client.get_run(run_id)
    assert main(["export", str(run), "--mlflow"]) == 0
    folder, model_uri = capsys.readouterr().out.split()
    after = client.get_run(run_id)
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)
    assert [f"models:/{output.model_id}" for output in after.outputs.model_outputs] == [model_uri]
    logged = client.get_logged_model(model_uri.removeprefix("models:/"))
    assert logged.experiment_id == before.info.experiment_id and str(tmp_path) in logged.artifact_location

    mlflow.set_tracking_uri(uri)
    pipeline: Any = mlflow.transformers.load_model(model_uri)
    expected = AutoModelForCausalLM.from_pretrained(folder)
    ids = pipeline.tokenizer("4,7,3,2=26:", return_tensors="pt")
    greedy = {"max_new_tokens": 12, "do_sample": False}
    ours, theirs = (model.generate(**ids, **greedy) for model in (expected, pipeline.model))
    assert torch.equal(ours, theirs) and ours.shape[1] > ids["input_ids"].shape[1]
    assert pipeline("4,7,3,2=26:", **greedy)[0]["generated_text"].startswith("4,7,3,2=26:")


def copied_to(run: Path, uri: str) -> None:
    """Let the configuration of a finished run name an MLflow store."""
    from trainer.contract import run_yaml

    folder = RunFolder(run)
    config = folder.config()
    folder.config_file.write_text(run_yaml.dumps(config | {"tracking": config["tracking"] | {"uri": uri}}))
