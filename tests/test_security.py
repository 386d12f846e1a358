"""Nothing that was read runs: no response, no checkpoint, no model's own code unless asked, no file of a run folder."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.contract.config import ModelConfig
from trainer.contract.paths import ROOT, SHIPPED_MODEL
from trainer.contract.settings import ConfigError
from trainer.policy.model import load_model

PACKAGES = ("trainer", "sweeps", "dashboards")
RUNS_WHAT_IT_READS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "code", "codeop", "runpy"}
"""Modules whose business is to turn bytes or text into running code."""

CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))] + [ROOT / "sweep.py"]


def suspects(path: Path) -> Iterator[str]:
    """Every place of a file that could run what it reads."""
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{where} imports {name}" for name in names if name.partition(".")[0] in RUNS_WHAT_IT_READS)
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in CALLS or name.endswith(".read_pickle"):
            yield f"{where} calls {name}"
        if name == "torch.load" and given.get("weights_only") != "True":
            yield f"{where} loads without weights_only"
        if name == "yaml.load" and "Safe" not in given.get("Loader", ""):
            yield f"{where} loads YAML with a loader that may build objects"
        if name.endswith(("np.load", "numpy.load")) and given.get("allow_pickle") == "True":
            yield f"{where} loads pickled arrays"
        if given.get("shell") == "True":
            yield f"{where} hands text to a shell"
        if given.get("trust_remote_code") == "True":
            yield f"{where} trusts code that comes with a model"


def test_no_source_runs_what_it_reads() -> None:
    sandboxed = {ROOT / "trainer" / "tasks" / "sandbox" / name for name in ("examine.py", "respond.py")}
    found = [suspect for path in sources() if path not in sandboxed for suspect in suspects(path)]
    # These copy configurations in memory that way, faster than copy.deepcopy; what they load is what they dumped a
    # moment before, and never comes from a file.
    copying = [ROOT / "sweeps" / name for name in ("compose/compose.py", "plugins/hydra_plugins/rlvr/components.py")]
    assert not any("pickle.load(" in path.read_text() for path in copying)
    assert all(suspect.endswith("imports pickle") for suspect in found)
    assert sorted(suspect.partition(":")[0] for suspect in found) == sorted(path.name for path in copying)


def test_what_runs_responses_is_started_in_the_sandbox_alone() -> None:
    """The two programs that do run what they read are imported by nothing; only their paths are used."""
    for name in ("examine", "respond"):
        assert any(suspects(ROOT / "trainer" / "tasks" / "sandbox" / f"{name}.py"))
        pattern = re.compile(rf"import .*\b{name}\b.*sandbox|sandbox\.{name}\b|sandbox import .*\b{name}\b")
        assert [path.name for path in sources() if pattern.search(path.read_text())] == []


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    bad = [
        *("import pickle", "from dill import loads", "eval(x)", "os.system(x)", "torch.load(x)"),
        *("yaml.load(x, Loader=yaml.Loader)", "np.load(x, allow_pickle=True)", "run(x, shell=True)"),
        "from_pretrained(x, trust_remote_code=True)",
    ]
    good = ["import json", "torch.load(x, weights_only=True)", "yaml.load(x, Loader=yaml.SafeLoader)", "model.eval()"]
    (tmp_path / "bad.py").write_text("\n".join(bad))
    (tmp_path / "good.py").write_text("\n".join(good))
    assert len(list(suspects(tmp_path / "bad.py"))) == len(bad)
    assert list(suspects(tmp_path / "good.py")) == []


HOSTILE_RESPONSES = (
    "__import__('os').system('touch owned')",
    "\\boxed{__import__('os').system('touch owned')}",
    "\\boxed{9**9**9**9}",
    "\\boxed{\\frac{1}{0}}",
    "1e999999999",
    "().__class__.__base__.__subclasses__()",
    "exec(open('owned', 'w').write(''))=26",
    "4*7=28,28-2=__import__('os').getpid()",
    "4**7=16384",
    "9" * 100_000,
    "(" * 50_000,
    "\\boxed{" * 20_000,
    "{}{0.__class__}%s%n${jndi:ldap://x}`touch owned`;$(touch owned)",
    "\x00\ud800\u202e\n\r\x1b[2J",
    "#### 26\n```python\nimport os; os.remove('run.yaml')\n```",
)

JUDGE = """
import json, sys
from trainer.contract.components import build_component
from trainer.batch.types import Prompt
config, prompts, responses = json.loads(sys.stdin.read())
task = build_component(config, "task")
prompts = task.train_prompts()[:2] + [p for suite in task.suites().values() for p in suite[:1]]
for prompt in prompts:  # whatever a first call imports
    task.verify(prompt, "1")
    task.verify(prompt, "\\\\boxed{x+y}")  # starts the process that does algebra, which test_grader.py is about
FORBIDDEN = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.")
def watch(event, arguments):
    if event.startswith(FORBIDDEN):
        sys.stderr.write(f"{event} {arguments!r}"[:300])
        import os
        os._exit(3)
sys.addaudithook(watch)
rewards = [task.verify(prompt, response).reward for prompt in prompts for response in responses]
sys.stdout.write(json.dumps(rewards))
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "task").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_reward_runs_a_response(path: Path, tmp_path: Path) -> None:
    """Python tells an audit hook of every import, compilation, execution, opened file, process and connection."""
    import yaml

    config = yaml.safe_load(path.read_text())
    for name in config.pop("defaults", []):
        if name != "_self_" and isinstance(name, str):
            config = yaml.safe_load(path.with_name(f"{name}.yaml").read_text()) | config
    if config["_target_"].endswith("CodeTask"):
        pytest.skip("its responses do run, in the sandbox of tests/trainer/tasks/test_code.py")
    if "instructions" in config["_target_"]:
        pytest.skip("its rules run in the processes of the verifier pool, which this hook does not see")
    if "reasoning_gym" in config["_target_"]:
        pytest.importorskip("reasoning_gym", reason="run `make reasoning-gym`")
    if "jsonl" in config["_target_"]:
        data = tmp_path / "train.jsonl"
        data.write_text('{"question": "q", "answer": "26"}\n')
        config |= {"path": str(data), "suite_paths": {"heldout": str(data)}, "suite_settings": {}}
        config |= {"question_field": "question", "answer_field": "answer"}
    if "equations" in config["_target_"]:
        data = tmp_path / "rows.jsonl"
        data.write_text('{"nums": [4, 7], "target": 11}\n' * 3)
        config |= {"path": str(data), "num_heldout": 1}
    asked = json.dumps([config, [], HOSTILE_RESPONSES])
    done = subprocess.run(
        [sys.executable, "-c", JUDGE], input=asked, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rewards = json.loads(done.stdout)
    assert len(rewards) >= 2 * len(HOSTILE_RESPONSES)
    right = {0, 1} if "jsonl" in config["_target_"] else {0}  # `#### 26` is the correct answer to the JSONL question
    assert set(rewards) <= right
    assert not (ROOT / "owned").exists()


@pytest.fixture
def model_with_code(tmp_path: Path) -> Path:
    """The shipped model, its configuration now naming a Python file of its own."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED_MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": code}))
    (folder / "own.py").write_text(
        "from transformers import Qwen3Config, Qwen3ForCausalLM\n"
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class OwnConfig(Qwen3Config):\n    model_type = 'own'\n"
        "class Own(Qwen3ForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder


def test_code_that_comes_with_a_model_does_not_run(model_with_code: Path, tmp_path: Path) -> None:
    assert not ModelConfig().trust_remote_code
    with pytest.raises(ConfigError, match="custom code"):
        load_model(ModelConfig(path=str(model_with_code)))
    assert not (tmp_path / "ran").exists()


def test_code_that_comes_with_a_model_runs_when_asked_for(
    model_with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    load_model(ModelConfig(path=str(model_with_code), trust_remote_code=True))
    assert (tmp_path / "ran").exists(), "so the test above looks at the right place"
