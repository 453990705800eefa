# `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo demo-upstream demo-message listen test lint format types imports unit compat interop browser fuzz bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	@echo "Making a virtual environment and installing (some 300 MB with the speech models, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,test]'
	@touch $@

install: $(VENV)/installed  ## make the virtual environment and install everything into it

demo: install  ## place a real phone call to the example app, and watch it (DEMO_TRANSPORT=tls|tcp|udp)
	@$(BIN)/offhook demo

demo-message: install  ## a caller who is not put through leaves a message, which is recorded and kept
	@$(BIN)/offhook demo --story message

demo-upstream: install  ## the same call with its voice in another server, which is killed while they talk
	@$(BIN)/offhook demo --voice upstream

listen: install  ## the same server and app, waiting for a call from your own softphone
	@$(BIN)/offhook demo --listen

test: install lint types imports unit  ## lint, types, import rules and all tests that need only Python packages

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

# Most tests wait more than they work. In the order of the folders the long files come first, and quick ones fill the end.
# Four of them share a machine's two cores: what fails there is said, and must pass by itself.
unit: install
	$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m "not alone" || { \
	  echo "== these again, one at a time"; $(BIN)/pytest -q -m "not alone" --last-failed --last-failed-no-failures none; }
	$(BIN)/pytest -q -m alone tests/flow tests/compat

interop: install  ## SIPp, Kamailio, PJSIP, werift, baresip, scanners, Prometheus (as root; `.ci/run` installs what it needs)
	$(BIN)/python tests/interop/run.py

compat: install  ## clients nobody here wrote, each in an environment of its own (needs node and npm)
	$(BIN)/python tests/compat/run.py

browser: install  ## the pages in Chromium, with real calls (needs Debian's chromium and chromium-driver)
	$(BIN)/pytest -q tests/browser/pages.py

fuzz: install  ## atheris on every parser (FUZZ_SECONDS=600 for each)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py --seconds $(or $(FUZZ_SECONDS),600)

bench: install  ## pacing of RTP under 10 to 200 calls; delay before a hosted model; what frames and sessions cost
	$(BIN)/python bench/pacing.py
	$(BIN)/python bench/upstream_delay.py --check
	$(BIN)/python bench/realtime_frames.py --check
	$(BIN)/python bench/plain_sessions.py --check
	$(BIN)/python bench/large_frames.py --check

clean:  ## remove what the targets made
	rm -rf $(VENV) .venv-compat .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-data
