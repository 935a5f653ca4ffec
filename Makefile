# One door for people and for CI. Every target sets up what it needs: a fresh machine has only
# make and Python 3.11 or newer (on Debian and Ubuntu also python3-venv).

PYTHON ?= python3
VENV := .venv
JOBS ?= 2
TEST_JOBS ?= 3
SEEDS ?= 1000
DEMO_ARGS ?=
BENCH_ARGS ?=

PY := $(VENV)/bin/python
RUFF := $(VENV)/bin/ruff
READY := $(VENV)/.python-ready
RAFTOS := $(VENV)/.raftos-ready
DEMO := $(VENV)/.demo-ready
DEV := $(VENV)/.dev-ready
PEERS := .peers/.ready
# Idle workers take tests from the end of a busy one's list: neighbours, which share a cluster, stay.
PYTEST := $(PY) -m pytest -q --dist worksteal
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
CODE := $(wildcard p2psched tests bench examples)

# Hundreds of processes are started here, and would each compile all of the code again.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup setup-raftos demo check fmt fmt-check lint types test test-process test-rest test-long test-upgrade sim \
	bench bench-peers docs clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18

setup: $(DEV) ## Make the virtual environment with everything in it

# Its pins are of 2016: it is installed without them, and with what stands in for them today.
setup-raftos: $(RAFTOS) ## Add raftos, another engine for the ledger (docs/engines.md)

demo: $(DEMO) ## Show it: peers, a job, a failure (DEMO_ARGS="--short")
	$(VENV)/bin/p2psched demo $(DEMO_ARGS)

check: fmt-check lint types test ## Everything that a change must pass

fmt: $(DEV) ## Format the code
	$(RUFF) format $(CODE)
	$(RUFF) check --fix-only --quiet $(CODE)

fmt-check: $(DEV)
	$(RUFF) format --check $(CODE)

lint: $(DEV) ## Look for mistakes
	$(RUFF) check $(CODE)

types: $(DEV) ## Check the types, strictly
	$(PY) -m mypy $(CODE)

# Processes on loopback wait more than they compute: three at a time keep two cores busy.
test: $(DEV) ## Run the tests: all fast ones, and of those with processes a few of each room
	$(PYTEST) -n $(TEST_JOBS) -m "not long and not wide and (smoke or not process)"

test-process: $(DEV) ## Run all tests that start processes (about 7 minutes)
	$(PYTEST) -n $(TEST_JOBS) -m "process and not long"

test-rest: $(DEV) ## Run what `make test` leaves out, but for the long ones
	$(PYTEST) -n $(TEST_JOBS) -m "not long and (wide or process and not smoke)"

test-long: $(DEV) ## Run the tests that take minutes, and the properties on new examples
	$(PYTEST) -rs --durations=20 -m long
	HYPOTHESIS_PROFILE=long $(PYTEST) -n $(JOBS) tests/model

test-upgrade: $(DEV) ## Upgrade a cluster of an older version to this one, peer by peer
	$(PYTEST) -rs -m long tests/upgrade

sim: $(DEV) ## Simulate clusters under faults (SEEDS=1000)
	$(VENV)/bin/p2psched sim run --seeds $(SEEDS) --jobs $(JOBS)

bench: $(DEV) ## Measure (BENCH_ARGS="--only NAME --repeat N --no-record")
	$(PY) -m bench.run $(BENCH_ARGS)

bench-peers: $(DEV) $(PEERS) ## Measure beside Dask, Ray and Celery, in an environment of their own
	$(PY) -m bench.run --rivals $(BENCH_ARGS)

docs: $(DEV) ## Check that the documents agree with each other and with the files
	$(PY) -m pytest -q tests/meta/test_docs.py

clean: ## Remove everything that the targets above made
	rm -rf $(VENV) .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find p2psched tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "p2psched needs Python 3.11 or newer, and there is no '$(PYTHON)' here:" \
	    "install it, or set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "p2psched needs Python 3.11 or newer, '$(PYTHON)' is" \
	    "$$($(PYTHON) -c 'import platform; print(platform.python_version())'):" \
	    "set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments:" \
	    "apt-get install python3-venv" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO): $(READY) pyproject.toml
	$(PIP) -e '.[demo]'
	@touch $@

$(DEV): $(READY) pyproject.toml
	$(PIP) -e '.[demo,dev]'
	@touch $@ $(DEMO)

$(RAFTOS): $(DEV)
	$(PIP) 'cryptography>=42'
	$(PIP) --no-deps raftos==0.2.6
	@touch $@

# A rival that can't be installed here is named in the report, and the others are measured.
$(PEERS): $(READY)
	rm -rf .peers
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --disable-pip-version-check distributed psutil
	-.peers/bin/python -m pip install --quiet --disable-pip-version-check ray
	-.peers/bin/python -m pip install --quiet --disable-pip-version-check 'celery[redis]'
	@touch $@
