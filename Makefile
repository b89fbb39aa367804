# Everything that people and CI do here has a target; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos check lint types rules fast-tests bench lock docs-check docs release-check wheel installs \
	readers image clean

BIN := .venv/bin
# So many processes share the tests: auto is two more than there are cores (tests/conftest.py), 0 is none. One
# that has done its own takes from the others.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Tests start hundreds of processes: what these import is compiled once.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/.up-to-date ## Make .venv with everything in it, for the GPU where one is (PYTHON=..., TRTJOB_SETUP=cpu|cuda|cuda12 choose)

# Chosen by hand, ONNX Runtime may have to become another one.
ifdef TRTJOB_SETUP
export TRTJOB_SETUP
.PHONY: .venv/.up-to-date
endif

.venv/.up-to-date: pyproject.toml requirements.lock scripts/setup.sh
	@echo "Setting up .venv ..."
	@scripts/setup.sh
	@touch $@

.venv/.extras-up-to-date: .venv/.up-to-date scripts/tensorrt_bindings.sh
	@echo "Adding what the tests need beside it: TensorFlow, TensorRT-RTX and more ..."
	@scripts/setup.sh all
	@scripts/tensorrt_bindings.sh
	@touch $@

demo: setup ## Find the digits in a dozen scenes: no GPU, no server to set up
	$(BIN)/trtjob run examples/digits/scenes --model examples/digits/digits.weights -o demo-output
	@echo
	@echo "The annotated pictures and results.jsonl are in demo-output/. The same command again does only what is missing."

test: .venv/.extras-up-to-date ## Run every test that needs no GPU, but for those of make chaos
	$(PYTEST) -m "not gpu and not chaos and not image"

chaos: .venv/.extras-up-to-date ## Kill workers, servers and stores under real jobs, and cut hosts off where you are root (tests/chaos: 25 minutes on 2 cores)
	$(BIN)/python -m pytest -m chaos

# Side by side: mypy takes one core, and the lock waits for the index. What each has said comes when it ends.
SIDE_BY_SIDE := $(MAKE) --no-print-directory --jobs=3 --output-sync=target

check: .venv/.extras-up-to-date ## Run what a commit must pass: the static checks and the fast tests
	@$(SIDE_BY_SIDE) types rules fast-tests

lint: .venv/.extras-up-to-date ## Run the static checks: format, lint, types, imports, generated docs, lock
	@$(SIDE_BY_SIDE) types rules

types:
	$(BIN)/mypy

rules:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python scripts/cli_reference.py --check
	$(BIN)/python scripts/docs_check.py
	scripts/compile_lock.sh --check

fast-tests:
	$(PYTEST) -q -m "not gpu and not slow and not chaos and not image"

docs-check: setup ## Check that every path, command and option in README and docs exists
	$(BIN)/python scripts/docs_check.py

bench: setup ## Measure the speed on this machine and print a table
	$(BIN)/python -m benchmarks

lock: setup ## Write requirements.lock and readers.lock from pyproject.toml (UPGRADE=1: newest versions)
	scripts/compile_lock.sh

release-check: setup ## Check what a release is made of (HOME_URL=https://... : where its documents are to be read)
	$(BIN)/python scripts/release_check.py --home "$(HOME_URL)"

docs: setup ## Build the documents as a site in dist/site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/uv run --quiet --no-project --python $(BIN)/python --with 'mkdocs-material>=9.6,<10' --with 'mkdocstrings[python]>=1,<2' \
		mkdocs build --strict --quiet

wheel: setup ## Build the wheel and test it in an empty environment
	scripts/check_wheel.sh

installs: setup ## Install it in every way, each in an empty environment, and use it
	$(BIN)/python scripts/check_installs.py

readers: setup ## Have exports read by the tools that they are for, in an environment with all of these
	scripts/check_readers.sh

image: .venv/.extras-up-to-date ## Build the container image for the CPU and use it, as root with buildah and debootstrap
	$(BIN)/python scripts/image.py

clean: ## Remove what the other targets made
	rm -rf .venv demo-output dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
