# make run     a proxy to look at, on http://127.0.0.1:8080/
# make test    all tests
# make docs    the documentation as a site, in build/docs
# make fuzz    one fuzz target for some time: make fuzz TARGET=channel MINUTES=30
# make bench   what proxyd costs beside other proxies, into bench/RESULTS.md; some rows only: make bench ROWS=plain,browser
# All set up what they need, in .venv and from the package registries.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is compared is as Debian builds it, the interpreter, too: pyenv's, unless told otherwise, has none of the
# optimisations that make new connections and WebSockets a tenth cheaper.
BENCH_PYTHON := /usr/bin/python3
BENCH_VENV := build/bench/venv
CONFIG := etc/demo.yaml
TARGET := channel
MINUTES := 1
ROWS :=
ROUNDS := 8
SECONDS := 1

.PHONY: run test lint docs soak fuzz bench clean

# Ctrl-C goes to both processes; the first one ignores it and is ended when the proxy has ended.
run: $(VENV)/installed
	@$(BIN)/python -m proxyd.demo $(ORIGIN) & origin=$$!; trap 'kill $$origin 2>/dev/null' EXIT; trap : INT TERM; \
	$(BIN)/twistd -n --pidfile= proxyd --config $(CONFIG) || test $$? -gt 128

test: $(VENV)/installed-for-tests tests/peers/installed
	$(BIN)/python -m pytest -m "not soak" -n 3 --dist loadfile

lint: $(VENV)/installed-for-tests docs
	$(BIN)/ruff check .
	$(BIN)/mypy

# A link that leads nowhere, or to no heading, is an error.
docs: $(VENV)/installed-for-docs
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs build/docs

soak: $(VENV)/installed-for-tests tests/peers/installed
	$(BIN)/python -m pytest -m soak -o faulthandler_timeout=3600

fuzz: $(VENV)/installed-for-fuzzing
	$(BIN)/python -m tests.fuzzing.run $(TARGET) --minutes $(MINUTES)

bench: $(BENCH_VENV)/installed build/bench/client build/bench/origin
	$(BENCH_VENV)/bin/python -m bench --rows "$(ROWS)" --rounds $(ROUNDS) --seconds $(SECONDS)

clean:
	rm -rf $(VENV) build/docs tests/peers/node_modules tests/peers/installed build/bench \
		bench/peers/node_modules bench/peers/installed

# Debian has venv in a package of its own.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh -c 'apt="apt-get"; [ "$$(id -u)" = 0 ] || apt="sudo apt-get"; \
		$$apt update -qq && $$apt install -y -qq python3-venv'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,lint]'
	@touch $@

$(VENV)/installed-for-docs: $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $@

$(VENV)/installed-for-fuzzing: $(VENV)/installed-for-tests
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[fuzz]'
	@touch $@

$(BENCH_VENV)/installed: bench/peers/installed pyproject.toml
	$(BENCH_PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

# Servers, proxies and clients that the tests run against: from Debian, and ws and Bun from npm.
tests/peers/installed: tests/peers/install tests/peers/package.json
	sh tests/peers/install
	@touch $@

# Proxies that the benchmarks compare with: from Debian, and http-proxy and Bun from npm.
bench/peers/installed: bench/peers/install bench/peers/package.json
	sh bench/peers/install
	@touch $@

build/bench/%: bench/c/%.c bench/c/websocket.h bench/c/accept.h
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -o $@ $<
