# `make help` lists the targets: the sentence after ## is its help.
# Another interpreter: make install PYTHON=/path/to/python3.12
# More than is needed here, such as CUDA's libraries and the server: make install EXTRAS=gpu,serve

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BYTECODE := $(VENV)/.bytecode
# Extras of setup.cfg: those that the targets need, those asked for, and those that are there already.
NEEDED := quickstart test dev
EXTRAS :=
comma := ,
ASKED := $(sort $(subst $(comma), ,$(EXTRAS)))
THERE := $(shell cat $(INSTALLED) 2>/dev/null)
ADDED := $(sort $(THERE) $(ASKED))
KNOWN := $(shell sed -n '/^\[options.extras_require\]/,/^\[tool/s/^\([a-z]*\) =$$/\1/p' setup.cfg)
UNKNOWN := $(filter-out $(KNOWN),$(ASKED))
empty :=
space := $(empty) $(empty)

CORPUS := runs/quickstart-corpus
WORKDIR := runs/quickstart
LAST_WER := import json; wer = [line["wer"] for line in map(json.loads, open("$(WORKDIR)/metrics.jsonl")) if "wer" in line]; \
  print("word error rate {:.2%} on voices that training never heard".format(wer[-1]))
# One utterance of each of three voices that training never hears.
UNSEEN := $(CORPUS)/eval/9001/1/9001-1-0000.flac,$(CORPUS)/eval/9002/1/9002-1-0000.flac,$(CORPUS)/eval/9003/1/9003-1-0000.flac

export TF_CPP_MIN_LOG_LEVEL ?= 3
# As run.py: without it every process imports Keras 3 too.
export TF_USE_LEGACY_KERAS ?= 1

.PHONY: help install quickstart test test-slow test-full lint typecheck clean check-python ask-more

help: ## List these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Every mode of the program: $(BIN)/python run.py --help"

install: $(INSTALLED) $(BYTECODE) ## Make the environment in .venv: 3.6 GB, most of it TensorFlow; EXTRAS=gpu for CUDA.

# What is asked for and not there is installed, although nothing has changed.
$(if $(filter-out $(THERE),$(ASKED)),$(INSTALLED): ask-more)
ask-more:
	@[ -z "$(UNKNOWN)" ] || { echo "make install: EXTRAS=$(EXTRAS): no extra $(UNKNOWN); setup.cfg has $(KNOWN)" >&2; exit 1; }

# An environment of another version than the one asked for would be used in its place.
check-python:
	@if [ -n "$(PYTHON)" ] && $(BIN)/python -c '' 2>/dev/null; then \
	  "$(PYTHON)" -c '' 2>/dev/null || { echo "make install: $(PYTHON) does not run" >&2; exit 1; }; \
	  version='import platform; print(platform.python_version())'; \
	  there=$$($(BIN)/python -c "$$version"); wanted=$$("$(PYTHON)" -c "$$version"); \
	  [ "$$there" = "$$wanted" ] || { echo "make install: $(VENV) is of Python $$there, $(PYTHON) is $$wanted;" \
	    "remove $(VENV), or name another folder: make install VENV=FOLDER PYTHON=$(PYTHON)" >&2; exit 1; }; \
	fi

# A candidate must answer: a pyenv shim of a version that is not there exists but does not run.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt | check-python
	@if $(BIN)/python -c '' 2>/dev/null; then \
	  fault=$$($(BIN)/python common/interpreter.py) && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    echo "make install: $${fault:-$(VENV) has no pip}; remove $(VENV) and try again" >&2; exit 1; }; \
	else \
	  python=""; faults=""; \
	  for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	    if ! "$$candidate" -c '' 2>/dev/null; then continue; fi; \
	    if fault=$$("$$candidate" common/interpreter.py); then python="$$candidate"; break; fi; \
	    faults="$${faults:-$$fault}"; \
	  done; \
	  if [ -z "$$python" ]; then \
	    none="$(if $(PYTHON),$(PYTHON) does not run,no Python 3.11 to 3.13 was found)"; \
	    echo "make install: $${faults:-$$none}$(if $(PYTHON),,; or name one: make install PYTHON=/path/to/python3.11)" >&2; \
	    exit 1; \
	  fi; \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV) || { echo "make install: '$$python -m venv' failed" >&2; exit 1; }; \
	fi
	@echo "installing (about 3.6 GB, most of it TensorFlow)$(if $(ADDED), with $(ADDED))"
# -qq: errors alone; a mirror of the package index may cause a warning for each package.
	@$(BIN)/python -m pip install -qq --no-compile -c constraints.txt -e '.[$(subst $(space),$(comma),$(strip $(NEEDED) $(ADDED)))]' || { \
	  echo "make install: pip failed (its message is above); check the network and the free disk space (4 GB), then run it again" >&2; exit 1; }
	@echo "$(ADDED)" > $@

# Without --no-compile pip would compile everything, half of its time, and most is never imported. What every process
# imports is compiled here: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each would take 9 s for it.
$(BYTECODE): $(INSTALLED)
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import hypothesis, jiwer, orbit, pytest, tensorflow_hub, tf_keras, xdist'
	@touch $@

quickstart: install ## Train, evaluate and transcribe on an embedded corpus: ten minutes on two cores.
	$(BIN)/python -m data.synthetic --output=$(CORPUS)
	$(BIN)/python run.py --config=configs/quickstart.py --workdir=$(WORKDIR)
	$(BIN)/python run.py --mode=transcribe --checkpoint=$(WORKDIR) --inputs=$(UNSEEN) --output=$(WORKDIR)/transcripts.jsonl
	@printf '\n'; printf '%s\n' \
	  "done: $$($(BIN)/python -c '$(LAST_WER)'); above: one utterance of each of three of them" \
	  'report, with audio: $(WORKDIR)/report.html' \
	  'next: transcribe a recording  $(BIN)/python run.py --mode=transcribe --checkpoint=$(WORKDIR) --inputs=a.wav --output=a.txt' \
	  '      train on your own data  $(BIN)/python run.py --config=configs/new_language.py:train.jsonl,dev.jsonl' \
	  '      serve the model         $(BIN)/pip install -e ".[serve]" && $(BIN)/python run.py --mode=serve --checkpoint=$(WORKDIR)'

lint: install ## Check style and formatting with ruff.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: install ## Check types with mypy.
	$(BIN)/mypy

# Most tests wait for one core to trace or compile; two at a time took 744 s where one at a time took 894 s.
WORKERS ?= 2

test: lint typecheck ## Lint, type checks and the default tests.
	$(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=loadfile

# Two at a time too, but never two of LARGE in tests/conftest.py, which need up to 10 GB each and every core.
# pytest ends with 5 where it finds no test: nothing has failed, but say so.
test-slow: ## The tests that take minutes, real speech included.
test-full: ## The tests that take longer than continuous integration has.
test-slow test-full: install
	@$(BIN)/python -m pytest -q -m $(@:test-%=%) --numprocesses=$(WORKERS) --dist=loadfile; status=$$?; \
	if [ $$status -eq 5 ]; then echo "make $@: no such tests found"; exit 0; fi; exit $$status

clean: ## Remove caches; keep the environment and runs/.
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
	@echo "kept: $(VENV) (the environment) and runs/ (corpora and results); remove them by hand"
