# instil: `make demo` shows the product, `make test` runs the tests, `make check` all checks.
# torch comes first and by name, so that a machine without a GPU gets the CPU build where its package
# source offers one; set TORCH to another requirement for a GPU build.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
BIN    := .venv/bin
STAMP  := .venv/.installed

.PHONY: demo test test-ui check check-static slow exhaustive bench format clean

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/instil run recipes/quickstart.yaml --again

test: $(STAMP)
	$(BIN)/python -m pytest

slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not exhaustive" --durations=40 --force-enable-socket

exhaustive: $(STAMP)
	$(BIN)/python -m pytest -m exhaustive --force-enable-socket

UI := .venv/.ui-installed

$(UI): tests/web/requirements.txt $(STAMP)
	command -v chromium || { apt-get update -qq; apt-get install -qq -y --no-install-recommends chromium; }
	$(BIN)/python -m pip install --quiet -r tests/web/requirements.txt
	touch $(UI)

test-ui: $(UI)
	$(BIN)/python -m pytest -n 0 -m browser --force-enable-socket --timeout=900

check: check-static test

check-static: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCH := .bench-venv

$(BENCH)/.installed: benchmarks/requirements.txt requirements.lock
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet "$(TORCH)"
	$(BENCH)/bin/python -m pip install --quiet -r requirements.lock
	$(BENCH)/bin/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $(BENCH)/.installed

bench: $(STAMP) $(BENCH)/.installed
	$(BIN)/python benchmarks/bench.py --peers $(BENCH)/bin/python
	$(BIN)/python benchmarks/busy.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .bench-venv runs
