#!/usr/bin/env bash
# The study of docs/real_model.md: SmolLM2-135M learns to add. Before the first run: make real-model reasoning-gym.
# Two runs at a time, one thread and 6 GB each; ten minutes a run. Started again, it runs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
SEEDS=${SEEDS:-range(20,22)}
export OMP_NUM_THREADS=1
common=(study=real "seed=$SEEDS" launcher.slots=2 hardware.num_threads=1 output=outputs/real)
"$PYTHON" sweep.py -m factor=off_policy_updates optim.updates_per_rollout=1,4 "${common[@]}"
"$PYTHON" sweep.py -m factor=method method=grpo,small/kl_cov,qae "${common[@]}"
"$PYTHON" sweep.py -m factor=clip_high surrogate.clip_high=0.2,0.5 optim.updates_per_rollout=4 "${common[@]}"
"$PYTHON" sweep.py -m factor=advantage_weights 'weight.sign={positive:1,negative:0},{positive:1,negative:1},{positive:0,negative:1}' \
    optim.updates_per_rollout=4 "${common[@]}"
