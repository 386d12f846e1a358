"""Arithmetic of the GPU benchmark, and that no part takes another down."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import finished, last_line
from benchmarks.gpu.shapes import SHAPES, Shape, decode_bytes, train_flops
from trainer.contract.paths import ROOT


def test_weights_and_cache_are_those_of_qwen() -> None:
    small = SHAPES["qwen2.5-0.5b"]
    # q and o: 896^2 each, k and v: 896 x 128 each, three of 896 x 4864; 24 layers; the embedding is 151936 x 896.
    assert small.body == 24 * (2 * 896**2 + 2 * 896 * 128 + 3 * 896 * 4864) == 357_826_560
    assert small.head == 136_134_656
    assert small.cache_bytes == 2 * 2 * 24 * 128 == 12_288


def test_flops_and_bytes_by_hand() -> None:
    shape = Shape(layers=1, width=4, inner=2, heads=2, key_heads=1, vocabulary=10)
    assert shape.body == 4 * 2 * 6 + 3 * 4 * 2 == 72 and shape.head == 40
    assert train_flops(shape, computed=5, responses=3, pairs=15) == 6 * (72 * 5 + 40 * 3) + 12 * 4 * 15
    # Two steps read 112 weights of 2 bytes each; a row of 3 prompt tokens then has 3 and 4 of 8 bytes each behind it.
    assert decode_bytes(shape, rows=2, prompt=3, tokens=2) == 2 * 112 * 2 + 8 * 2 * (3 + 4)


def test_a_part_that_fails_or_hangs_keeps_what_it_had_found() -> None:
    program = """import json, time
for found in ({'a': 1}, {'a': 1, 'b': 2}):
    print(json.dumps(found))
print('no JSON', flush=True)
"""
    failed = finished([sys.executable, "-c", program + "raise MemoryError('too large')"], 60, last_line)
    assert (failed["a"], failed["b"], failed["error"]) == (1, 2, "MemoryError: too large")
    late = finished([sys.executable, "-c", program + "time.sleep(60)"], 2, last_line)
    assert late["b"] == 2 and late["error"] == "ended after its 2 s"


def test_a_bare_machine_needs_neither_hydra_nor_mlflow_nor_vllm() -> None:
    absent = ("hydra", "mlflow", "vllm", "omegaconf", "submitit", "optuna", "peft", "math_verify")
    code = f"import sys, benchmarks.gpu.step; print([name for name in {absent!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path, monkeypatch, capsys) -> None:
    given = ["gpu", "--device", "cpu", "--shapes", "tiny", "--responses", "32", "--tokens", "8", "--no-tests"]
    monkeypatch.setattr(sys, "argv", [*given, "--output", str(tmp_path)])
    assert main() == 0
    (path,) = tmp_path.glob("*.json")
    ceilings, tiny = json.loads(path.read_text())["parts"]
    assert ceilings["matmul_tflops"] > 0 and tiny["done"] and tiny["shares_prompts"]
    assert tiny["logprob_gap_mean"] < 0.05 and tiny["sampled_tokens"] <= 32 * 8
    assert "| tiny | 32 x 8 |" in capsys.readouterr().out
