# make demo, make test, make lint: everything else is in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc)
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test lint

# torch first: with it in place nothing pulls another build.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("jeep needs Python 3.11 or 3.12, not " + sys.version.split()[0] if not (3, 11) <= sys.version_info < (3, 13) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install "torch==2.13.0"
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) all
	@echo
	@echo "The tables are in results/tables: table2 (zsRE) and table3 (CounterFact), as .csv, .md and .tex."
	@echo "What the small GPT-J knows before the edits: $$(tr -d '\n' < results/models/gptj-nano/knowledge.json)"
	@echo
	@cat results/tables/table3.md

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
