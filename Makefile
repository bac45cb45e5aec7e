# Everything a newcomer types. Each target sets up what it needs in a virtual environment of its own.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CONFIG ?= conf/rules.yaml
# What to pass to trial: `make test TESTS=tests.wire`.
TESTS ?= tests
# Which of its cases to measure; all of them if none is given.
CASE ?=
READY := $(VENV)/.installed

.PHONY: help run test check install measure clean

help:
	@echo "make run      start the proxy on $(CONFIG), in the foreground (CONTROL-C ends it)"
	@echo "make test     run the tests (TESTS=tests.wire for a part)"
	@echo "make check    ruff and mypy"
	@echo "make measure  the figures of bench/README.md, measured here (needs nginx, wrk; CASE=name for one)"
	@echo "make clean    take away what the other targets made"

run: $(READY)
	exec $(BIN)/twistd --nodaemon --pidfile= streamproxy -c $(CONFIG)

test: $(READY)
	$(BIN)/python -m tests $(TESTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What each figure is: bench/README.md. One case: `make measure CASE=stall-up`.
measure: $(READY)
	$(BIN)/python -m bench.measure $(CASE)

install: $(READY)

$(READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV) || sh .ci/venv "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@

clean:
	rm -rf $(VENV) _trial_temp* .hypothesis .mypy_cache .ruff_cache build dist *.egg-info bench/.env bench/results
