# Every target does its own set-up: `make figures` works on a fresh machine.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help venv figures test soak lint bench audit
help:
	@echo "make figures   rebuild every figure (scale: config/config.yaml; CORES=$(CORES))"
	@echo "make test      run the tests"
	@echo "make soak      the slow tests of the workflow too"
	@echo "make lint      check style, types and workflow"
	@echo "make bench     measure speed"
	@echo "make audit     check results against their records"
	@echo "make venv      only set up .venv from requirements.txt"

venv: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found; Python 3.11 or newer is needed: make PYTHON=python3.12 venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@if [ -d .git ] || git rev-parse --git-dir >/dev/null 2>&1; then \
		$(BIN)/dvc remote modify --quiet --local store url "$(CURDIR)/dvc-store"; fi
	@touch $@

figures: venv
	$(RUN) snakemake --cores $(CORES)

test: venv
	$(RUN) pytest

soak: venv
	$(RUN) pytest -m "soak or not soak"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/mypy
	$(RUN) snakemake -n --quiet all --config scale=smoke

bench: venv
	$(RUN) python bench/implicit.py
	$(RUN) python bench/omd.py
	$(RUN) python bench/rpg.py

audit: venv
	$(RUN) diffmbrl audit
