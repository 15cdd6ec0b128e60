# Needs bash, python3, cargo and a C compiler; everything else is installed into .venv, but for
# Redis, PostgreSQL and PgBouncer: on Debian and Ubuntu their packages are installed where that is
# allowed.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PYTHON_VERSION := $(shell sed -n 's/^requires-python = ">=\([0-9.]*\).*/\1/p' pyproject.toml)
RUST_VERSION := $(shell sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)

VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
# Packages in front of those of the environment, for the tests that want them.
OLDEST := $(VENV)/oldest
# One empty file per step that is done.
DONE := .venv/done

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile
	@echo "ARGS='...' is passed on by demo, test-python, acceptance and bench"

.PHONY: demo
demo: $(DONE)/demo $(DONE)/package  ## show what holdfast does, on a SQLite file
	$(PY) examples/demo.py $(ARGS)

.PHONY: test
test: check-python check-cargo check-servers test-rust test-python test-oldest acceptance  ## run every test: Rust, Python, acceptance suites

.PHONY: test-rust
test-rust: | check-cargo  ## run the tests of the Rust core
	cargo test --release --locked --no-default-features

.PHONY: test-python
test-python: check-servers $(DONE)/test $(DONE)/package  ## run the Python tests and the conformance suite
	$(PY) -m pytest -q -n 2 tests $(ARGS)

.PHONY: test-oldest
test-oldest: $(DONE)/test $(DONE)/oldest $(DONE)/package  ## run the serializer's tests on the oldest langgraph-checkpoint that is supported
	PYTHONPATH=$(OLDEST) $(PY) -c 'import importlib.metadata as m; print("langgraph-checkpoint", m.version("langgraph-checkpoint"))'
	PYTHONPATH=$(OLDEST) $(PY) -m pytest -q -n 2 tests/test_serde.py tests/test_serde_messages.py tests/test_serde_options.py

.PHONY: acceptance
acceptance: check-servers $(DONE)/test $(DONE)/package  ## run LangGraph's own tests: on every backend, and of the serializer
	$(PY) tests/acceptance/langgraph_suite.py $(ARGS)
	$(PY) tests/acceptance/jsonplus_suite.py

.PHONY: soak
soak: check-servers $(DONE)/test $(DONE)/package  ## run the tests with many more random cases and faults
	HYPOTHESIS_PROFILE=slow HOLDFAST_SOAK=1 $(PY) -m pytest -q -n 2 --timeout 3600 tests

# cargo-fuzz is installed into .cache. What it needs of the compiler is in the stable one, too, and
# unlocked by RUSTC_BOOTSTRAP.
FUZZ := .cache/cargo-fuzz/bin/cargo-fuzz
FUZZ_VERSION := 0.13.2
FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: $(FUZZ)  ## give the codec and the store's readers random bytes, FUZZ_SECONDS each
	@for target in codec store; do \
	  RUSTC_BOOTSTRAP=1 $(FUZZ) run $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 \
	    || { echo "error: fuzzing $$target failed; a case that it names is in fuzz/artifacts/$$target" >&2; exit 1; }; \
	done

$(FUZZ): | check-cargo
	@command -v c++ >/dev/null || { \
	  echo "error: no C++ compiler (c++): on Debian and Ubuntu, apt install build-essential" >&2; exit 1; }
	@cargo install --quiet --locked --root .cache/cargo-fuzz cargo-fuzz@$(FUZZ_VERSION) || { \
	  echo "error: cargo-fuzz $(FUZZ_VERSION) cannot be installed: is crates.io within reach?" >&2; exit 1; }

.PHONY: bench
bench: check-servers $(DONE)/test $(DONE)/bench $(DONE)/package  ## measure speed and size beside other savers
	$(PY) -m benches $(ARGS)

# The test requirements are there so that mypy sees the same types on every machine.
.PHONY: lint
lint: $(DONE)/lint $(DONE)/test $(DONE)/package | check-lint  ## check style and types, change nothing
	@# Without the stub, stubtest has nothing to compare and says Success.
	@test -f python/holdfast/_core.pyi || { echo "error: python/holdfast/_core.pyi is missing" >&2; exit 1; }
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest holdfast._core
	cargo fmt --check
	PYO3_PYTHON=$(PY) cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --all-targets -- -D warnings

.PHONY: build
build: $(DONE)/package  ## build the Rust core and install the package into .venv

.PHONY: clean
clean:  ## remove what the other targets made
	rm -rf .venv target fuzz/target fuzz/corpus fuzz/artifacts .cache .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f python/holdfast/_core*.so
	find python tests benches examples -name __pycache__ -prune -exec rm -rf {} +

.PHONY: check-python
check-python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON) is missing: install Python $(PYTHON_VERSION) or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(PYTHON_VERSION)".split("."))))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version), holdfast needs $(PYTHON_VERSION) or newer;" \
	    "name another one with 'make PYTHON=...'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }

.PHONY: check-cargo
check-cargo:
	@have=$$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || { \
	  echo "error: cargo is missing: install Rust $(RUST_VERSION) or newer, see https://rustup.rs" >&2; exit 1; }; \
	printf '%s\n' "$(RUST_VERSION)" "$$have" | sort -V -C || { \
	  echo "error: cargo is $$have, holdfast needs $(RUST_VERSION) or newer: run 'rustup update'" >&2; exit 1; }
	@command -v cc >/dev/null || { \
	  echo "error: no C compiler (cc): on Debian and Ubuntu, apt install build-essential" >&2; exit 1; }

# Installs what is missing where it may; once, before several test processes would want it.
.PHONY: check-servers
check-servers: | check-python
	@$(PYTHON) tests/support/servers.py

.PHONY: check-lint
check-lint: check-cargo
	@for tool in fmt clippy; do \
	  cargo $$tool --version >/dev/null 2>&1 || { \
	    echo "error: cargo $$tool is missing: run 'rustup component add rustfmt clippy'" >&2; exit 1; }; \
	done

.PHONY: FORCE
FORCE:

$(DONE)/venv: | check-python
	$(PYTHON) -m venv --clear .venv
	@mkdir -p $(DONE)
	@touch $@

$(DONE)/bench $(DONE)/build $(DONE)/demo $(DONE)/lint $(DONE)/test: $(DONE)/%: requirements/%.txt requirements/constraints.txt $(DONE)/venv
	$(PY) -m pip install --requirement $<
	@touch $@

$(DONE)/oldest: requirements/oldest.txt $(DONE)/venv
	$(PY) -m pip install --no-deps --upgrade --target $(OLDEST) --requirement $<
	@touch $@

# Python sources are installed in place; a file changed during the build is newer than the stamp.
$(DONE)/package: Cargo.toml Cargo.lock pyproject.toml $(shell find rust) $(DONE)/build \
    $(if $(wildcard python/holdfast/_core*.so),,FORCE) | check-cargo
	@touch $@.begun
	env -u CONDA_PREFIX VIRTUAL_ENV=$(VENV) $(PY) -m maturin develop --release --locked
	@mv $@.begun $@
