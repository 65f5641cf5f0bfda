# Kazheng. `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Kazheng needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(INSTALLED)  ## create the environment from the hashed lock

run: install  ## start everything, read the sample pictures, keep serving until Ctrl-C
	@exec $(BIN)/kazheng up --demo

demo: install  ## the same, then stop; fails if a sample is misread
	@exec $(BIN)/kazheng up --demo --exit-after-demo

test: install  ## all tests
	$(BIN)/python -m pytest

check: install  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## print the figures of docs/benchmarks.md, but for the quota's
	$(BIN)/python -m benchmarks.intake
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.feeding

bench-batch: install  ## a batch of 100 000 images, from the first byte to the spreadsheet; about half an hour
	$(BIN)/python -m benchmarks.batch

bench-webhooks: install  ## deliveries a second, how soon they come, and beside bad receivers; about 5 minutes
	$(BIN)/python -m benchmarks.webhooks

bench-quota: install  ## the quota: used and refused, beside others; about 40 minutes
	$(BIN)/python -m benchmarks.quota

chaos: install  ## kill, cut and corrupt everything under load; about 20 minutes (SEED=…)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1)

lock:  ## pin the dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --upgrade --output-file requirements.lock

clean:  ## remove the environment and all local data
	rm -rf $(VENV) .kazheng build *.egg-info

.PHONY: help install run demo test check format bench bench-batch bench-webhooks bench-quota chaos lock clean
