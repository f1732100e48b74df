# `make demo` and `make test` need nothing but Python 3.11 or newer: they make .venv, install the
# pinned packages of constraints.txt, and the library itself. A second call installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test test-slow lint format bench docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       exact data, training, leaderboard, a quench with pictures, a model card"
	@echo "make test       the test suite (under ten minutes on two cores)"
	@echo "make test-slow  the long checks"
	@echo "make lint       ruff and mypy"
	@echo "make bench      measure speeds and rewrite benchmarks/*.json"
	@echo "make docs       the reference of all public names, as pages in build/reference"
	@echo "make clean      remove .venv, caches and demo/"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, not ' + sys.version.split()[0] + '; call make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e ".[dev,escnn,dask]"
	$(BIN)/python -c "import sys; sys.exit(sys.version_info >= (3, 13))" \
	  && $(PIP) install --quiet --no-deps -c constraints.txt escnn \
	  || echo "escnn left out: it needs numpy 1, which ends with Python 3.12"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m latticezoo.training.demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# A type checker sees latticezoo.* in an installed copy only, not through the folder mapping.
	rm -rf build && $(PIP) install --quiet --no-deps --no-build-isolation --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy --namespace-packages --explicit-package-bases -p latticezoo

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@for script in benchmarks/*.py; do \
	  echo $$script; $(BIN)/python $$script || left="$$left $$script"; \
	done; \
	if [ -n "$$left" ]; then \
	  echo "not measured (the first lines of each say what arguments it takes):$$left"; exit 1; \
	fi

docs: $(STAMP)
	$(BIN)/python -m latticezoo.training.reference --out build/reference

clean:
	rm -rf $(VENV) build demo .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
