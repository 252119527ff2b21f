# `make help` lists the targets. Each one sets up what it needs in .venv first.
# Another Python: make PYTHON=python3.13 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-newest lint bench docs clean
.NOTPARALLEL:

help:
	@echo "make demo         run the demo (examples/demo.py)"
	@echo "make test         lint, type-check and run the tests"
	@echo "make test-newest  run the tests on the newest JAX (tools/newest-jax)"
	@echo "make lint         lint, check the formatting and type-check"
	@echo "make bench        run the memory benchmark (benchmarks/memory.py)"
	@echo "make docs         build the documentation (build/site/index.html)"
	@echo "make clean        remove the virtual environment and the caches"

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.demo

test: lint
	$(BIN)/python -m pytest -q -n 2

test-newest:
	tools/newest-jax

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.memory

docs: $(VENV)/docs.stamp
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -name __pycache__ -type d -exec rm -rf {} +

# The stamps: an environment and the extras in it. Each is installed once, and
# again when pyproject.toml changes.

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "autotm-jax needs Python 3.11 or newer, and '$(PYTHON)' is" \
			"$$($(PYTHON) -c 'import sys; print(sys.version.split()[0])' \
			2>/dev/null || echo missing): name a newer" \
			"one with 'make PYTHON=/path/to/python3 $(MAKECMDGOALS)'." >&2; \
		exit 1; \
	}
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/demo.stamp: EXTRAS := cuda-compile
$(VENV)/test.stamp: EXTRAS := dev,cuda-compile
$(VENV)/bench.stamp: EXTRAS := cuda-compile,plots
$(VENV)/docs.stamp: EXTRAS := docs

$(VENV)/demo.stamp $(VENV)/test.stamp $(VENV)/bench.stamp $(VENV)/docs.stamp: pyproject.toml $(VENV)/made.stamp
	$(BIN)/python -m pip install -qq --editable '.[$(EXTRAS)]'
	@touch $@
