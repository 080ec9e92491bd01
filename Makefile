# The list of commands. `make help` prints it.

SHELL := /bin/bash
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
export CARACAL_BIN := $(abspath $(TARGET_DIR))/debug/caracal
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run demo build test interop bench lint fmt fuzz deny clean setup setup-build

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## start the quickstart, show one governed call, keep serving until Ctrl-C
	@scripts/quickstart.sh run

demo: build ## the same as run, but ends by itself and fails if anything is not as shown
	@scripts/quickstart.sh demo

build: setup-build ## build the `caracal` binary (debug)
	@echo "make: building target $(CARACAL_BIN)"
	@$(CARGO) build --package caracal

test: setup build ## unit, integration and doc tests, then the interop tests
	@echo "make: the state's own tests on Postgres, then everything on SQLite"
	scripts/postgres.sh $(CARGO) nextest run --workspace -E 'package(caracal) & kind(lib) & test(/^state::/)'
	$(CARGO) nextest run --workspace
	$(CARGO) test --doc --workspace
	@scripts/interop.sh

interop: build ## the official Python clients against the built binary
	@scripts/setup.sh python node-peers servers
	@scripts/interop.sh

bench: ## criterion benches, then the load scenarios side by side (release build)
	@scripts/bench.sh

lint: setup-build ## formatting and clippy, warnings denied
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## format the sources
	$(CARGO) fmt --all

fuzz: setup ## the property tests with many more cases (PROPTEST_CASES=20000)
	PROPTEST_CASES=$${PROPTEST_CASES:-20000} $(CARGO) nextest run --workspace --lib

deny: ## licences, bans and sources of every dependency (cargo-deny)
	@scripts/setup.sh deny
	$(CARGO) deny check bans licenses sources

clean: ## remove what these commands made: build output, .venv, node_modules, .run, bench-results
	$(CARGO) clean
	rm -rf .venv interop/node_modules .run bench-results target/tools

setup: ## install what building and testing need, saying what is done
	@scripts/setup.sh build tests python node-peers servers

setup-build:
	@scripts/setup.sh build
