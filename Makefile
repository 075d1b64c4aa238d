# cos-operator: `make demo` from an empty machine to a running stack, `make test` for everything that must hold.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# uv is the one tool that is needed before the project's own environment exists; pinned, and kept out of the system.
UV_VERSION := 0.13.9
UV_HOME := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cos-testbed/uv-$(UV_VERSION)
UV := $(UV_HOME)/bin/uv
RUN := $(UV) run --frozen --no-sync
TESTBED := $(RUN) python -m cos_testbed
export PATH := $(UV_HOME)/bin:$(PATH)
# Python keeps its bytecode, whatever the environment says: a quarter of the fast tests' time would be compilation.
export PYTHONDONTWRITEBYTECODE :=

FAST_TESTS := tests/unit tests/golden
PYTEST := $(RUN) pytest -q

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(UV):
	@python3 -c 'import sys; sys.exit("Python 3.11 or later is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@python3 -m venv $(UV_HOME) || { echo "python3 lacks the venv module: install python3-venv" >&2; exit 1; }
	@$(UV_HOME)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.synced: $(UV) pyproject.toml uv.lock
	@$(UV) sync --frozen --quiet
	@touch $@

.PHONY: env
env: .venv/.synced ## Make the Python environment (.venv)

.PHONY: demo
demo: env ## From nothing to a Ready stack of six services on a real Kubernetes
	@$(RUN) python hack/demo.py

.PHONY: kubeconfig
kubeconfig: env ## Print the path of the testbed's kubeconfig (make -s kubeconfig)
	@$(TESTBED) kubeconfig

.PHONY: clean
clean: env ## Undo `make demo`: stop the testbed and delete its cluster (built programs stay cached)
	@$(TESTBED) clean

# The longest first.
LINTS := lint-secrets lint-types lint-security lint-generated lint-imports lint-format lint-rules

.PHONY: lint
lint: env ## ruff, mypy --strict, import contracts, bandit, secret scan, generated files
	@$(MAKE) --no-print-directory -j2 --output-sync $(LINTS)

.PHONY: $(LINTS)
lint-format:
	$(RUN) ruff format --check
lint-rules:
	$(RUN) ruff check
lint-types:
	$(RUN) mypy
lint-imports:
	$(RUN) lint-imports --no-logo
lint-security:
	$(RUN) bandit -q -c pyproject.toml -r operator controllers testbed hack
lint-secrets:
	git ls-files -z | xargs -0 $(RUN) detect-secrets-hook --baseline .secrets.baseline
lint-generated:
	$(RUN) python hack/generate.py --check

.PHONY: test-fast
test-fast: lint ## Lint, unit and golden tests: no cluster, < 60 s (coverage, which doubles the time, is part of `test`)
	$(PYTEST) $(FAST_TESTS) --numprocesses=auto --dist=worksteal

# What `test` consists of besides lint, one after the other, whatever becomes of the ones before.
TESTS := test-core test-api test-cluster

.PHONY: test
test: lint ## Everything: unit, golden, API and end-to-end tests, on a testbed that it starts itself
	$(TESTBED) up
	$(TESTBED) images
	@$(MAKE) --no-print-directory --jobs=1 --keep-going $(TESTS)
ifdef CI
	$(TESTBED) down
endif

.PHONY: $(TESTS)
test-core:
	$(PYTEST) $(FAST_TESTS) --numprocesses=auto --dist=worksteal --cov --cov-report=term --cov-report=xml
# Two at a time, each with an API server of its own: most of their time is waiting, for leases and time limits.
test-api:
	$(PYTEST) tests/api --numprocesses=2 --dist=worksteal
test-cluster:
	$(PYTEST) tests --ignore=tests/unit --ignore=tests/golden --ignore=tests/api

.PHONY: bench-scale
bench-scale: env ## Measure 10, 100 and 1,000 stacks, and apply → Ready; takes an hour, writes docs/benchmarks.md
	$(RUN) python tests/bench/bench.py scale
	$(RUN) python tests/bench/bench.py apply-ready

.PHONY: detection
detection: env ## Kill, stop and make read-only each engine 20 times, and measure how soon it is told; goes on where it was
	COS_DETECTION_ROUNDS=20 $(PYTEST) -s tests/e2e/test_detection.py

.PHONY: crash
crash: env ## Kill the operator before and after every write, and all pairs of faults: hours; goes on where it was
	$(RUN) python tests/crash

.PHONY: golden
golden: env ## Write the golden files anew
	UPDATE_GOLDEN=1 $(PYTEST) tests/golden

.PHONY: generate
generate: env ## Write the generated files anew (CRDs, references, requirements, install.yaml)
	$(RUN) python hack/generate.py

.PHONY: format
format: env ## Format the code
	$(RUN) ruff format
	$(RUN) ruff check --fix

.PHONY: hooks
hooks: env ## Install the pre-commit hooks
	$(RUN) pre-commit install
