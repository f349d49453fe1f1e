# make demo   sets everything up and runs the demo on the embedded broker
# make test   sets everything up and runs every check: ruff, mypy, import-linter, pytest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types fuzz bench clean

help: ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Create .venv with everything that development needs.

$(STAMP): pyproject.toml constraints.txt bus/spool/_records.c producers/watch/_reading.c .hatch/compile.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade "pip>=25.1"
	$(BIN)/pip install -q -c constraints.txt -e ".[demo,loops,report,lsp,policy,kv,hf,match]" --group dev
	@$(BIN)/pip install -q -c constraints.txt --group llama || echo "llama-cpp-python did not build here: the tests that need it skip"
	@touch $@

demo: $(STAMP) ## Train, kill, restart, query, rebuild: the whole story in under three minutes.
	$(BIN)/morphogen demo

lint: $(STAMP) ## ruff and import-linter.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## mypy, strict.
	$(BIN)/mypy -p morphogen

test: lint ## Every check and every test, several rooms at a time.
	$(BIN)/python tests/rooms.py

fuzz: $(STAMP) ## Ask the properties new examples, round after round: make fuzz ROOM=tests/knowledge
	while $(BIN)/pytest -q -x --hypothesis-profile=fuzz $(or $(ROOM),tests); do :; done

bench: $(STAMP) ## Run every benchmark and print the README's table (some minutes).
	$(BIN)/pip install -q -c constraints.txt --group bench
	$(BIN)/python benchmarks/all.py

clean: ## Remove the environment and caches.
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
