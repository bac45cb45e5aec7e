# Everything a newcomer types. Each target sets up what it needs in a virtual environment of its own.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CONFIG ?= conf/rules.yaml
# What to pass to trial: `make test TESTS=tests.wire`.
TESTS ?= tests
# Which cases to measure (`make bench CASE="rate bulk-down"`, or `all`), and how many rounds of each, if not its own
# number. QUICK=1 makes one short round of each, to see that it runs.
CASE ?=
ROUNDS ?=
QUICK ?=
# The soak: how many minutes at the most, how many exchanges are enough, and how many clients at a time.
MINUTES ?=
EXCHANGES ?=
CONNECTIONS ?=
# The Autobahn|Testsuite's patterns of cases (`make autobahn CASES='1.*,12.3.*'`); all but most of 12 and 13, if not set.
# PYTHON2: a Python 2.7 for it, if not one from the PATH or pyenv.
CASES ?=
export PYTHON2
READY := $(VENV)/.installed
# Streamproxy as others install it: compiled. What is run there is run outside of this folder, which has it as it is.
COMPILED := build/compiled
OUTSIDE := build/outside
COMPILED_READY := $(COMPILED)/.installed
COMPILED_PYTHON := cd $(OUTSIDE) && ../compiled/bin/python

.PHONY: help run test test-compiled autobahn check man install bench soak micro profile clean

help:
	@echo "make run      start the proxy on $(CONFIG), in the foreground (CONTROL-C ends it)"
	@echo "make test     run the tests (TESTS=tests.wire for a part)"
	@echo "make test-compiled   the same, of streamproxy as it is installed: compiled (needs gcc and Python's headers)"
	@echo "make autobahn the Autobahn|Testsuite with the proxy in the middle (needs a Python 2.7; CASES=1.*,2.* for a part)"
	@echo "make check    ruff and mypy"
	@echo "make bench    measured beside mitmdump, squid and haproxy: bench/README.md (CASE=name for one)"
	@echo "make soak     a day of exchanges through one daemon in an hour: does anything grow? (MINUTES=5 for a short one)"
	@echo "make micro    the pieces of the hot path, each by itself"
	@echo "make profile  where the time of a case goes (CASE=name)"
	@echo "make man      write the manual page of the configuration anew"
	@echo "make clean    take away what the other targets made"

run: $(READY)
	exec $(BIN)/twistd --nodaemon --pidfile= streamproxy -c $(CONFIG)

test: $(READY)
	$(BIN)/python -m tests $(TESTS)

test-compiled: $(COMPILED_READY)
	$(COMPILED_PYTHON) -m tests $(TESTS)

autobahn: $(READY)
	$(BIN)/python -m tests.autobahn $(if $(CASES),--cases '$(CASES)')

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What each figure is: bench/README.md. One case: `make bench CASE=rate-32`.
bench: $(COMPILED_READY)
	$(COMPILED_PYTHON) -m bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick) $(CASE)

# What it does and what is told: bench/README.md.
soak: $(COMPILED_READY)
	$(COMPILED_PYTHON) -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(EXCHANGES),--exchanges $(EXCHANGES)) \
		$(if $(CONNECTIONS),--connections $(CONNECTIONS))

micro: $(COMPILED_READY)
	$(COMPILED_PYTHON) -m bench.micro

profile: $(COMPILED_READY)
	$(COMPILED_PYTHON) -m bench.profile $(CASE)

# The page of the configuration's keys, from the models.
man: $(READY)
	$(BIN)/python docs/man/keys.py > docs/man/streamproxy.yaml.5

install: $(READY)

$(READY): setup.py setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV) || sh .ci/venv "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@

$(COMPILED_READY): setup.py setup.cfg pyproject.toml $(wildcard streamproxy/*.* streamproxy/*/*.*)
	$(PYTHON) -m venv $(COMPILED) || sh .ci/venv "$(PYTHON)" $(COMPILED)
	$(COMPILED)/bin/python -m pip install --quiet --disable-pip-version-check '.[test,bench]'
	mkdir -p $(OUTSIDE)
	ln -sfn ../../tests $(OUTSIDE)/tests
	ln -sfn ../../bench $(OUTSIDE)/bench
	@touch $@

clean:
	rm -rf $(VENV) _trial_temp* .hypothesis .mypy_cache .ruff_cache build dist *.egg-info bench/.env bench/results
