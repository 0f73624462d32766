# What a newcomer needs: `make demo`, `make test`. Everything is set up in .venv; nothing outside this folder is
# touched but for Debian packages, which are installed when this runs as root and otherwise named.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types check bench soak setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml tools/debian-packages
	@PYTHON=$(PYTHON) sh tools/setup $(VENV)

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/demo.py

test: setup
	@$(BIN)/python -m pytest

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

check: test lint types

bench: setup
	@$(BIN)/python -m tests.bench

soak: setup
	@VCSIMG_SOAK=1 $(BIN)/python -m pytest --timeout 7200 tests/soak tests/capture/test_invisible.py tests/capture/test_large.py \
		tests/restore/test_restore_breadth.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
