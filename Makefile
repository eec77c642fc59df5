# `make` alone lists what there is. Needs Python 3.11 or newer and nothing else: all is installed into .venv.
.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint format tables docs bench peers wheel clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO = $(shell n=1; while [ -e runs/demo-$$n ]; do n=$$((n + 1)); done; echo runs/demo-$$n)

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=/path/to/python chooses the Python that .venv is made with."

demo: $(VENV)/installed ## train on handwritten digits and write a report, about a minute
	@out='$(DEMO)'; $(BIN)/sandglass train --recipe digits --out "$$out" && \
	echo && echo "Done. Open $$out/report.html in a browser."

test: lint ## lint, types, tests and doctests, a few minutes
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -q

test-long: lint ## the same and the slow tests, much longer
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -q -m "slow or not slow"

lint: $(VENV)/installed-dev ## style and types
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy --no-error-summary && \
	echo "Style and types are in order."

format: $(VENV)/installed-dev ## put the code into its style
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

tables: $(VENV)/installed-dev ## write the tables in docs/ anew from the registry
	@$(BIN)/python docs/tables.py

docs: $(VENV)/installed-dev ## build the documentation as a site, into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "Open build/site/index.html in a browser."

bench: $(VENV)/installed peers ## time Sandglass beside other libraries on this machine, an hour (BENCH=--help)
	@PYTHONPATH=src $(BIN)/python -m benchmarks.speed $(BENCH)

# A peer that cannot be installed is reported as absent, and the others are timed.
peers: $(VENV)/installed
	@for peer in keras pythae; do \
	  folder=build/peers/$$peer; wanted=benchmarks/peers/$$peer.txt; \
	  if cmp -s $$wanted $$folder/installed; then continue; fi; \
	  echo "Installing $$peer into $$folder; the first time takes some minutes."; \
	  { $(BIN)/python -m venv --clear $$folder && \
	    $$folder/bin/python -m pip --disable-pip-version-check install -qq -r $$wanted 2> $$folder/errors.txt && \
	    cp $$wanted $$folder/installed; } || \
	    echo "$$peer is absent: $$(tail -n 1 $$folder/errors.txt 2> /dev/null)"; \
	done

wheel: $(VENV)/installed-dev ## build the wheel and try it in an empty environment
	@rm -rf build dist && $(BIN)/python -m build --wheel --outdir dist > /dev/null
	@$(BIN)/python -m venv build/venv && \
	build/venv/bin/python -m pip --disable-pip-version-check install -qq -c constraints.txt dist/*.whl
	@cd build && venv/bin/sandglass --version && echo "Built and tried: $$(ls ../dist/*.whl | cut -c 4-)"

clean: ## remove .venv and everything that was built; runs/ stays
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# python3 comes first where it will do, then others by name. Each must run: a name on the path can be a shim that does
# not.
$(VENV)/bin/python:
	@for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import sys, venv; sys.exit(not ((3, 11) <= sys.version_info[:2] $(if $(PYTHON),,<= (3, 13))))' \
	    2> /dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "No usable Python $(if $(PYTHON),at $(PYTHON),3.11 to 3.13 on the path): it must have venv and be 3.11 or" \
	    "newer. Name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Making .venv with $$("$$found" --version)."; "$$found" -m venv --clear $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Sandglass and what it needs into .venv; the first time takes some minutes."
	@$(PIP) install -qq -c constraints.txt -e . && touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Sandglass, what it needs and the tools of development into .venv; the first time takes some minutes."
	@$(PIP) install -qq -c constraints.txt -e '.[dev]' && touch $@ $(VENV)/installed
