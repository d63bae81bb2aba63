# make demo, make report, make test, make lint, make bench: everything else is in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc)
EXTRAS ?= dev
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo report test test-slow lint bench bench-gpu mutants

# torch first: with it in place nothing pulls another build.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("jeep needs Python 3.11 or 3.12, not " + sys.version.split()[0] if not (3, 11) <= sys.version_info < (3, 13) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install "torch==2.13.0"
	$(BIN)/python -m pip install --editable ".[$(EXTRAS)]"
	touch $@

# A first table while one watches, then the main tables, then the rest.
demo: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) quick
	@echo
	@cat results/quick.md
	@echo
	$(BIN)/snakemake --cores $(CORES) --prioritize results/tables/table2.csv results/tables/table3.csv -- all
	@echo
	@echo "What was run, which claims hold, tables and figures: results/REPORT.md"
	@echo
	@cat results/tables/table3.md

report: demo
	$(BIN)/snakemake --cores $(CORES) --report results/report.zip

test: $(VENV)/.installed
	$(PYTEST) -m "not slow and not pipeline"

# The tests that `test` leaves out: the real model, and whole runs of the pipeline: killed, on a cluster, changed and repeated.
test-slow: $(VENV)/.installed
	$(PYTEST) -m "slow or pipeline"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile rules

# The prefixes of the small model, its facts and the corpus are the demo's; what is missing is made first.
bench: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) results/models/smollm2-135m results/prefixes/smollm2-135m/seed0/5x10.json results/demo
	$(BIN)/python -m benchmarks --model results/models/smollm2-135m --prefixes results/prefixes/smollm2-135m/seed0/5x10.json \
		--counterfact results/demo/mcf-eval.jsonl --zsre results/demo/zsre-eval.jsonl \
		--corpus results/corpus/wikipedia.jsonl --out benchmarks/results/latest.json --readme README.md

# Random models of GPT-J 6B's and LLaMA 7B's shape, on whatever card there is: GPU_LAYERS=8 cuts them to a smaller one.
bench-gpu: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu --out benchmarks/results $(if $(GPU_LAYERS),--layers $(GPU_LAYERS))

# Changes the mathematics and the statistics a line at a time and runs the tests: hours, and no part of the tests. What it
# found is in docs/testing.md.
mutants: $(VENV)/.installed
	$(BIN)/mutmut run --max-children $(CORES)
	$(BIN)/mutmut results
