# Everything a fresh machine needs is made from here: Python 3.11 and make are enough.
PYTHON ?= python3.11
UV     := .uv/bin/uv
RUN    := .venv/bin/

.DEFAULT_GOAL := help
.PHONY: help setup engines models demo up fast test check format bench bench-gateways fuzz clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV): deploy/uv.txt
	@echo "setup: bootstrapping uv"
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/uv.txt
	@touch $@

.venv/.ready: $(UV) pyproject.toml uv.lock
	@echo "setup: the project's own environment (.venv)"
	@$(UV) sync --frozen --quiet --python $(PYTHON)
	@touch $@

setup: .venv/.ready ## The project's own environment

engines: setup ## The engines' environment: real vLLM, built for CPUs
	@$(RUN)linnet engines install

models: engines ## The demo's models: trained, adapted, quantized, cached
	@$(RUN)linnet adapt --demo

demo: setup ## One release end to end on two real vLLM engines, then a bad one rolled back
	@$(RUN)linnet demo

up: setup ## The same stack in the foreground
	@$(RUN)linnet up

fast: setup ## The gateway compiled: half the cost of a request (needs a C compiler; it runs without)
	@$(RUN)python -m gateway.compiled || true

test: models fast ## All tests, the ones on real vLLM included; the gateway's a second time, on its compiled copy
	@$(RUN)pytest
	@$(RUN)python -m tests.compiled

check: setup ## Format, lint, types, import contracts
	@$(RUN)ruff format --check .
	@$(RUN)ruff check .
	@$(RUN)mypy
	@$(RUN)lint-imports

format: setup ## Format and mend what can be mended
	@$(RUN)ruff format .
	@$(RUN)ruff check --fix .

bench: setup ## The benchmarks, one table
	@$(RUN)python -m bench

bench-gateways: setup ## Our gateway beside others (needs gcc, wrk; see bench/gateways/README.md)
	@$(RUN)python -m bench.gateways

fuzz: setup ## A million hostile inputs for each parser of ours
	@$(RUN)python -m bench.fuzz --inputs 1000000

clean: ## Remove the environments and the state (the caches of models and engines stay)
	@rm -rf .uv .venv .linnet .pytest_cache .mypy_cache .ruff_cache
