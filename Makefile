# Two commands on a fresh machine: `make demo` and `make test`. Everything is set up on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

demo: setup  ## analyse a bundled real failed run
	$(BIN)/python tools/demo.py

test: setup  ## the whole suite
	$(BIN)/python -m pytest

lint: setup  ## style, types and the rule library
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pegasus-doctor rules check
	$(BIN)/pegasus-doctor rules test

bench: setup  ## figures against pegasus-analyzer, in the same run
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
