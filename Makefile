# Two commands on a fresh machine: `make demo` and `make test`. Everything is set up on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test test-pool test-rest lint pool bench eval clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev,metrics,notify]'
	$(BIN)/python -m compileall -q doctor actions
	touch $(STAMP)

DEMO := fixtures/failed_runs/undeclared-helper-condorio

demo: setup  ## diagnose a bundled real failed run (exit code 1 of the doctor: it found something)
	@$(BIN)/pegasus-doctor analyze --map /data/flows/b03=$(DEMO) $(DEMO)/runs/sci/pegasus/wave/run0001 || test $$? -eq 1

test: setup  ## the whole suite
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target test-pool test-rest

test-pool: setup
	$(BIN)/python -m pytest -m pool

test-rest: setup
	$(BIN)/python -m pytest -m "not pool"

lint: setup  ## style, types and the rule library
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pegasus-doctor rules check
	$(BIN)/pegasus-doctor rules test

pool: setup  ## a real HTCondor pool on this machine to play with (`python -m tests.pool stop` ends it)
	@$(BIN)/python -m tests.pool start

bench: setup  ## figures against pegasus-analyzer, in the same run
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks watch
	$(BIN)/python -m benchmarks heal

eval: setup  ## how well the configured model does on labelled runs; without a key a scripted one shows cost and size
	$(BIN)/python -m benchmarks.eval

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
