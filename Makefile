# Each target sets up all that it needs: a virtual environment in $(VENV), made again when a pyproject.toml changes.
#   make demo         distil the embedded example, export it, ask it two questions, time it
#   make test         style, types, the fast tests, a tiny run from end to end, the two light installs
#   make test-full    all tests, the slow ones over real data too: QA_EDGE_DATA names the folder that holds it
#   make bench        latency of a bundle on this machine: make bench BUNDLE=first.qab
# PYTHON chooses the interpreter (3.10 or later), TORCH the torch that is installed first.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROJECTS := pyproject.toml runtime/pyproject.toml
EXAMPLE := qa_edge/example
DEMO := runs/demo
SMOKE := runs/smoke
# The bundle that ships, if there is one, else the demo's.
BUNDLE ?= $(firstword $(wildcard models/*.qab models/*/*.qab models/*/*/*.qab) $(DEMO)/demo.qab)

.DEFAULT_GOAL := help
.PHONY: help demo test test-full bench lint fast-tests smoke light clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "qa-edge needs Python 3.10 or later, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "pip>=23"
	$(PIP) install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.train: $(VENV)/.torch $(PROJECTS)
	$(PIP) install --quiet -e ./runtime -e ".[train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(PROJECTS)
	$(PIP) install --quiet -e ./runtime -e ".[dev]"
	@touch $(VENV)/.train $@
