# Everything a person runs here; `make help` lists it, plain `make` is `make test`.
# Each target sets up what it needs; nothing has to be installed first but Python 3.11+.

.DEFAULT_GOAL := test
.PHONY: help demo test soak bench format lint types contracts lock sbom audit clean

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Arguments for pytest or the demo: make test ARGS=tests/test_house.py
ARGS   ?=
# Tests run in this many processes, a file in one of them: one more than CI has cores, for many wait for others. A debugger wants 0.
WORKERS ?= 3

# What make set up, and for which pyproject.toml. Separate stamps: the demo does not wait for the tools of the tests.
RUNTIME := $(VENV)/.runtime-ready
TESTING := $(VENV)/.testing-ready

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME)  ## cluster, hub, node and two devices in this terminal; ctrl-c stops them
	@$(BIN)/python -m demo $(ARGS)

test: $(TESTING)  ## all that CI runs: format, lint, types, contracts, tests; warnings are errors
	@VENV='$(VENV)' scripts/setup-tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@# Collecting once leaves the tests' bytecode for all workers, which otherwise make it each; mypy leaves a core free.
	$(BIN)/pytest --collect-only -qq $(ARGS) >/dev/null 2>&1 & $(BIN)/mypy; code=$$?; wait; exit $$code
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

soak: $(TESTING)  ## the tests that take minutes to hours
	@VENV='$(VENV)' scripts/setup-tools
	$(BIN)/pytest -m soak --timeout=0 $(ARGS)

bench: $(TESTING)  ## measure what is promised, on real processes, in ten minutes; docs/performance.md explains it
	@VENV='$(VENV)' scripts/setup-tools
	$(BIN)/python -m benchmarks $(ARGS)

format: $(TESTING)  ## rewrite the sources as ruff formats them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: $(TESTING)  ## ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(TESTING)  ## mypy --strict
	$(BIN)/mypy

contracts: $(TESTING)  ## who may import whom
	$(BIN)/lint-imports

lock:  ## requirements/*.txt anew from pyproject.toml: what a release installs, with hashes; asks the package index
	@PYTHON='$(PYTHON)' scripts/release lock

sbom:  ## a bill of materials of each extra in dist/, in CycloneDX' form
	@PYTHON='$(PYTHON)' scripts/release sbom

audit:  ## compare what a release installs with the known vulnerabilities; asks pypi.org
	@PYTHON='$(PYTHON)' scripts/release audit

clean:  ## caches, the environment and the fetched tools; not the demo's data
	rm -rf $(VENV) .tools build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml
	@PYTHON='$(PYTHON)' scripts/setup-venv '$(VENV)' edge,cloud,mapper,apiserver
	@touch $@

$(TESTING): $(RUNTIME)
	@PYTHON='$(PYTHON)' scripts/setup-venv '$(VENV)' all,dev
	@touch $@
