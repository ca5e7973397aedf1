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
PY := $(VENV)/bin/python
EXTRAS := backend,worker,store,train,eval,stack,dev

# A stamp per environment: it is newer than what the environment was made from, or it is made again.
ENV_STAMPS := $(if $(filter file,$(origin VENV)),$(VENV)/.ready) \
              $(if $(filter file,$(origin LABEL_STUDIO_VENV)),$(LABEL_STUDIO_VENV)/.ready)
STACK := OSPREY_LABEL_STUDIO_EXECUTABLE=$(abspath $(LABEL_STUDIO_VENV))/bin/label-studio $(PY) -m stack
PYTEST := OSPREY_LABEL_STUDIO_EXECUTABLE=$(abspath $(LABEL_STUDIO_VENV))/bin/label-studio $(PY) -m pytest

.PHONY: help env browser up down osprey logs status test test-all test-compose lint train-demo eval-demo loop-demo docs docs-picture

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

env: $(ENV_STAMPS) ## build both Python environments (once; 7 GB, most of it torch)

.PHONY: python-ok
python-ok:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make env: '$(PYTHON)' is not Python 3.11 or newer. Install python3.11 and say which: make env PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make env: $(PYTHON) has no venv module. On Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.ready: pyproject.toml constraints.txt | python-ok
	@echo "[1/2] Python packages into $(VENV): about 6 GB with torch, some minutes. The next run does nothing."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e ".[$(EXTRAS)]" & \
	  pid=$$!; start=$$SECONDS; \
	  while kill -0 $$pid 2>/dev/null; do sleep 1; \
	    if (( (SECONDS - start) % 15 == 0 )); then echo "      $$((SECONDS - start)) s, $$(du -sm $(VENV) | cut -f1) MB installed"; fi; done; \
	  wait $$pid || { echo "make env: pip could not install the packages (see above); correct the cause and run make env again" >&2; exit 1; }
	@# Its pins (Flask 1.1, Jinja 3.0, ...) are end of life and it imports none of them where we use it.
	@$(VENV)/bin/pip install --disable-pip-version-check -q --no-deps label-studio-ml==1.0.9 label-studio-tools==0.0.4
	@touch $@

$(LABEL_STUDIO_VENV)/.ready: constraints-label-studio.txt | python-ok
	@echo "[2/2] Label Studio into $(LABEL_STUDIO_VENV): about 1 GB, a minute or two."
	@$(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	@$(LABEL_STUDIO_VENV)/bin/pip install --disable-pip-version-check -q -c constraints-label-studio.txt label-studio==1.23.2 \
	  || { echo "make env: pip could not install Label Studio (see above)" >&2; exit 1; }
	@touch $@

up: env ## start everything on this machine; prints the address and the login
	@$(STACK) up

down: ## stop everything; projects, annotations and settings stay in .osprey/
	@[ ! -x $(PY) ] || $(STACK) down

osprey: ## run the osprey command against the running stack: make osprey ARGS="export --project 1 --out data"
	@$(STACK) osprey $(ARGS)

logs: ## follow the logs of every part
	@$(STACK) logs

status: ## what runs, where, and whether it is healthy
	@$(STACK) status

browser:
	@command -v chromium >/dev/null || { \
	  echo "Installing Debian's chromium for the browser tests."; \
	  root=""; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	  $$root true 2>/dev/null || { echo "make test: the browser tests need chromium. Run as root: apt-get install chromium fonts-dejavu-core" >&2; exit 1; }; \
	  $$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null \
	    || { echo "make test: apt-get could not install chromium (see above)" >&2; exit 1; }; }

test: env browser ## all tests that need no GPU and no official weights, browser tests included
	$(PYTEST) -m "not gpu and not weights and not slow"

test-all: env browser ## the slow ones too, and the GPU ones where there is a GPU
	$(PYTEST) -m "not weights$$(command -v nvidia-smi >/dev/null || echo ' and not gpu')"

test-compose: env ## build docker-compose.yml, bring it up, click, take it down (OSPREY_COMPOSE="docker compose")
	$(PYTEST) -m compose tests/compose

lint: env ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

train-demo: env ## train both small models again, about two hours on two cores; goes on where a stop happened
	$(PY) -m demo.training.sam --out demo/checkpoints/sam-nano --resume
	$(PY) -m demo.training.osprey --out demo/checkpoints/osprey-nano --resume
	@echo "Trained. The work folders .osprey/train-sam and .osprey/train-osprey can go; remove them to start over."

eval-demo: env ## click every object of 200 unseen scenes through the backend and print the table
	$(PY) -m bench.quality.evaluate

loop-demo: env ## run the learning loop with a simulated annotator: make loop-demo ARGS="--rounds 3 --regions 300 --seed 0 --out DIR"
	$(PY) -m bench.loop $(ARGS)

docs: env ## build the documentation's website into site/
	@$(PY) -c 'import material' 2>/dev/null || { \
	  [ "$(origin VENV)" = file ] || { echo "make docs: MkDocs is missing in $(VENV). Install the extra 'docs' of pyproject.toml there" >&2; exit 1; }; \
	  $(PY) -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[docs]"; }
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict -d site

docs-picture: env browser ## make the README's moving picture again from the real page, about four minutes
	OSPREY_LABEL_STUDIO_EXECUTABLE=$(abspath $(LABEL_STUDIO_VENV))/bin/label-studio \
	  $(PY) -m tests.e2e.docs_picture --out docs/images/click.webp --still docs/images/click.png
