# Every target sets up what it needs in .venv, can be run again, and says what it does.
# Needs Python >= 3.11, make and a C compiler. Variables: PYTHON, SYSTEM (one results system).

PYTHON ?= python3
SYSTEM ?=
# Two processes, a file to each in turn, in the order of conftest.py.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SETTINGS := constraints.txt pyproject.toml wardwise/pyproject.toml weightwise/pyproject.toml

# Routing and scaling-law benchmark data, where a copy lies beside the repository.
# Without one they stay unset, and the tests that need them are skipped.
ROUTING_DATA := $(wildcard $(abspath ../shared/data/routing))
LAW_DATA := $(wildcard $(abspath ../shared/data/fp-scaling-law))
ifneq ($(ROUTING_DATA),)
export WARDWISE_DATA ?= $(ROUTING_DATA)
endif
ifneq ($(LAW_DATA),)
export WEIGHTWISE_DATA ?= $(LAW_DATA)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick explore lint format docs bench reproduce isolated fresh-clone clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/runtime.stamp: $(SETTINGS)
	@echo "Setting up $(VENV): torch $(shell sed -n 's/^torch==//p' constraints.txt) and both libraries"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(shell grep -E '^pip==' constraints.txt)
	@$(PIP) $(shell grep -E '^torch==' constraints.txt)
	@$(PIP) --editable ./weightwise --editable './wardwise[pyvrp]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	@echo "Adding the tools for tests, lint, docs and benchmarks"
	@$(PIP) --group dev --editable './weightwise[hf,onnx,serve,track,vision]' --editable './wardwise[pyvrp]'
	@rm -rf $(VENV)/peers
	@$(PIP) --no-deps --target $(VENV)/peers timm torchvision
	@touch $@

demo: $(VENV)/runtime.stamp ## Run both main jobs on real input; writes out/wardwise.html and out/weightwise.html
	@echo "== wardwise: plan a hospital's morning"
	$(BIN)/wardwise demo --out out
	@echo "== weightwise: train a small language model in three precisions"
	$(BIN)/weightwise demo --out out

test: $(VENV)/dev.stamp ## Run every test
	$(BIN)/python -m tools.warm --slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-quick: $(VENV)/dev.stamp ## Run the tests that take less than three minutes in all
	$(BIN)/python -m tools.warm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "not slow"

explore: $(VENV)/dev.stamp ## Try the properties on examples that no run has seen before
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "not slow" --hypothesis-profile explore

lint: $(VENV)/dev.stamp ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy wardwise/wardwise
	$(BIN)/mypy weightwise/weightwise
	$(BIN)/mypy tools

format: $(VENV)/dev.stamp ## Repair what can be repaired by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp ## Build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html"

bench: $(VENV)/dev.stamp ## Rerun the benchmarks (SYSTEM=foundation for one), print value beside goal, redraw the tables
	$(BIN)/python -m tools.measure benchmarks $(SYSTEM)

bench-gpu: $(VENV)/dev.stamp ## Run the tests and benchmarks that need a GPU, in less than eight minutes
	$(BIN)/python -m tools.gpu

reproduce: $(VENV)/dev.stamp ## Rerun the small-scale studies of the papers and redraw docs/results
	$(BIN)/python -m tools.measure experiments $(SYSTEM)

isolated: ## Install each library alone into a bare environment and run its demo
	$(PYTHON) tools/isolated.py

fresh-clone: $(VENV)/dev.stamp ## Time the targets in a fresh clone and record the figures
	$(BIN)/python -m tools.measure workspace

clean: ## Remove everything that make has built
	rm -rf $(VENV) out site .pytest_cache .mypy_cache .ruff_cache .hypothesis
