# Every target sets up what it needs: `make demo` and `make test` work from a fresh clone.
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PYTHONHASHSEED := 0

.PHONY: install demo test test-all test-integrations lint figures docs derivations benchmarks fuzz networks regime theorems pages coverage clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	# By path, so that the clone's folder, which is called as the package, does not hide it from the folder above.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --config-settings editable_mode=compat -e '.[dev,docs]'
	touch $@

demo: install
	$(BIN)/python -m experiments.demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m 'not slow'

test-all: lint
	UFM_THOROUGH=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

# With trainers and loggers of other libraries, in an environment of their own.
test-integrations: lint .venv-integrations/.installed
	OMP_NUM_THREADS=1 .venv-integrations/bin/pytest tests/integrations

.venv-integrations/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --config-settings editable_mode=compat -e '.[dev,integrations]'
	touch $@

# Draws every figure from committed results into figures/output, as PNG and PDF, with a page that shows them all.
figures: install
	OMP_NUM_THREADS=1 $(BIN)/python -m figures

# Builds the documents into docs/_build/html; warnings are errors.
docs: install
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Runs every derivation and renders them all into derivations/derivations.html and .pdf.
derivations: install
	$(BIN)/python -m derivations.render

# Measurements whose results are committed under experiments/results; about an hour on 2 cores with nothing else on.
benchmarks: install
	$(BIN)/python -m experiments.benchmarks.exactness
	$(BIN)/python -m experiments.benchmarks.exactness --cases 20000 --dtype float32 --out experiments/results/exactness/exactness_float32.json
	$(BIN)/python -m experiments.benchmarks.certificates
	$(BIN)/python -m experiments.benchmarks.speed
	$(BIN)/python -m experiments.benchmarks.mutation
	$(BIN)/python -m experiments.benchmarks.precision
	$(BIN)/python -m experiments.benchmarks.race
	$(BIN)/python -m experiments.benchmarks.scaling
	$(BIN)/python -m experiments.minority
	$(BIN)/python -m experiments.sweep run --file experiments/sweeps/collapse.toml --out experiments/results/sweeps/collapse
	$(BIN)/python -m experiments.sweep run --file experiments/sweeps/methods.toml --out experiments/results/sweeps/methods
	$(BIN)/python -m experiments.sweep summary experiments/results/sweeps/collapse experiments/results/sweeps/methods --out experiments/results/sweeps/README.md

# Checks every theorem of docs/theorems.md: solves, certifies, and compares with its closed form. Some minutes.
theorems: install
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.theorems

# Attacks what is promised: calls, damaged files, killed and starved commands, processes that die. Half an hour.
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.fuzz calls
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.fuzz files
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.fuzz kills
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.fuzz ranks

# Trains every network of experiments/suite.toml (hours on 2 cores; it goes on where it stopped), and compares them.
networks: install
	$(BIN)/python -m experiments.suite train --jobs 2
	$(BIN)/python -m experiments.suite compare --jobs 2
	$(MAKE) pages

# Trains every point of experiments/regime.toml (it goes on where it stopped), and measures them.
regime: install
	$(BIN)/python -m experiments.regime train --jobs 2
	$(BIN)/python -m experiments.regime measure

# Writes every table of README.md, docs/status.md and experiments/results/README.md from the committed results.
pages: install
	$(BIN)/python -m experiments.pages

coverage: install
	$(BIN)/pytest -n 2 --cov=ufm --cov-branch --cov-report=term-missing

clean:
	rm -rf .venv .venv-integrations build docs/_build *.egg-info

# Copies a demo's numbers into the committed results.
.PHONY: publish
publish: demo
	mkdir -p experiments/results/demo/fitted
	for folder in . fitted; do \
	  cp runs/demo/$$folder/{run.json,metrics.jsonl,planar.safetensors} experiments/results/demo/$$folder/; \
	done
