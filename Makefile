# Needs make and python3 (3.11 or newer); everything else is set up here.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PIP_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header
COMPILE := $(PIP_COMPILE) pyproject.toml
# Else every process that a test starts compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-dev demo run test soak check format bench image-trial trial-bots mutants lock

setup: .venv/.ready .venv/.ready-page
setup-dev: .venv/.ready-dev .venv/.ready-page

.venv/.ready: pyproject.toml requirements-local.lock client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 must be 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements-local.lock
	$(PIP) --no-deps --no-build-isolation -e . -e ./client
	@touch $@

.venv/.ready-dev: .venv/.ready requirements-dev.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# The explorer page's chart, which is not in the repository: by package and hash, one file of it.
.venv/.ready-page: .venv/.ready requirements-page.lock scripts/dev/page_files.py
	rm -rf .venv/page
	$(PIP) --no-deps --no-compile --require-hashes --target .venv/page -r requirements-page.lock
	$(BIN)/python scripts/dev/page_files.py .venv/page api/static/third_party
	@touch $@

demo: setup
	$(BIN)/mdp demo

run: setup
	$(BIN)/mdp run

test: setup-dev
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

soak: setup-dev
	$(BIN)/pytest -m soak --timeout 3600 tests/soak

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/python -m scripts.dev.prose
	$(BIN)/python -m scripts.dev.audit

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# ArcticDB wants another pandas than the tests do.
.venv-bench/.ready: requirements-bench.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements-bench.lock
	@touch $@

bench: setup-dev
	-$(MAKE) --no-print-directory .venv-bench/.ready
	$(BIN)/python -m scripts.bench $(BENCH)

mutants: setup-dev
	nice -n 19 $(BIN)/python -m scripts.dev.mutants $(MUTANTS)

image-trial: setup-dev
	$(BIN)/python -m scripts.dev.image_trial

# Programs of others, which want other packages than the house does.
BOTS := freqtrade==2026.9 ccxt==4.5.90 python-binance==1.0.37 hyperliquid-python-sdk==0.24.0 \
	coinbasepro==0.4.2 binance-sdk-derivatives-trading-usds-futures==18.1.0

.venv-bots/.ready: Makefile
	$(PYTHON) -m venv .venv-bots
	.venv-bots/bin/python -m pip --disable-pip-version-check install --quiet $(BOTS)
	@touch $@

trial-bots: setup-dev .venv-bots/.ready
	$(BIN)/python -m scripts.dev.bots_trial .venv-bots/bin/python
	$(BIN)/python -m scripts.dev.bots_poll

lock: setup-dev
	$(COMPILE) --upgrade -o requirements.lock
	$(COMPILE) --upgrade --extra local -c requirements.lock -o requirements-local.lock
	$(PIP_COMPILE) --upgrade --group build -c requirements-local.lock -o requirements-build.lock
	$(COMPILE) --upgrade --extra local --extra dev -c requirements-local.lock -o requirements-dev.lock
	echo arcticdb pyarrow | tr " " "\n" | $(subst pyproject.toml,-,$(COMPILE)) --upgrade -o requirements-bench.lock
