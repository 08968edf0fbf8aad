# Each target makes .venv and installs what it needs. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto --durations=10
unexport PYTHONDONTWRITEBYTECODE  # what pytest and Python compile is kept for the next process

.DEFAULT_GOAL := help
.PHONY: help app test test-all lint check bench

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/run: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -c "import vizapp.zoo; vizapp.zoo.describe_all()"  # kept in the cache folder: the first start is faster
	touch $@

.venv/test: .venv/run tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

app: .venv/run  ## serve the app on http://localhost:8501
	$(BIN)/python -m streamlit run streamlit_app.py

test: .venv/test  ## the fast tests (minutes)
	$(PYTEST) --dist worksteal

test-all: .venv/test  ## everything that needs no GPU: also slow tests and the browser
	$(PYTEST) --dist worksteal -m "not gpu and not browser and not families"
	$(BIN)/python -m pytest -m "browser and not gpu" --durations=10  # one process: one server and one Chromium

lint: .venv/test  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## lint, format, types, tests

bench: .venv/test  ## every benchmark: speed beside peers in the same run, the app's start, many people at once
	for script in $(filter-out benchmarks/timing.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done
