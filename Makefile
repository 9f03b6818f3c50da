# Every target sets up what it needs from a fresh clone: the environment, the locked packages, the servers.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
SECONDS_OF_TRAFFIC := $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),)
READY := $(VENV)/.locked

.PHONY: help demo demo-compose check test test-containers test-compose faults soak drill-lost-token mutants audit bench links token etl lock format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "This needs Python 3.11 to 3.14, and found none (Debian: apt-get install python3 python3-venv)." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This needs Python's venv module, which $(PYTHON) lacks (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) -V): locked packages, every file checked by its hash" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: --requirement requirements/dev.txt
	@$(BIN)/python -m pip --disable-pip-version-check check >&2
	@touch $@

demo: $(READY) ## the whole flow on this machine without Docker, audited at the end (SECONDS=20 ends it by itself)
	@exec $(BIN)/python -m sandbox.demo $(if $(SECONDS_OF_TRAFFIC),--seconds $(SECONDS_OF_TRAFFIC))

demo-compose: $(READY) ## the same in containers, with a rolling restart of each service (SECONDS=30 ends it by itself; needs Docker)
	@exec $(BIN)/python -m sandbox.demo_compose $(if $(SECONDS_OF_TRAFFIC),--seconds $(SECONDS_OF_TRAFFIC))

check: $(READY) ## format, lint, types, import contracts, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit -m 'not thorough' --numprocesses auto --dist worksteal

test: $(READY) ## the tests that need no Docker: unit, integration, end to end, faults (the long ones: make faults)
	$(BIN)/pytest tests/unit/patterns -m 'not thorough' --numprocesses auto --dist worksteal --timeout 60 --cov --cov-report=term
	$(BIN)/pytest tests/unit --ignore=tests/unit/patterns -m 'not thorough' --numprocesses auto --dist worksteal
	$(BIN)/pytest tests --ignore=tests/unit -m 'not thorough' --numprocesses auto --dist worksteal

test-containers: $(READY) ## the tests on PostgreSQL, Apache Kafka and MongoDB from their images, and those that need them (needs Docker)
	TEST_SERVERS=containers $(BIN)/pytest tests/integration tests/containers -m 'not thorough' --numprocesses 2 --dist worksteal

test-compose: $(READY) ## the stack of docker-compose.yml under load, restarts, kills and outages (needs Docker)
	TEST_SERVERS=containers $(BIN)/pytest tests/compose

faults: $(READY) ## every fault, row by row: what was injected and which rules held; rewrites docs/faults.md (its Apache Kafka part where Docker is)
	$(BIN)/pytest tests --ignore=tests/containers --ignore=tests/compose -m 'fault or thorough' --numprocesses auto --dist worksteal --faults-page
	if docker version >/dev/null 2>&1; then TEST_SERVERS=containers $(BIN)/pytest tests/containers -m fault --faults-page; fi

soak: $(READY) ## orderly stops under load (STOPS=1000), or random faults with an audit at the end (MINUTES=60)
	$(BIN)/python -m tests.soak $(if $(STOPS),--stops $(STOPS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

drill-lost-token: $(READY) ## let an oplog forget what the consent consumer has not read, and see what each policy makes of it
	@exec $(BIN)/python -m tests.drills

mutants: $(READY) ## small faults in patterns/, one at a time: each must be noticed by a test or explained in docs/mutants.md
	$(BIN)/python -m tests.mutation

audit: $(READY) ## ask the open database of vulnerabilities about the locked packages (needs a network; make check asks nobody)
	$(BIN)/python -m deploy.dependency_audit requirements/*.txt

bench: $(READY) ## ratios against references measured in the same run; rewrites docs/benchmarks.md (SERVERS=compose: its Apache Kafka column)
	$(BIN)/python -m tests.benchmarks $(if $(SERVERS),--servers $(SERVERS))

links: ## the links of the stack that docker compose runs: API docs, metrics, databases, a token
	@$(PYTHON) -m sandbox.links

token: $(READY) ## a bearer token for the demo or the stack that is running: make token [MEMBER=m-1] [SCOPE=operator]
	@$(BIN)/python -m sandbox.token $(if $(MEMBER),--member "$(MEMBER)") $(if $(SCOPE),--scope "$(SCOPE)")

etl: $(READY) ## load files of coupons into the demo or the stack that is running: make etl FILE="a.csv b.csv.gz" [OPTIONS="--workers 4"]
	@exec $(BIN)/python -m sandbox.etl $(FILE) -- $(OPTIONS)

lock: $(READY) ## renew the hashed requirement files from pyproject.toml
	$(COMPILE) pyproject.toml --output-file requirements/services.txt
	$(COMPILE) pyproject.toml --extra motor --extra etl --group sandbox --group dev --constraint requirements/services.txt --output-file requirements/dev.txt
	$(COMPILE) --group etl-image --constraint requirements/dev.txt --output-file requirements/etl.txt

COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock'

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and the sandbox's data
	rm -rf $(VENV) .sandbox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
