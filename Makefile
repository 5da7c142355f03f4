# Every target makes the virtual environment it needs; nothing has to be installed first but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench

.DEFAULT_GOAL := help
.PHONY: help run demo test lint types imports bench bench-peers interop egress clean

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "masque-relay needs Python 3.11 or newer; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

run: $(STAMP) ## start a relay on 127.0.0.1:4433 with a development certificate and a fresh key
	@$(BIN)/python -m certs.generate --if-needed
	@$(BIN)/python -m relay dev

demo: $(STAMP) ## origin, relay and client on this machine: curl over TCP, echo over UDP, checked
	@$(BIN)/python -m interop.demo

test: $(STAMP) lint types imports ## lint, types, import rules and the whole test suite
	@$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP) ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict, code and tests
	@$(BIN)/mypy

imports: $(STAMP) ## the direction of imports (docs/architecture.md)
	@$(BIN)/lint-imports --no-cache

bench: $(BENCH_STAMP) ## the relay beside Envoy and the kernel's floor, in one run
	@$(BIN)/python -m interop.bench $(ARGS)
	@$(BIN)/python -m interop.bench.egress

bench-peers: $(BENCH_STAMP) ## the relay beside its peers, with a compiled load generator; needs Rust and Go
	@$(BIN)/python -m interop.bench.peers $(ARGS)

interop: $(BENCH_STAMP) ## all peers, written to interop/RESULTS.md; or PEER=... CASE=... for some, ARGS=... for more
	@$(BIN)/python -m interop.matrix $(if $(PEER)$(CASE)$(ARGS),,--update) $(if $(PEER),--peer $(PEER)) $(if $(CASE),--case $(CASE)) $(ARGS)

egress: $(STAMP) ## 10,000 tunnels from 200 addresses, seen from another network namespace; needs root
	@$(BIN)/python -m interop.egress $(ARGS)

clean: ## remove the virtual environment, caches and generated certificates
	rm -rf $(VENV) .run .mypy_cache .ruff_cache .hypothesis build *.egg-info
	rm -f certs/*.pem certs/*.key
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
