# `make demo` and `make test` set up what they need in .venv, once; again when the files that say what to install change.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first interpreter that is new enough; `make demo PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# torch comes first and alone, so that nothing else decides its build. Where the index offers CUDA builds only under this
# name, give another one: make demo TORCH="torch==2.13.0 --index-url URL"
TORCH ?= torch==2.13.0
# More arguments of `cyclemimic demo`, e.g. make demo ARGS="--quick"
ARGS ?=
# Tests at once; each starts processes of its own here and there.
JOBS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1

.PHONY: help setup system browser demo test test-transformers test-wheel lint types format clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## install everything in .venv

$(READY): setup.py pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON): one to five minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet $(TORCH)
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[sim,dev]'
	@touch $@

define apt_install
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "installing $(1)"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq >/dev/null; apt-get install -qq -y --no-install-recommends $(1) >/dev/null; \
fi
endef

# The simulator renders without a screen through EGL, from three Debian packages. Without them its tests are skipped and
# the demo says what is missing.
EGL := MUJOCO_GL=egl $(BIN)/python -c 'import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()'
EGL_PACKAGES := libegl1 libopengl0 libgl1-mesa-dri

system: $(READY)  ## install the simulator's Debian packages, where root may
	@$(EGL) >/dev/null 2>&1 && exit 0; $(call apt_install,$(EGL_PACKAGES)); \
	$(EGL) >/dev/null 2>&1 || echo "make: the simulator cannot render here: apt-get install $(EGL_PACKAGES)" >&2

demo: system  ## from video to a moving robot; the result is demo_output/report.html
	$(BIN)/cyclemimic demo $(ARGS)

# The page's test looks at it in a browser, as the tests alone do; REQUIRE_BROWSER=1 makes them fail where there is none.
BROWSER := { command -v chromium || command -v chromium-headless-shell || command -v google-chrome; }

browser:  ## install the tests' browser, where root may
	@$(BROWSER) >/dev/null && exit 0; $(call apt_install,chromium); \
	$(BROWSER) >/dev/null || echo "make: the page's test needs a browser: apt-get install chromium" >&2

# For the tests alone: the demo has no use for these, and some say so at every start.
$(VENV)/.extras: $(READY)
	@$(BIN)/pip install --quiet --constraint constraints.txt deepspeed bitsandbytes gradio playwright gym-pusht
	@touch $@

test: system browser $(VENV)/.extras  ## run the tests
	$(BIN)/pytest -q --durations=10 --numprocesses $(JOBS) --dist loadfile

# The library's tests of models and processors are in its source distribution alone.
TRANSFORMERS_TESTS := $(VENV)/transformers_tests

$(TRANSFORMERS_TESTS): $(READY)
	@$(BIN)/pip install --quiet --constraint constraints.txt parameterized
	@$(BIN)/pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest $@.partial \
		transformers==$$($(BIN)/python -c 'import transformers; print(transformers.__version__)')
	@tar -xzf $@.partial/*.tar.gz -C $@.partial --strip-components=1 --wildcards '*/tests'
	@mv $@.partial $@

test-transformers: $(TRANSFORMERS_TESTS)  ## run transformers' own tests of models and processors on ours
	TRANSFORMERS_TESTS=$(TRANSFORMERS_TESTS)/tests $(BIN)/pytest -q tests/transformers_suite

test-wheel: $(READY)  ## install the wheel with what it asks for in a clean environment, and use it
	CLEAN_TORCH="$(TORCH)" $(BIN)/pytest -q tests/test_wheel.py

lint: $(READY) types  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# With what is installed for the tests, whose types the page is checked against, too.
types: $(VENV)/.extras  ## check types
	$(BIN)/mypy

format: $(READY)  ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and caches, not results
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info src/*/*.egg-info src/*/build
