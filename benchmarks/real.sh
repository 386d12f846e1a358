#!/usr/bin/env bash
# The study of docs/real_model.md: SmolLM2-135M learns to add. Before the first run: make real-model reasoning-gym.
# As many runs at a time as cores and memory allow (8 GB each), one thread a run. Started again, it runs only what is missing.
# Then: python -m benchmarks.real_table outputs/records/real
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
SEEDS=${SEEDS:-range(20,22)}
OUTPUT=${OUTPUT:-outputs/real}
export OMP_NUM_THREADS=1
study() {
    local name=$1
    shift
    "$PYTHON" sweep.py -m study=real "study.name=$name" "seed=$SEEDS" hardware.num_threads=1 "output=$OUTPUT" "$@"
    "$PYTHON" -m dashboards record "$name" --uri "sqlite:///$OUTPUT/mlflow.db" --output "outputs/records/real/$name"
}
study updates factor=off_policy_updates optim.updates_per_rollout=1,4
study interventions factor=method method=grpo,small/kl_cov,qae
study signs factor=advantage_weights 'weight.sign={positive:1,negative:0},{positive:1,negative:1},{positive:0,negative:1}' \
    optim.updates_per_rollout=4
study upper_clip factor=clip_high surrogate.clip_high=0.2,0.5 optim.updates_per_rollout=4
