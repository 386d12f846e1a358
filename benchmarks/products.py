"""Float32 matrix products on this CPU: MKL, as PyTorch calls it, beside oneDNN, as ``trainer/policy/cpu_matmul.py``
does.

    python -m benchmarks.products [--rounds 9]

The shapes are those of the default run's linear layers (forwards, gradient of the input, gradient of the weight) and
of a tile of logits at Qwen2.5-0.5B's vocabulary. Interleaved; medians; GFLOP/s and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import NUM_THREADS, save
from trainer.policy.cpu_matmul import matmul

TOKENS = 6700
SHAPES = {
    f"{name} {inputs} to {outputs}": (*shape, transposed)
    for inputs, outputs in ((128, 128), (128, 384), (384, 128))
    for name, shape, transposed in (
        ("forward", (TOKENS, inputs, outputs), "right"),
        ("gradient of the input", (TOKENS, outputs, inputs), "neither"),
        ("gradient of the weight", (outputs, TOKENS, inputs), "left"),
    )
} | {"logits, a tile of 512 x 4096": (512, 896, 4096, "right")}


def seconds(product: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor) -> float:
    """One product."""
    start = time.perf_counter()
    product(left, right)
    return time.perf_counter() - start


def compare(rows: int, inner: int, columns: int, transposed: str, rounds: int) -> dict[str, float]:
    """GFLOP/s of both, medians of interleaved rounds, and the ratio."""
    left = torch.randn(inner, rows).T if transposed == "left" else torch.randn(rows, inner)
    right = torch.randn(columns, inner).T if transposed == "right" else torch.randn(inner, columns)
    products = {"mkl": torch.matmul, "onednn": matmul}
    times: dict[str, list[float]] = {name: [] for name in products}
    for _ in range(rounds + 1):
        for name, product in products.items():
            times[name].append(seconds(product, left, right))
    work = 2e-9 * rows * inner * columns
    rates = {name: work / statistics.median(values[1:]) for name, values in times.items()}
    return {**rates, "ratio": rates["onednn"] / rates["mkl"]}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    found = {name: compare(*shape, options.rounds) for name, shape in SHAPES.items()}
    for name, row in found.items():
        print(f"{name:38} MKL {row['mkl']:5.0f}  oneDNN {row['onednn']:5.0f} GFLOP/s  ratio {row['ratio']:.2f}")
    save("products", found)


if __name__ == "__main__":
    main()
