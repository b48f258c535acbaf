# The words of this repository. `make help` lists them.
# Everything is installed into .venv from hashed requirement files; nothing outside this folder is touched.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
LOCK := --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate \
	--custom-compile-command 'make lock'

.PHONY: run test lint format bench lock clean help

run: .venv/.installed  ## start the gateway in the foreground (settings come from the environment: PORT=4000 make run)
	@exec $(BIN)/tollway serve

test: .venv/.installed-dev  ## every test, on a real PostgreSQL that the tests start themselves
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.installed-dev  ## linters, formatter and type checker, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.installed-dev  ## let the linter and the formatter mend what they can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.installed-dev  ## compare with nginx side by side (needs nginx and wrk; ARGS="--quick" for a short run)
	$(BIN)/python -m bench $(ARGS)

lock: | .venv/bin/python  ## write the hashed requirement files anew from pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile $(LOCK) --extra build -o requirements.txt pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --extra build --extra dev -o requirements-dev.txt pyproject.toml

clean:  ## remove what these words have made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Tollway needs Python 3.11 or newer; none was found on PATH (set PYTHON=…)."; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
