# Everything that is done here has a name. `make` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH ?= torch==2.13.0
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
MODELS := server/elman_server/bundled

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
EXACTLY := --constraint constraints.txt --build-constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo serve lab up cluster down test test-compose chaos portability bench check fmt proto image parts docs picture page chart models lesson-models card constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/server.done ## start a server, stream a text, stop it; needs Python 3.11 or newer and pip, no torch
	@$(BIN)/python scripts/demo.py

serve: $(VENV)/server.done ## serve the bundled models on 127.0.0.1:50051, until Ctrl-C; sessions.db keeps the sessions
	@ELMAN_STORE=$${ELMAN_STORE:-sqlite:sessions.db} exec $(BIN)/elman-server

lab: $(VENV)/dev.done ## serve a page on http://127.0.0.1:8080 with the bundled models and the lesson's: counting, meaning, word classes
	@$(BIN)/python -m scripts.lab

up: ## build the image and start server and page in containers; ELMAN_PORT and ELMAN_WEB_PORT choose their ports
	$(COMPOSE) up -d --build

cluster: ## build the image and start three servers of one Redis behind Envoy; ELMAN_CLUSTER_PORT chooses the port
	$(COMPOSE) --profile cluster up -d --build envoy

down: ## stop the containers
	$(COMPOSE) --profile cluster down

# Two at a time: many tests wait for a process that starts. A file's tests stay together, and so does what they share.
test: $(VENV)/dev.done ## run every test; installs torch and the tools first
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-compose: $(VENV)/dev.done ## run the image and the compose file, the cluster too; needs a docker engine
	REQUIRE_DOCKER=1 $(BIN)/python -m pytest tests/test_compose.py

chaos: $(VENV)/dev.done ## break a cluster in every way, again and again: make chaos ROUNDS=20
	$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),5)

portability: $(VENV)/dev.done ## compare texts with other processors, needs qemu-user and node: make portability CHARS=1000000
	$(BIN)/python -m pytest tests/portability/moving.py
	$(BIN)/python -m tests.portability.wasm
	$(BIN)/python -m tests.portability --chars $(or $(CHARS),100000)

bench: $(VENV)/dev.done ## run every benchmark, less than 10 minutes; docs/benchmarks.md explains them
	$(BIN)/python -m benchmarks

check: $(VENV)/dev.done ## what CI checks: style, types, import contracts, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/image.binpb
	$(BIN)/python scripts/check_generated.py

fmt: $(VENV)/dev.done ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

proto: $(VENV)/dev.done ## write the generated code of proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh

image: $(VENV)/dev.done ## record proto/ as the contract that later changes must not break; at a release
	$(BIN)/buf build proto --exclude-source-info -o proto/image.binpb

parts: $(VENV)/dev.done ## write sbom/elman.cdx.json and docs/licences.md: what the image holds
	$(BIN)/python -m scripts.parts

docs: $(VENV)/dev.done ## write docs/settings.md
	$(BIN)/python -c 'from elman_server.process.settings import to_markdown; print(to_markdown(), end="")' > docs/settings.md

picture: $(VENV)/dev.done ## write docs/terminal.svg from a real conversation
	$(BIN)/python -m scripts.picture docs/terminal.svg

page: $(VENV)/dev.done ## write docs/web-*.png, pictures of the page; needs chromium
	$(BIN)/python -m scripts.page docs

chart: $(VENV)/dev.done ## write docs/naive.svg from benchmarks/baseline.json
	$(BIN)/python -m scripts.chart docs/naive.svg

models: $(VENV)/dev.done ## train, trace, quantize and evaluate the bundled models: make models CORPUS=tinyshakespeare.txt
	$(BIN)/python -m scripts.models "$(CORPUS)" $(NAMES)

lesson-models: $(VENV)/dev.done ## train the small models of the page's panels Meaning and Programs: web/elman_web/lesson; two minutes of one core
	$(BIN)/python -m scripts.lesson_models

card: $(VENV)/dev.done ## write docs/models.md and its picture: make card CORPUS=tinyshakespeare.txt; leave the machine alone
	$(BIN)/python -m elman_export card $(MODELS) -o docs/models.md --text "$(CORPUS)"

constraints: ## write constraints.txt again from the newest versions that fit
	rm -rf build/newest && $(PYTHON) -m venv build/newest
	build/newest/bin/python -m pip install --quiet 'pip>=25.3'
	build/newest/bin/python -m pip install --quiet $(TORCH)
	build/newest/bin/python -m pip install --quiet '.[server,redis,encryption,jwt,telemetry,export,web]' hatchling --group dev
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	build/newest/bin/python -m pip freeze --all | grep -vE '^(elman|torch|triton|nvidia-.*|cuda-.*|pip)\b' >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove what was installed and built; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache .hypothesis

# Installed once, and again when what is asked for changes.

$(VENV)/pip.done:
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("this needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) 'pip>=25.3'
	@touch $@

$(VENV)/server.done: $(VENV)/pip.done pyproject.toml constraints.txt
	$(INSTALL) $(EXACTLY) --editable '.[server]'
	@touch $@

$(VENV)/dev.done: $(VENV)/server.done
	$(INSTALL) $(EXACTLY) $(TORCH)
	$(INSTALL) $(EXACTLY) --editable '.[server,redis,encryption,jwt,telemetry,export,web]' --group dev
	@touch $@
