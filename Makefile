# One environment, .venv, filled as far as a target needs it and again when setup.py changes.

PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test lint bench clean

help:  ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run.stamp  ## Simulates a log, trains, evaluates, publishes, serves, scores.
	@$(BIN)/python -m pipelines.run

test: .venv/dev.stamp  ## Runs the tests.
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: .venv/dev.stamp  ## Checks style, format and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/dev.stamp  ## Measures speed.
	@$(BIN)/python -m benchmarks

clean:  ## Removes the environment, caches and build leftovers; keeps data, runs and models.
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -m venv .venv

.venv/run.stamp: setup.py | $(BIN)/python
	@echo "Installing what training and serving need into .venv ..."
	@$(PIP) -e ".[train,server]"
	@touch $@

# What development needs includes what `run` needs.
.venv/dev.stamp: setup.py | $(BIN)/python
	@echo "Installing the development environment into .venv ..."
	@$(PIP) -e ".[dev]"
	@touch .venv/run.stamp $@
