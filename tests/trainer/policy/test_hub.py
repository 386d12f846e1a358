"""A hub name: brought here when the hub answers, from the cache when it does not, and a sentence within seconds when
there is neither. The hub is a server of this test; the code that asks it runs in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from runs import run_config

from trainer.contract.config import ModelConfig
from trainer.contract.paths import SHIPPED_MODEL
from trainer.setup.examine import model_problem

COMMIT = "0123456789abcdef0123456789abcdef01234567"

ASK = """
import json, sys, time
from trainer.contract.config import ModelConfig
from trainer.contract.settings import ConfigError
from trainer.setup.examine import model_problem
from trainer.policy.model import load_model, load_tokenizer
answers = []
for name in sys.argv[1:]:
    config, start = ModelConfig(path=name), time.perf_counter()
    problem = model_problem(config)
    answers.append([problem or load_tokenizer(config).decode(load_tokenizer(config)("4,7=11:")["input_ids"]),
                    time.perf_counter() - start])
    if not problem:
        load_model(config)
print(json.dumps(answers))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download asks: what is in ``own/model``, and its files. ``own/config`` lacks weights."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/own/"):
            name = path.split("/")[4]
            files = [file.name for file in SHIPPED_MODEL.iterdir() if name == "model" or file.suffix != ".safetensors"]
            listed = [{"rfilename": file} for file in [*files, "original/consolidated.pth", "README.md"]]
            tree = [
                {"type": "file", "path": file, "oid": "0" * 40, "size": (SHIPPED_MODEL / file).stat().st_size}
                for file in files
            ]
            info = {
                "id": f"own/{name}",
                "sha": COMMIT,
                "siblings": listed,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            self._send(200, json.dumps(tree if "/tree/" in path else info).encode())
        elif path.startswith("/own/model/resolve/"):
            self._send(200, (SHIPPED_MODEL / path.rpartition("/")[2]).read_bytes(), etag=path.rpartition("/")[2])
        elif path.startswith("/api/models/gated/"):
            self._send(403, b"{}", code="GatedRepo")
        else:
            self._send(404, b"{}", code="RepoNotFound")

    def _send(self, status: int, body: bytes, etag: str | None = None, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if code is not None:
            self.send_header("X-Error-Code", code)
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """Somebody who takes every call and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(128)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def ask(endpoint: str, home: Path, *names: str, **more: str) -> list[tuple[str, float]]:
    """The problem or the tokenizer's answer for each name, and how long it took, s."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "2"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=os.environ | own | more, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return [(text, seconds) for text, seconds in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.slow
def test_a_model_comes_from_the_hub_once_and_then_from_the_cache(hub: str, silent: str, tmp_path: Path) -> None:
    found, nothing, unknown, gated = ask(hub, tmp_path, "own/model", "own/config", "other/model", "gated/model")
    assert found[0] == "4,7=11:"
    assert nothing[0] == "model.path='own/config' holds no weights on the hub: give a causal language model"
    assert unknown[0].startswith("model.path='other/model' is no folder here, and the hub refuses it: ")
    assert unknown[0].endswith("or it is private: check the name, or say who you are (`hf auth login`)")
    assert gated[0] == (
        "model.path='gated/model' is no folder here, and the hub refuses it: it is gated: accept its licence at "
        f"{hub}/gated/model, then say who you are (`hf auth login`, or set HF_TOKEN)"
    )
    ((text, seconds),) = ask(silent, tmp_path, "own/model")
    assert text == "4,7=11:" and seconds < 30
    ((text, _),) = ask(silent, tmp_path, "own/model", HF_HUB_OFFLINE="1")
    assert text == "4,7=11:"
    files = {file.name for file in tmp_path.rglob("snapshots/*/*")}
    assert "README.md" not in files and "model.safetensors" in files
    next(tmp_path.rglob("snapshots/*/model.safetensors")).unlink()
    next(tmp_path.rglob("blobs/model.safetensors")).unlink()
    ((text, _),) = ask(silent, tmp_path, "own/model", HF_HUB_OFFLINE="1")
    assert "in the hub's cache, and HF_HUB_OFFLINE is set" in text


@pytest.mark.slow
def test_without_a_network_a_hub_name_is_a_sentence_within_seconds(silent: str, tmp_path: Path) -> None:
    answers = ask(silent, tmp_path, "own/model", "own/model", "a/b/c")
    for text, seconds in answers[:2]:
        assert text.startswith(
            "model.path='own/model' is no folder here and not in the hub's cache, and the hub did not"
        )
        assert "within 2 s: give the folder of a saved model" in text and "HF_HUB_OFFLINE=1" in text
        assert seconds < 20
    assert answers[1][1] < 0.1, "and the next level of a sweep does not wait again"
    assert "cannot be a hub name" in answers[2][0]
    ((text, _),) = ask(silent, tmp_path, "own/model", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in text


def test_the_check_before_the_queue_says_it(silent: str, tmp_path: Path) -> None:
    own = {"HF_ENDPOINT": silent, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "1"}
    requests = [{"config": run_config({"model.path": "own/model", "optim.lr": rate})} for rate in (1e-3, 1e-4, 1e-5)]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--check"],
        input="\n".join(map(json.dumps, requests)),
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout.count("the hub did not answer within 1 s") == 3


def test_a_copy_without_weights_is_still_no_model(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert "holds no model" in str(model_problem(ModelConfig(path=str(tmp_path / "model"))))
