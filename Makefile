# Each target sets up all that it needs: a virtual environment in $(VENV), made again when a pyproject.toml changes.
#   make demo         distil the embedded example, export it, ask it two questions; then ask and time the model that ships
#   make test         style, types, the fast tests, a tiny run from end to end, the light installs
#   make test-full    all tests, the slow ones over real data too: QA_EDGE_DATA names the folder that holds it
#   make bench        latency on this machine, of the model that ships or another: make bench BUNDLE=first.qab
#   make peers        the same beside the small BERTs, as docs/performance.md has it: make peers RUN=runs/first SQUAD=dev-v1.1.json
# PYTHON chooses the interpreter (3.10 or later), TORCH the torch that is installed first.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROJECTS := pyproject.toml runtime/pyproject.toml models/pyproject.toml
EXAMPLE := qa_edge/example
DEMO := runs/demo
SMOKE := runs/smoke
BUNDLE ?= models/qa_edge_models/edge.qab

# On tensors of this size a second thread gains little, and loses a lot as soon as anything else runs.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-text test test-full bench peers lint fast-tests smoke light real-data clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "qa-edge needs Python 3.10 or later, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "pip>=23"
	$(PIP) install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.train: $(VENV)/.torch $(PROJECTS)
	$(PIP) install --quiet -e ./runtime -e ./models -e ".[train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(PROJECTS)
	$(PIP) install --quiet -e ./runtime -e ./models -e ".[dev]"
	@touch $(VENV)/.train $@

# Learns the example by heart: without dropout and with little of the teacher, so that it has something to show.
$(DEMO)/demo.qab: $(wildcard $(EXAMPLE)/*) | $(VENV)/.train
	rm -rf $(DEMO)
	$(BIN)/qa-edge distill --squad $(EXAMPLE)/train.json --dev $(EXAMPLE)/dev.json --vectors $(EXAMPLE)/vectors.txt.gz \
	    --labels $(EXAMPLE)/labels --preset edge --epochs 14 --batch-size 8 --warmup 50 --schedule cosine --rho 0.5 \
	    --mse-weight 0.1 --dropout 0 --character-dropout 0 --survival 1 -o $(DEMO)
	$(BIN)/qa-edge export $(DEMO) --onnx --int8 -o $@ --questions $(EXAMPLE)/dev.json --margin 5 \
	    --licence data="Apache-2.0 (qa-edge's own example)" --licence vectors="PDDL 1.0 (GloVe 6B)"

demo: demo-text $(DEMO)/demo.qab
	$(BIN)/qa-edge info $(DEMO)/demo.qab
	@echo
	@echo "THE TOY: a question that it was trained on, and one on a text that it has never seen:"
	$(BIN)/python tools/ask_example.py $(DEMO)/demo.qab
	@echo
	@echo "That was the way from data to device on a toy of 299 questions ($(DEMO)/demo.qab). It is NOT a good model: what it"
	@echo "answers on texts that it has not seen is mostly wrong. README.md says how a real one is trained."
	@echo
	@echo "THE MODEL THAT SHIPS (qa-edge-models, trained on SQuAD), on the same documents, none of which it has seen:"
	$(BIN)/python tools/ask_example.py
	@echo
	@echo "Its latency on this machine:"
	$(BIN)/qa-edge bench --squad $(EXAMPLE)/dev.json --paced 0

demo-text:
	@echo "This shows the pipeline on a toy in some minutes (the first time it also installs torch), then the model that ships."

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vermin -q --no-tips --target=3.10- --violations runtime
	$(BIN)/vermin -q --no-tips --target=3.10- --violations qa_edge export benchmarks tools tests

# Two processes: each makes the models that its tests share, so that more gain little.
fast-tests: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --durations 25

# A student of toy size, interrupted and gone on with, exported, scored through torch and through the bundle.
smoke: $(VENV)/.dev
	rm -rf $(SMOKE)
	$(BIN)/qa-edge distill --squad $(EXAMPLE)/train.json --dev $(EXAMPLE)/dev.json --vectors $(EXAMPLE)/vectors.txt.gz \
	    --labels $(EXAMPLE)/labels --hidden 32 --model-blocks 2 --heldout 0.8 --epochs 2 --batch-size 8 --warmup 5 \
	    --max-steps 5 -o $(SMOKE)
	$(BIN)/qa-edge distill --resume $(SMOKE)
	$(BIN)/qa-edge evaluate $(SMOKE) --squad $(EXAMPLE)/dev.json
	$(BIN)/qa-edge export $(SMOKE) --onnx --tflite --int8 --fp32 --margin 100 -o $(SMOKE)/smoke.qab
	$(BIN)/qa-edge evaluate $(SMOKE)/smoke.qab --squad $(EXAMPLE)/dev.json --engine onnx
	$(BIN)/qa-edge evaluate $(SMOKE)/smoke.qab --squad $(EXAMPLE)/dev.json --engine tflite --precision fp32
	$(BIN)/qa-edge evaluate $(SMOKE)/smoke.qab --squad $(EXAMPLE)/dev.json --whole-articles --max-windows 2
	$(BIN)/qa-edge pack $(SMOKE)/smoke.qab -o $(SMOKE)/smoke.qab.zip
	$(BIN)/python -m qa_edge_runtime verify $(SMOKE)/smoke.qab.zip
	$(BIN)/qa-edge answer $(SMOKE)/smoke.qab --question "Where is the switch?" --context "The switch is under the lid."
	$(BIN)/qa-edge bench $(SMOKE)/smoke.qab --squad $(EXAMPLE)/dev.json --limit 20 --cold-starts 1 --paced 0

# What a plain install, the runtime alone and the runtime with each engine bring, each in an environment of its own; the
# engines have to give the same logits. The host is tried again without qa-edge-models, the runtime with LiteRT again with
# it, and tflite-runtime beside a numpy that it does not work with.
QUIET_INSTALL := -m pip --disable-pip-version-check install --quiet
RUNTIME_WHEEL := $$(ls $(VENV)/wheel/qa_edge_runtime-*.whl)
MODELS_WHEEL := $$(ls $(VENV)/wheel/qa_edge_models-*.whl)
light: smoke
	rm -rf $(VENV)/wheel
	$(PIP) wheel --quiet --no-deps --wheel-dir $(VENV)/wheel ./runtime ./models
	$(BIN)/python tests/light_install.py wheel $(RUNTIME_WHEEL)
	$(BIN)/python tests/light_install.py models-wheel $(MODELS_WHEEL)
	$(BIN)/python tests/light_install.py expect $(SMOKE)/smoke.qab $(SMOKE)/expected.json
	$(PYTHON) -m venv --clear $(VENV)/light
	$(VENV)/light/bin/python $(QUIET_INSTALL) ./runtime ./models .
	$(VENV)/light/bin/python tests/light_install.py host $(SMOKE)/smoke.qab
	$(VENV)/light/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes qa-edge-models
	$(VENV)/light/bin/python tests/light_install.py without-models qa_edge $(SMOKE)/smoke.qab
	$(PYTHON) -m venv --clear $(VENV)/runtime
	$(VENV)/runtime/bin/python $(QUIET_INSTALL) $(RUNTIME_WHEEL)
	$(VENV)/runtime/bin/python tests/light_install.py runtime $(SMOKE)/smoke.qab
	set -e; for engine in onnx tflite; do \
	    $(PYTHON) -m venv --clear $(VENV)/$$engine; \
	    $(VENV)/$$engine/bin/python $(QUIET_INSTALL) "$(RUNTIME_WHEEL)[$$engine]"; \
	    $(VENV)/$$engine/bin/python tests/light_install.py $$engine $(SMOKE)/smoke.qab $(SMOKE)/expected.json; \
	done
	$(VENV)/tflite/bin/python tests/light_install.py without-models qa_edge_runtime $(SMOKE)/smoke.qab
	$(VENV)/tflite/bin/python $(QUIET_INSTALL) $(MODELS_WHEEL)
	$(VENV)/tflite/bin/python tests/light_install.py models
	set -e; if $(PYTHON) -c 'import sys; sys.exit(0 if sys.platform == "linux" and sys.version_info < (3, 12) else 1)'; then \
	    $(PYTHON) -m venv --clear $(VENV)/tflite-runtime; \
	    $(VENV)/tflite-runtime/bin/python $(QUIET_INSTALL) "$(RUNTIME_WHEEL)[tflite-runtime]"; \
	    $(VENV)/tflite-runtime/bin/python tests/light_install.py tflite-runtime $(SMOKE)/smoke.qab $(SMOKE)/expected.json; \
	    $(VENV)/tflite-runtime/bin/python $(QUIET_INSTALL) "numpy>=2"; \
	    $(VENV)/tflite-runtime/bin/python tests/light_install.py numpy-2 $(SMOKE)/smoke.qab; \
	else \
	    echo "light install (tflite-runtime): skipped, it has wheels for Linux and Python up to 3.11 alone"; \
	fi

test: lint smoke light fast-tests

test-full: real-data lint smoke light
	$(BIN)/python -m pytest -m "slow or not slow"

real-data:
	@test -n "$(QA_EDGE_DATA)" -a -d "$(QA_EDGE_DATA)" || \
	    { echo "make test-full needs real data: set QA_EDGE_DATA to the folder that holds it" >&2; exit 2; }

bench: $(VENV)/.train
	$(BIN)/qa-edge bench $(BUNDLE)

# RUN is a trained run, whose words and questions the presets with random weights take.
peers: $(VENV)/.dev
	@test -n "$(RUN)" -a -n "$(SQUAD)" || { echo "name a run and questions: make peers RUN=runs/first SQUAD=dev-v1.1.json" >&2; exit 2; }
	$(BIN)/python benchmarks/peers.py --cache benchmarks/.cache --squad $(SQUAD) --bundle edge=$(BUNDLE) --presets $(RUN) -o docs/benchmarks

clean:
	rm -rf $(VENV) $(DEMO) $(SMOKE) .pytest_cache .mypy_cache .ruff_cache .hypothesis
