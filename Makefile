# Everything is installed into .venv; `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo

.PHONY: help install install-dev demo test slow mutants part rules check quick conformance tables format clean
help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Boxwright needs Python 3.11 or later, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[report]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

install: $(VENV)/installed  ## set up .venv

install-dev: $(VENV)/installed-dev  ## set up .venv with what tests and checks need

demo: install  ## draw a data set, train on it, evaluate, predict, write a report
	$(BIN)/boxwright demo --out $(DEMO_OUT)

# One thread per worker: two workers of torch on two cores would otherwise fight for them.
TESTS := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal
# Contracts of parts and what parts consist of: each shape and type that their code names is checked as it runs, which
# costs a third of the time. The other tests run the same code once more; `make slow` checks types in all of its tests.
PARTS := $(addprefix tests/,contracts data/transforms dense heads layers losses necks ops queries regions)
UNTYPED := -o 'addopts=-ra --strict-markers --strict-config -m "not slow"'
test: install-dev  ## run the tests
	$(TESTS) $(PARTS)
	$(TESTS) $(UNTYPED) $(addprefix --ignore=,$(PARTS))

slow: install-dev  ## run the tests that take minutes, and plant silent faults
	$(TESTS) -m slow
	$(MAKE) --no-print-directory mutants

mutants: install-dev  ## plant silent faults one at a time and print what no test sees: make mutants NAME=losses
	$(BIN)/python tests/mutants/plant.py --jobs 2 $(if $(NAME),'$(NAME)')

# Without exports, which take seconds each, and with shapes checked in this one file. `[fpn]` is not `[pafpn]`.
SOURCE = $(wildcard src/boxwright/$(NAME).py src/boxwright/*/$(NAME).py src/boxwright/*/*/$(NAME).py)
empty :=
MODULES = $(subst $(empty) ,$(comma),$(subst /,.,$(SOURCE:src/%.py=%)))
comma := ,
part: install-dev  ## run the tests of one file: make part NAME=fpn
	@test -n '$(SOURCE)' || { echo 'no file of this name in src/boxwright: make part NAME=fpn'; exit 2; }
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -o addopts= -m 'not slow' \
	  --jaxtyping-packages=$(MODULES),beartype.beartype -k '(test_$(NAME).py or [$(NAME)]) and not exports' \
	  $(wildcard tests/test_$(NAME).py tests/*/test_$(NAME).py tests/*/*/test_$(NAME).py) \
	  tests/contracts/test_backbones.py tests/contracts/test_necks.py $(wildcard tests/contracts/test_heads*.py)

rules: install-dev  ## run the tests of the rules for names, words and sizes
	$(BIN)/python -m pytest --noconftest -o addopts= tests/rules tests/mutants

quick: install-dev  ## those checks that take seconds: style, import layers, rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory rules

check: install-dev  ## style, import layers, types and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(MAKE) --no-print-directory test

# Tests that compare with other projects; those that need an author's repository say so where no folder is given.
TEST ?= $(shell grep -rl 'mark\.conforms' tests --include='test_*.py')
conformance: install-dev  ## measure what differs from other projects and write the page: make conformance ORIGINALS=DIR
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -rs -o addopts= -m conforms $(TEST) \
	  --record-conformance docs/conformance.json $(if $(ORIGINALS),--originals $(ORIGINALS))
	$(BIN)/python docs/tables.py conformance measurements parity systems

tables: install-dev  ## write the tables that pages take from the code
	$(BIN)/python docs/tables.py

format: install-dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove .venv and what runs have written
	rm -rf $(VENV) demo runs build dist
