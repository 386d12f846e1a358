"""Tests and measurements on one GPU, with torch and transformers alone: no network, no vLLM, no MLflow.

    python -m benchmarks.gpu [--limit 240] [--responses 256] [--tokens 512] [--output benchmarks/records]

Every part is a process of its own with a share of the time limit, so none takes another down; what failed is in the
record as such. Parts: ``ceilings`` (a large matmul and a large copy), ``tests`` (``pytest -m gpu``) and one step of
each shape with random weights: sampling with the transformers engine, one update of GRPO, weight sync. Writes a dated
JSON and Markdown record, and prints its table last.
"""
