# One command each. `make help` lists them.
#
# VENV=/path uses a virtual environment that you made yourself (nothing is installed into it);
# LABEL_STUDIO_VENV=/path does the same for Label Studio's own.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
LABEL_STUDIO_VENV ?= .venv-label-studio
PY = "$(VENV)/bin/python"

# The environments that make builds: those in the checkout, unless VENV or LABEL_STUDIO_VENV names another one.
ENVIRONMENTS := $(if $(filter file,$(origin VENV)),.venv) \
                $(if $(filter file,$(origin LABEL_STUDIO_VENV)),.venv-label-studio)
# The default executable. Its path is relative, because make would split an absolute path that contains blanks.
ifeq ($(origin OSPREY_LABEL_STUDIO_EXECUTABLE),undefined)
export OSPREY_LABEL_STUDIO_EXECUTABLE := $(LABEL_STUDIO_VENV)/bin/label-studio
endif
STACK = $(PY) -m stack
PYTEST = $(PY) -m pytest
ALL_TESTS = $(PY) tests/run_all.py

.PHONY: help env browser up down osprey logs status test test-all test-compose lint train-demo eval-demo loop-demo docs docs-settings docs-picture

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

env: $(if $(strip $(ENVIRONMENTS)),python-ok) ## build both Python environments (once; 7 GB, most of it torch)
	@$(if $(strip $(ENVIRONMENTS)),"$(PYTHON)" -m stack.environment $(ENVIRONMENTS) \
	  $(if $(filter-out file,$(origin PYTHON)),--this-python),:)

.PHONY: python-ok
python-ok:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make env: '$(PYTHON)' is not Python 3.11 or newer. Install python3.11 and say which: make env PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make env: $(PYTHON) has no venv module. On Debian: apt-get install python3-venv" >&2; exit 1; }

up: env ## start everything on this machine; prints the address and the login
	@$(STACK) up

down: ## stop everything; projects, annotations and settings stay in .osprey/
	@[ ! -x $(PY) ] || $(STACK) down

osprey: ## run the osprey command against the running stack: make osprey ARGS="export --project 1 --out data"
	@$(STACK) osprey $(ARGS)

logs: ## follow the logs of every process
	@$(STACK) logs

status: ## show what runs, where, and whether it works
	@$(STACK) status

browser:
	@command -v chromium >/dev/null || { \
	  echo "Installing Debian's chromium for the browser tests."; \
	  root=""; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	  $$root true 2>/dev/null || { echo "make test: the browser tests need chromium. Run as root: apt-get install chromium fonts-dejavu-core" >&2; exit 1; }; \
	  $$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null \
	    || { echo "make test: apt-get could not install chromium (see above)" >&2; exit 1; }; }

test: env browser ## run the tests that need no GPU and no official weights, browser tests included
	$(ALL_TESTS) "not gpu and not weights and not slow"

test-all: env browser ## also run the slow tests, and those that need a GPU if there is one
	$(ALL_TESTS) "not weights$$(command -v nvidia-smi >/dev/null || echo ' and not gpu')"

test-compose: env ## build docker-compose.yml, bring it up, click, take it down (OSPREY_COMPOSE="docker compose")
	$(PYTEST) -m compose tests/compose

lint: env ## run ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

train-demo: env ## train both small models again, about two hours on two cores; continues an interrupted run
	$(PY) -m demo.training.sam --out demo/checkpoints/sam-nano --resume
	$(PY) -m demo.training.osprey --out demo/checkpoints/osprey-nano --resume
	@echo "Trained. The work folders .osprey/train-sam and .osprey/train-osprey can go; remove them to start over."

eval-demo: env ## click every object of 200 unseen scenes through the backend and print the scores
	$(PY) -m bench.quality.evaluate

loop-demo: env ## run the learning loop with a simulated annotator: make loop-demo ARGS="--rounds 3 --regions 300 --seed 0 --out DIR"
	$(PY) -m bench.loop $(ARGS)

docs: env ## build the documentation's website into site/
	@$(PY) -c 'import material' 2>/dev/null || { \
	  [ "$(origin VENV)" = file ] || { echo "make docs: MkDocs is missing in $(VENV). Install the extra 'docs' of pyproject.toml there" >&2; exit 1; }; \
	  $(PY) -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[docs]"; }
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict -d site

docs-settings: env ## write the tables of docs/settings.md from the settings classes
	@$(PY) -m tests.support.settings_page

docs-picture: env browser ## make the moving picture of README.md again from the real page, about four minutes
	$(PY) -m tests.e2e.docs_picture --out docs/images/click.webp --still docs/images/click.png
