# Each target makes .venv and installs what it needs. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c requirements.lock
PYTEST := $(BIN)/python -m pytest -n auto --durations=10
# Tests that only compute. They take the time that the browser tests (one process: one server and one Chromium) leave.
PATIENT := tests/engine tests/zoo tests/test_every_network.py
unexport PYTHONDONTWRITEBYTECODE  # what pytest and Python compile is kept for the next process

.DEFAULT_GOAL := help
.PHONY: help app test test-all lint check bench bench-gpu site lock notebooks

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/run: requirements.txt requirements.lock
	@echo "Installing into .venv: 3.3 GB to download, 6.4 GB on disk, most of it torch with CUDA. This takes 3 to 15 minutes."
	@echo "Without CUDA it is 0.6 GB: README.md says how."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	@touch $@

.venv/test: .venv/run tests/requirements.txt docs/requirements.txt
	$(INSTALL) -r tests/requirements.txt -r docs/requirements.txt
	@touch $@

app: .venv/run  ## serve the app on http://localhost:8501; options as in make app ARGS="--port 8600"
	@$(BIN)/python -m vizapp app $(ARGS)

test: .venv/test  ## the fast tests, and of those with many cases some (minutes)
	$(PYTEST) --dist worksteal -m "not slow and not gpu and not browser and not families and not cases"

test-all: .venv/test  ## everything that needs no GPU: also slow tests and the browser
	$(PYTEST) --dist worksteal -m "not gpu and not browser and not families" $(PATIENT:%=--ignore=%)
	nice -n 19 $(PYTEST) --dist worksteal -m "not gpu and not browser and not families" $(PATIENT) & patient=$$!; \
	$(BIN)/python -m pytest -m "browser and not gpu" --durations=10 tests/browser || failed=$$?; \
	wait $$patient && exit $${failed:-0}

lint: .venv/test  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## lint, format, types, tests

site: .venv/test  ## the documentation as a site, in build/site
	$(BIN)/python -m mkdocs build --strict

lock: .venv/test  ## renew requirements.lock: the newest releases that the requirements allow, to be tested
	$(BIN)/python -m pip install --disable-pip-version-check uv
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-annotate --output-file requirements.lock requirements.txt tests/requirements.txt docs/requirements.txt

notebooks: .venv/test  ## run the notebooks in docs/notebooks and store them with their outputs (a minute)
	$(BIN)/python docs/notebooks.py

bench: .venv/test  ## every benchmark: speed beside peers in the same run, the app's start, many people at once
	for script in $(filter-out benchmarks/timing.py benchmarks/gpu.py benchmarks/relevance.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done

bench-gpu:  ## the benchmarks of methods on a GPU, in 6 minutes at most, with the Python that runs: it needs torch, not Streamlit
	$(PYTHON) benchmarks/gpu.py
