#!/usr/bin/env bash
# The testbed of docs/model_card.md: do the published signs come out? Five seeds that were not used for choosing anything.
# Two runs at a time, one thread each. Started again, it runs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1
common=('seed=range(10,15)' launcher.slots=2 hardware.num_threads=1 output=outputs/testbed)
"$PYTHON" sweep.py -m factor=off_policy_updates "${common[@]}"
"$PYTHON" sweep.py -m factor=advantage_weights 'weight.sign={positive:1,negative:0},{positive:0,negative:1}' "${common[@]}"
"$PYTHON" sweep.py -m factor=clip_high surrogate.clip_high=0.2,0.5 "${common[@]}"
"$PYTHON" sweep.py -m factor=data_diversity task.num_prompts=8,64,512 "${common[@]}"
