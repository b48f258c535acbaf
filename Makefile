# The words of this repository. `make help` lists them.
# Everything is installed into .venv from hashed requirement files; nothing outside this folder is touched.
# PYTHON names the interpreter, where it is not the first good one on PATH: make PYTHON=python3.12 run

BIN := .venv/bin
LOCK := --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate \
	--custom-compile-command 'make lock'

# What has become of .venv since: an attempt that was killed, a moved folder, a Python that is gone.
AGAIN := $(shell sh scripts/setup.sh check || echo again)

.PHONY: run test lint format bench lock clean help again

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
	@sh scripts/setup.sh venv

.venv/.installed: requirements.txt pyproject.toml $(AGAIN)
	@sh scripts/setup.sh run

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	@sh scripts/setup.sh dev
