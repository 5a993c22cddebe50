# `make` alone prints what there is. Set-up happens by itself, once, guarded by stamps.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TARGET ?= cpu-litert
SPEC ?= examples/mnist/spec.yaml
PYTEST_ARGS ?= -n auto --dist worksteal

# Models and data too large for the project; tests that need them skip without it.
EDGESMITH_DATA ?= ../shared/data
ifneq ($(wildcard $(EDGESMITH_DATA)/.),)
export EDGESMITH_DATA := $(abspath $(EDGESMITH_DATA))
else
unexport EDGESMITH_DATA
endif

BIN := .venv/bin
READY := .venv/ready
OLD := .venvs/tflite-runtime
OLD_READY := $(OLD)/ready
SYSTEM_READY := .setup/system-packages
BENCHMARKS := $(filter-out deployments rows,$(basename $(notdir $(wildcard benchmarks/*.py))))

# What the tests of reports in a browser and of microcontroller targets run.
APT_PACKAGES := chromium chromium-driver \
	gcc g++ libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm clang ccache
APT_LINE := apt-get install -y $(APT_PACKAGES)
PROGRAMS := chromedriver chromium gcc g++ arm-none-eabi-gcc qemu-system-arm clang

# Newest first but for 3.11, whose wheels include the old runtime's.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.14 python3.13 python3.12 python3,\
	$(shell $(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf 'make %-12s %s\n' 'bench-NAME' 'one benchmark: $(BENCHMARKS)'

.PHONY: deploy
deploy: $(READY) $(if $(filter cpu-tflite-runtime,$(TARGET)),$(OLD_READY)) $(if $(filter cortex-% c-host%,$(TARGET)),$(SYSTEM_READY)) ## run SPEC for TARGET to its report
	$(BIN)/edgesmith run $(SPEC) $(addprefix --target ,$(TARGET))

.PHONY: test
test: setup ## run all tests: style, types, packaging, behaviour
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(READY) ## style and types only
	$(BIN)/python -m pytest tests/guards/test_style.py tests/guards/test_types.py

.PHONY: bench
bench: $(addprefix bench-,$(BENCHMARKS)) ## all benchmarks; results go to benchmarks/results

bench-%: setup
	$(BIN)/python benchmarks/$*.py

.PHONY: setup
setup: $(READY) $(OLD_READY) $(SYSTEM_READY) ## make the environments (the other commands do it by themselves)

.PHONY: clean
clean: ## remove what builds and tests leave; environments, runs and the cache stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -path ./.venvs -prune -o -path ./.git -prune \
		-o -name __pycache__ -type d -exec rm -rf {} +

# make-environment FOLDER: an empty environment with a working pip, made again only if it is broken
define make-environment
	@test -n "$(PYTHON)" || { echo 'edgesmith needs Python 3.11 or newer, and there is none on PATH.' >&2; \
		echo 'Install it (apt-get install python3 python3-venv), or: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		version=$$($(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
		echo "$$version cannot make virtual environments: its venv module is missing." >&2; \
		echo "Install it: apt-get install -y $$version-venv" >&2; exit 1; }
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
endef

$(READY): pyproject.toml constraints.txt
	$(call make-environment,.venv)
	$(BIN)/python -m pip install -c constraints.txt -e '.[bench,examples,neural-compressor,test]'
	@touch $@

$(OLD_READY): constraints-tflite-runtime.txt
	$(call make-environment,$(OLD))
	@if $(OLD)/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
		$(OLD)/bin/python -m pip install -c constraints-tflite-runtime.txt tflite-runtime numpy; \
	else \
		echo 'tflite-runtime has no wheel for Python 3.12 and newer: its tests will be skipped.' >&2; \
		echo 'To run them: apt-get install -y python3.11-venv && make -B $(OLD)/ready PYTHON=python3.11' >&2; \
	fi
	@touch $@

# Only some targets and tests need these; a failure here is a message, not an error.
$(SYSTEM_READY): Makefile
	@mkdir -p $(@D)
	@missing=; for program in $(PROGRAMS); do command -v $$program >/dev/null || missing+=" $$program"; done; \
	if [ -z "$$missing" ]; then touch $@; exit 0; fi; \
	what=; case "$$missing" in *chrom*) what='the tests of reports in a browser';; esac; \
	case "$${missing//chrom/}" in *gcc*|*qemu*|*clang*) \
		what="microcontroller targets with their tests$${what:+, and $$what}";; esac; \
	case "$$missing" in *g++*) what+="$${what:+, and }what benchmarks compile of peers";; esac; \
	without() { \
		echo "$$1:$$missing." >&2; \
		echo "Left out without: $$what. To get them:" >&2; \
		echo "  $$2$(APT_LINE)" >&2; \
		touch $@; \
		exit 0; \
	}; \
	command -v apt-get >/dev/null || without 'Not installed, and there is no apt-get here' ''; \
	if [ "$$(id -u)" = 0 ]; then root=; \
	elif sudo -n true 2>/dev/null; then root='sudo -n'; \
	else without 'Not installed, and this user may not install packages' 'sudo '; fi; \
	{ $$root apt-get update && $$root env DEBIAN_FRONTEND=noninteractive $(APT_LINE) && touch $@; } \
		|| without 'Installing failed' ''
