# Everything a checkout needs, from `make` alone. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Folders with wheels that pip may take instead of downloading them, where there are any.
WHEELS ?= $(wildcard ../shared/wheels)

PACKAGES := testbed controller edgenode trainer
CHECKED := $(PACKAGES) manifests tests benchmarks
PYTEST_ARGS ?=
# Processes that tests run in side by side; the tests of a file stay in one.
WORKERS ?= auto
PROTOS := $(wildcard testbed/rpc/*.proto)

.PHONY: help
help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment -------------------------------------------------------------------------------

.PHONY: install
install: $(STAMP) ## create .venv with the testbed command and all that the tests need
	@echo "Installed. Next:"
	@echo "  source $(BIN)/activate && testbed --help"
	@echo "  make demo    the main job, in under three minutes"
	@echo "  make test    all checks"

# The stamp is written last: an install that was interrupted is done again.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed. Name one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(addprefix --find-links ,$(WHEELS)) \
	  --editable '.[train,kubernetes,dev]'
	@touch $@

# --- checks ------------------------------------------------------------------------------------

# pytest runs last, so that its summary is the last line.
.PHONY: test
test: lint ## lint, types, layers and all tests that need no more than this machine
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff, mypy --strict and the layers between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(CHECKED)
	@$(BIN)/lint-imports --no-logo

.PHONY: test-long
test-long: $(STAMP) ## the tests marked long
	@$(BIN)/python -m pytest -m long --timeout 1800 $(PYTEST_ARGS)

.PHONY: test-cluster
test-cluster: $(STAMP) ## the tests that need a Kubernetes cluster
	@$(BIN)/python -m pytest -m cluster --timeout 1800 $(PYTEST_ARGS)

# What a trial that failed prints repeats it: make crash-campaign FAULTS=300 SEED=1 ONLY=17
FAULTS ?= 40
SEED ?= 1
STORES ?= sqlite
LANES ?= 2

.PHONY: crash-campaign
crash-campaign: $(STAMP) ## inject FAULTS=n faults drawn from SEED=n; also STORES=sqlite,mysql HDFS=1 LONG=1 ONLY=n
	@$(BIN)/python -m tests.campaign --faults $(FAULTS) --seed $(SEED) --stores $(STORES) --lanes $(LANES) \
	  $(if $(HDFS),--hdfs) $(if $(LONG),--long) $(if $(ONLY),--only $(ONLY)) $(if $(KINDS),--kinds $(KINDS))

.PHONY: bench
bench: $(STAMP) ## run the benchmarks and write their table to docs/benchmarks.md
	@$(BIN)/python -m benchmarks

# A revision is anything that git knows, and . the working tree: make bench-compare A=main B=.
A ?= HEAD
B ?= .

.PHONY: bench-compare
bench-compare: $(STAMP) ## compare the speed of two revisions, A=REV B=REV; also WORK=name INSTRUCTIONS=1
	@$(BIN)/python -m benchmarks.compare $(A) $(B) $(if $(WORK),--work $(WORK)) $(if $(INSTRUCTIONS),--instructions)

# --- the main job ------------------------------------------------------------------------------

# Leaves no process behind, whichever way it ends.
.PHONY: demo
demo: $(STAMP) ## a small network up, three schedulers, comparison, report, down; then learn a policy
	@PATH="$(CURDIR)/$(BIN):$$PATH"; \
	trap 'testbed teardown --name demo' EXIT; \
	trap 'exit 130' INT; trap 'exit 143' TERM; \
	step() { printf '\n$$ %s\n' "$$*"; "$$@"; }; \
	step testbed up quickstart --name demo; \
	step testbed run --name demo --scheduler ratc --episodes 4; \
	step testbed run --name demo --scheduler rda --episodes 4; \
	step testbed run --name demo --scheduler drl --episodes 4; \
	step testbed compare --name demo; \
	step testbed report --name demo --out demo-report; \
	step testbed teardown --name demo; \
	step testbed o2o quickstart --simulate --log-episodes 100 --offline-steps 1000 \
	  --online-episodes 200 --evaluation-episodes 20 --anew --out demo-o2o; \
	trap - EXIT

# --- images ------------------------------------------------------------------------------------

include manifests/images/images.mk

# --- documentation -----------------------------------------------------------------------------

.PHONY: docs
docs: $(STAMP) ## build the pages of docs/ as a site, strict about links, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html; to search it: $(BIN)/python -m http.server -d build/site"

.PHONY: pictures
pictures: $(STAMP) ## draw the pictures of README.md and the front page anew
	@$(BIN)/python -m benchmarks.pictures

# --- upkeep ------------------------------------------------------------------------------------

.PHONY: format
format: $(STAMP) ## format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The mapping gives the generated modules the package they are imported from.
.PHONY: proto
proto: $(STAMP) ## regenerate testbed/rpc/generated from testbed/rpc/*.proto
	@$(BIN)/python -m grpc_tools.protoc -I testbed/rpc/generated=testbed/rpc \
	  --python_out=. --pyi_out=. --grpc_python_out=. \
	  $(patsubst testbed/rpc/%,testbed/rpc/generated/%,$(PROTOS))

.PHONY: golden
golden: $(STAMP) ## write anew what the Kubernetes overlays are expected to render
	@$(BIN)/python -m tests.manifests.golden

.PHONY: clean
clean: ## remove the environment, caches and everything built
	rm -rf $(VENV) build dist demo-report demo-o2o crash-campaign *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +
