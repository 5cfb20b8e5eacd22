# Every target does its own set-up: `make figures` works on a fresh machine.
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?=
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
RUN := PATH="$(abspath $(BIN)):$$PATH"
# A file of tests stays on one worker, with what it shares; a worker takes about 1 GB of memory.
PYTEST := pytest --numprocesses $(CORES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help venv figures report test soak lint bench audit
help:
	@echo "make figures   rebuild every figure (scale: config/config.yaml; CORES=$(CORES))"
	@echo "make report    report.html: every verdict, its figure and what made it, on one page"
	@echo "make test      run the tests (up to 8 at once; CORES=$(CORES))"
	@echo "make soak      the slow tests too"
	@echo "make lint      check style, types and workflow"
	@echo "make bench     measure speed"
	@echo "make audit     check results against their records"
	@echo "make venv      only set up .venv from requirements.txt; EXTRAS=\"slurm gpu ssh webdav mjx\" adds"

venv: $(VENV)/.ready $(EXTRAS:%=$(VENV)/.extra-%)

# What an extra brings lies beside the lock; an extra that would change it is refused.
$(VENV)/.extra-%: $(VENV)/.ready
	@if command -v uv >/dev/null; then install="uv pip install --quiet --python $(BIN)/python"; \
	else install="$(BIN)/python -m pip install --quiet --disable-pip-version-check"; fi; set -ex; \
	$$install --no-build-isolation -e '.[$*]'; \
	$(BIN)/python -m diffmbrl.pipeline.environment
	@touch $@

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found; Python 3.11 or newer is needed: make PYTHON=python3.12 venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@if command -v uv >/dev/null; then \
		install="uv pip install --quiet --compile-bytecode --python $(BIN)/python"; \
	else \
		install="$(BIN)/python -m pip install --quiet --disable-pip-version-check"; \
	fi; set -ex; \
	$$install --require-hashes -r requirements.txt; \
	$$install --no-deps --no-build-isolation -e .
	@if [ -d .git ] || git rev-parse --git-dir >/dev/null 2>&1; then \
		$(BIN)/dvc remote modify --quiet --local store url "$(CURDIR)/dvc-store"; fi
	@touch $@

figures: venv
	$(RUN) snakemake --cores $(CORES)

report: venv
	$(RUN) diffmbrl page report.html

test: venv
	$(RUN) $(PYTEST)

soak: venv
	$(RUN) $(PYTEST) -m "soak or not soak"

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
	$(RUN) python bench/page.py
	$(RUN) python bench/workflow.py

audit: venv
	$(RUN) diffmbrl audit
