# Every target sets up what it needs: `make demo` and `make test` work from a fresh clone.
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PYTHONHASHSEED := 0

.PHONY: install demo test test-all lint figures derivations clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m experiments.demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/pytest -n 2 -m 'not slow'

test-all: lint
	$(BIN)/pytest -n 2

figures: install
	$(BIN)/python -m figures

derivations: install
	for f in derivations/[a-z]*.py; do $(BIN)/python -m derivations.$$(basename $$f .py) || exit 1; done

clean:
	rm -rf .venv runs build *.egg-info

# Copies a demo's numbers into the committed results and redraws the README's pictures from them.
.PHONY: publish
publish: demo
	cp runs/demo/results.json runs/demo/planar.safetensors experiments/results/demo/
	$(BIN)/python -m figures
