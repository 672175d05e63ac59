# Everything runs in .venv, made from pyproject.toml on the first call and again when it changes.
PYTHON ?= python3
# The version of the GPU machine of benchmarks/gpu.sh.
PYTHON312 ?= python3.12
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup maniskill mjx browser train walk test test-slow test-mjx test-maniskill test-trackers test-clusters lint type docs docs-serve bench figures gpu-wheels gpu-rehearsal clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY)  ## make .venv with everything that training and tests need

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[metaworld,dmc,mujoco,formats,export,hub,tensorboard,docs,dev]'
	@touch $@

# Torch first, on its own: as a dependency of another package it may bring gigabytes of CUDA. The planners crash with
# NumPy 2.
maniskill:  ## make .venv-maniskill, the interpreter of the maniskill tasks (2 GB)
	$(PYTHON) -m venv .venv-maniskill
	.venv-maniskill/bin/python -m pip install --quiet --upgrade pip
	.venv-maniskill/bin/python -m pip install --quiet torch==2.13.0
	.venv-maniskill/bin/python -m pip install --quiet mani_skill==3.0.1 numpy==1.26.4

# Its MuJoCo conflicts with that of the other suites.
mjx:  ## make .venv-mjx, the interpreter of agent and simulators for the mjx tasks
	$(PYTHON) -m venv .venv-mjx
	.venv-mjx/bin/python -m pip install --quiet --upgrade pip
	.venv-mjx/bin/python -m pip install --quiet --editable '.[mjx,dev]'

browser: $(READY)  ## install the headless browser of the HTML report's tests (as root, on Debian; 300 MB)
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	for name in chromium-headless-shell chromium chromium-browser google-chrome; do \
		command -v $$name > /dev/null && exit; \
	done; apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium-headless-shell

train: $(READY)  ## the main job: learn to walk from 10 demonstrations
	$(BIN)/cdred train dmc/walker-walk --demos 10 --seeds 0

# From a wheel in a virtual environment of its own, so that nothing of this checkout is used by accident.
walk:  ## a new user's way: install the wheel, record own data in four formats, train, evaluate, act at 20 Hz
	rm -rf build/walk
	$(PYTHON) -m venv build/walk/venv
	build/walk/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/walk .
	build/walk/venv/bin/python -m pip install --quiet "$$(echo build/walk/cdred-*.whl)[formats]"
	cp examples/own_data.py build/walk/
	cd build/walk && venv/bin/python own_data.py --out cart

# A process per core: compiling is most of what the tests do.
test: $(READY)  ## all tests but the slow ones
	$(BIN)/python -m pytest -m 'not slow' --numprocesses auto --maxprocesses 8 --dist worksteal

test-slow: $(READY)  ## the slow ones: real trainings, all simulators
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m slow

# CI runs none of the following four, which need interpreters of their own.
test-mjx: mjx  ## all tests of the mjx suite, in .venv-mjx
	.venv-mjx/bin/python -m pytest tests/envs/suites/test_mjx.py

test-maniskill: $(READY) maniskill  ## all tests of the maniskill suite, slow ones included, with .venv-maniskill
	CDRED_MANISKILL_PYTHON=$(CURDIR)/.venv-maniskill/bin/python $(BIN)/python -m pytest tests/envs/suites/test_maniskill.py

# Not in .venv: both need dozens of packages, and trackio an older Pillow.
test-trackers:  ## all tests of the experiment trackers, in .venv-trackers with wandb and trackio
	$(PYTHON) -m venv .venv-trackers
	.venv-trackers/bin/python -m pip install --quiet --upgrade pip
	.venv-trackers/bin/python -m pip install --quiet --editable '.[tensorboard,wandb,trackio,dev]'
	.venv-trackers/bin/python -m pytest tests/loggers/test_trackers.py tests/train/test_tracked_runs.py

# Ray alone is 80 MB.
test-clusters:  ## all tests of sweeps, slow ones included, in .venv-clusters with Ray and submitit
	$(PYTHON) -m venv .venv-clusters
	.venv-clusters/bin/python -m pip install --quiet --upgrade pip
	.venv-clusters/bin/python -m pip install --quiet --editable '.[ray,slurm,dev]'
	.venv-clusters/bin/python -m pytest tests/sweep

lint: $(READY)  ## style, formatting and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(READY)  ## types
	$(BIN)/pyright

docs: $(READY)  ## build the documentation site in build/site, and check its links
	$(BIN)/python docs/site/build_site.py

docs-serve: $(READY)  ## serve the documentation site on this machine; run it again after a change of a page
	$(BIN)/python docs/site/build_site.py --serve

bench: $(READY)  ## simulators' speed beside EnvPool's, and that of updates, plans and a whole loop
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/vector_env.py
	$(BIN)/python benchmarks/executors.py
	$(BIN)/cdred bench update
	$(BIN)/cdred bench plan
	$(BIN)/cdred bench seeds
	$(BIN)/cdred bench loop

figures: $(READY)  ## redraw results/plots from the files in results
	$(BIN)/python benchmarks/figures.py

gpu-wheels: .venv-gpu/.ready  ## pack and check what a GPU machine without a network lacks, for benchmarks/gpu.sh
	.venv-gpu/bin/python benchmarks/gpu_packages.py

# Only what that machine has.
.venv-gpu/.ready: benchmarks/gpu_requirements/machine.txt
	$(PYTHON312) -m venv --clear .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --requirement $<
	@touch $@

gpu-rehearsal: gpu-wheels  ## all stages of benchmarks/gpu.sh with small networks, on what the GPU machine has
	for stage in a b c d; do \
		PYTHON=.venv-gpu/bin/python benchmarks/gpu.sh $$stage build/gpu-rehearsal --rehearse || exit 1; \
	done

clean:  ## remove .venv and caches
	rm -rf .venv .venv-gpu .venv-trackers .venv-clusters .gpu .cache .pytest_cache .ruff_cache .import_linter_cache
