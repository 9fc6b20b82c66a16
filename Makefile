# Needs Python 3.11 or newer with venv, git and make; everything else is installed into .venv.
#
#   make serve [ARGS="--port 0 …"]   set up and run the signal service
#   make test  [ARGS="-k turn …"]    set up and run the tests; without ARGS "make sim" before them
#   make sim   [ARGS="--seeds 7 …"]  500 seeds of the service in a simulated world, with nothing beside them; prints the time
#   make check                       format, lint, types, layers
#   make format                      rewrite files in the house format
#   make bench [ARGS="list"]         measure against the physical limit
#   make sim-nightly                 10,000 seeds of the service's scenarios, of restores and of upgrades (ARGS="--seeds 1..500 --jobs 2" for fewer)
#   make conformance-live            the scenarios and random programs, on the real runtime (from npm) and here
#   make differential                the Python client against the JavaScript one: 100,000 random lives (ARGS="4000 7" for some from a seed)
#   make autobahn                    the Autobahn suite against the server (ARGS="-i 9.*" for some of its cases)
#   make soak                        1,000 clients, restart after restart, for ten minutes (ARGS="--clients 100 --minutes 2" for less)
#   make js                          the tools of the JavaScript client and of the console's page into node_modules
#   make foreign                     the WebSocket libraries of Node that some tests connect with, into build/
#   make screenshots                 take the pictures of docs/images anew, of a server that runs (ARGS="URL FILE")
#   make wheel                       build dist/*.whl
#   make clean                       remove what the others made, but no data

MAKEFLAGS += --no-print-directory
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
ARGS ?=

.PHONY: serve test sim check format bench sim-nightly conformance-live differential autobahn soak foreign js screenshots wheel clean

serve: .venv/installed-run
	@exec $(BIN)/heliograph serve $(ARGS)

# In several processes, because the longest tests wait for real servers and browsers.
test: .venv/installed-test
	@$(if $(ARGS),,$(MAKE) sim)
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal $(ARGS)

sim: .venv/installed-run
	@$(BIN)/heliograph sim run --coverage $(or $(ARGS),--seeds 1..500 --in-turn --jobs 2)

check: .venv/installed-dev
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

format: .venv/installed-dev
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: .venv/installed-test
	@$(BIN)/python -m bench $(or $(ARGS),run)

sim-nightly: .venv/installed-run
	@$(BIN)/heliograph sim run --coverage $(or $(ARGS),--seeds 1..10000 --jobs 2)
	@for file in tests/sim/notebooks.py tests/sim/tables.py tests/sim/upgrades.py; do \
	    $(BIN)/heliograph sim run $$file $(or $(ARGS),--seeds 1..10000 --jobs 2) || exit 1; \
	done

conformance-live: .venv/installed-test
	@$(BIN)/python -W ignore::RuntimeWarning -m tests.conformance.live $(ARGS)

differential: .venv/installed-test
	@$(BIN)/python -m tests.actors.client.differential $(or $(ARGS),100000)

autobahn: .venv/installed-test
	@$(BIN)/python -m tests.autobahn $(ARGS)

soak: .venv/installed-test
	@$(BIN)/python -m tests.soak $(ARGS)

foreign: build/foreign/installed

js: node_modules/installed

screenshots: .venv/installed-test
	@$(BIN)/python -m tests.browser.screenshot $(or $(ARGS),http://127.0.0.1:8787 docs/images/live.png)
	@$(BIN)/python -m tests.browser.console_screenshots docs/images

wheel: .venv/made
	@$(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	@rm -rf .venv node_modules build dist bench/build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find actors bench runtime tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages: a second run starts at once, a changed pyproject.toml installs again.

.venv/installed-run: .venv/made pyproject.toml
	@echo "installing heliograph into .venv"
	@$(PIP) install --editable .
	@touch $@

.venv/installed-test: .venv/made pyproject.toml
	@echo "installing heliograph and its test tools into .venv"
	@$(PIP) install --editable . --group test
	@touch $@ .venv/installed-run

.venv/installed-dev: .venv/made pyproject.toml
	@echo "installing heliograph and its development tools into .venv"
	@$(PIP) install --editable . --group dev
	@touch $@ .venv/installed-run .venv/installed-test

node_modules/installed: package.json actors/client/js/package.json
	@npm install --loglevel=error > /dev/null
	@touch $@

build/foreign/installed: tests/foreign/package.json
	@mkdir -p build/foreign
	@cp tests/foreign/package.json build/foreign/
	@npm install --prefix build/foreign --no-audit --no-fund --loglevel=error > /dev/null
	@touch $@

# The first Python that is new enough; PYTHON=… chooses another.
.venv/made:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "heliograph needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)" >&2; \
	    echo "install one, or say which: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! $$found -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "this Python cannot make virtual environments: $$found" >&2; \
	    echo "on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "making .venv with $$($$found --version)"; \
	$$found -m venv .venv
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@
