# stnbench: `make help` lists what can be typed. Every target sets up .venv by itself where it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# dev brings what tests, lint and docs need; EXTRAS= leaves it out, for machines that only train.
EXTRAS ?= dev
STAMP := $(VENV)/.stnbench-installed$(if $(TORCH),-$(TORCH))$(if $(EXTRAS),$(if $(filter-out dev,$(EXTRAS)),-$(EXTRAS)),-lean)

# Which torch: that of PyPI is built for CUDA 13.0 and needs a driver of 580 or newer; cu126 runs on drivers from 525 on, and
# cpu takes no CUDA along.
TORCH_INDEX := https://download.pytorch.org/whl
$(if $(TORCH),$(if $(filter $(TORCH),cpu cu126 cu130),,$(error TORCH is '$(TORCH)': use cpu, cu126 or cu130)))

# What a sweep runs on, and how large; both have embedded defaults (signs, quick).
overrides = $(if $(DATASET),dataset=$(DATASET)) $(if $(SCALE),scale=$(SCALE)) $(if $(SEEDS),seeds=$(SEEDS)) $(ARGS)
engine = $(if $(ENGINE),--engine $(ENGINE))

.DEFAULT_GOAL := help
.PHONY: help setup sweep plan report site status ui test test-fast test-thorough test-full test-exhaustive test-scheduler coverage lint docs format bench-orchestrator bench-training bench-store bench-statistics bench-gpu test-gpu chaos chaos-shared compare check lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'
	@echo
	@echo "variables: SWEEP=name DATASET=signs|gtsrb SCALE=smoke|quick|paper SEEDS=3 ENGINE=local|inline|ray|slurm ARGS='key=value ...'"

setup: $(STAMP) ## make or refresh .venv from requirements.lock (TORCH=cpu|cu126|cu130: another build of torch; EXTRAS=: without tools of developers)

$(STAMP): pyproject.toml requirements.lock
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stnbench needs Python 3.11 or newer: make PYTHON=python3.12 setup")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(if $(TORCH),$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --force-reinstall --no-deps --index-url $(TORCH_INDEX)/$(TORCH) torch torchvision)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.$(if $(EXTRAS),[$(EXTRAS)])' $(if $(TORCH),--extra-index-url $(TORCH_INDEX)/$(TORCH))
	@touch $@

sweep: $(STAMP) ## run a sweep to its end and print its leaderboard: make sweep SWEEP=locnet_sizes
	@$(BIN)/python -m stnbench.sweep $(if $(SWEEP),$(SWEEP),$(error name a sweep, for example: make sweep SWEEP=locnet_sizes)) $(overrides) $(engine)

plan: $(STAMP) ## list configurations, cost and expected time of a sweep; trains nothing
	@$(BIN)/python -m stnbench.sweep $(if $(SWEEP),$(SWEEP),$(error name a sweep, for example: make plan SWEEP=locnet_sizes)) $(overrides) $(engine) --plan

report: $(STAMP) ## leaderboards of all sweeps, to the terminal and to reports/
	@$(BIN)/python -m stnbench.report $(SWEEP)

site: $(STAMP) ## pages of all sweeps in the store, with an index, in build/pages/ (any web server of files can serve it)
	@$(BIN)/python -m stnbench.report --publish build/pages $(SWEEP)

status: $(STAMP) ## states, progress and failures of all sweeps
	@$(BIN)/python -m stnbench.status $(SWEEP)

ui: $(STAMP) ## MLflow's pages on http://127.0.0.1:5000 (PORT=... for another port)
	@$(BIN)/python -m stnbench.mirror --serve --port $(or $(PORT),5000)

# Bytecode is kept beside the modules even where the environment forbids it: to compile ours and to rewrite the assertions
# of tests takes a third of the processor time of test-fast, in each process.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal
UP_TO_THOROUGH = not exhaustive and not scheduler and not cuda
UP_TO_TEST = not thorough and $(UP_TO_THOROUGH)

test: $(STAMP) ## every promise once, the main ways end to end (a few minutes on two cores)
	@$(PYTEST) -m '$(UP_TO_TEST)'

# What decides: layers, core, specifications, configuration, planners, statistics, store, the orchestrator's state machine
# and reports; of what needs torch, one small training.
FAST = tests/architecture $(addprefix tests/unit/,core spec config planning analysis store orchestration report training/test_learning.py)

test-fast: $(STAMP) ## the inner loop: what decides, without subprocesses, and one small training (under a minute)
	@$(PYTEST) -m '(not slow or inner) and $(UP_TO_TEST)' $(FAST)

test-thorough: $(STAMP) ## what test leaves out for its time: every combination and every way end to end; CI runs it as well
	@$(PYTEST) -m 'thorough and $(UP_TO_THOROUGH)'

test-full: $(STAMP) ## test and test-thorough in one
	@$(PYTEST) -m '$(UP_TO_THOROUGH)'

# The share of lines and branches below which make coverage fails. Traced tests take up to twice as long: they may wait longer.
COVERAGE_MIN ?= 95

coverage: $(STAMP) ## lines and branches that test and test-thorough run, also in subprocesses (about 40 minutes; fails below COVERAGE_MIN)
	@TEST_PATIENCE=3 COVERAGE_FILE=$(CURDIR)/build/coverage/data $(PYTEST) -m '$(UP_TO_THOROUGH)' -o timeout=600 --cov --cov-report=term-missing --cov-report=html:build/coverage/html --cov-fail-under=$(COVERAGE_MIN)

test-exhaustive: $(STAMP) ## a fault at every single call, every documented command; CI runs it before a release
	@$(PYTEST) -m 'exhaustive'

test-scheduler: $(STAMP) ## a Slurm that dies in every way, and a real one where it is installed (about 10 minutes)
	@$(PYTEST) -m 'scheduler'

lint: $(STAMP) ## format, lint, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation site into build/site; warnings are errors
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/site

format: $(STAMP) ## rewrite the code as lint wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-orchestrator: $(STAMP) ## overhead per trial and slot use, beside four other ways (about 6 minutes)
	@$(BIN)/python -P benchmarks/orchestrator.py

bench-training: $(STAMP) ## images a second beside a bare loop, the textbook way and the machine's peak (about 5 minutes)
	@$(BIN)/python -P benchmarks/training.py

bench-statistics: $(STAMP) ## error rates, coverage and power of methods of comparison (about a quarter of an hour on an idle core)
	@$(BIN)/python benchmarks/statistical_methods.py

bench-store: $(STAMP) ## a plan of 1,000 configurations, status and report of a store of 10,000 trials (about 4 minutes)
	@$(BIN)/python -P benchmarks/store.py

bench-gpu: $(STAMP) ## steps, sharing and 2015's rows on a GPU beside its limits (about 5 minutes; needs a GPU)
	@$(BIN)/python -P benchmarks/gpu.py

test-gpu: $(STAMP) ## the tests that need a GPU
	@$(BIN)/python -m pytest -q -m 'cuda' tests/cuda

chaos: $(STAMP) ## 60 trials under at least 200 random faults (about 25 minutes; the tests run a short version)
	@CHAOS_TRIALS=60 CHAOS_FAULTS=200 $(BIN)/python -m pytest -q -s tests/e2e/test_chaos.py

chaos-shared: $(STAMP) ## two sweeps on one PostgreSQL store, 200 random kills (about 15 minutes; the tests run a short version)
	@SHARED_KILLS=200 .ci/with-postgres $(BIN)/python -m pytest -q -s tests/e2e/test_shared_store.py

compare: $(STAMP) ## train six tiny trials here and at another commit, compare bit for bit: make compare BASE=main (a minute)
	@$(BIN)/python -P benchmarks/compare_commits.py $(or $(BASE),main)

check: lint test ## lint and test, what .ci/run does

lock: ## solve requirements.lock again after a change of pyproject.toml, keeping versions (needs uv)
	uv pip compile --universal --python-version 3.11 --extra dev --extra ray --no-header --no-annotate --quiet pyproject.toml --output-file requirements.lock

clean: ## remove .venv and caches; runs/, data/ and reports/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
