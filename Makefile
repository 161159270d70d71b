# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make demo   installs, exports the networks with seeded weights, dubs a clip it made itself
#   make test   installs, lints, type-checks and runs the tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
# Two tests at a time: most of them wait for processes and disks. Real networks take two threads each.
WORKERS ?= 2

.PHONY: install demo test lint types clean

SOURCES := $(wildcard export/*.py export/*/*.py engines/*.py engines/*/*.py kernels/* runtime/*.py runtime/*/*.py \
	benchmarks/*.py benchmarks/*/*.py benchmarks/*/*/*.py)

$(VENV)/dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--config-settings editable_mode=strict --editable ".[dev]"
	touch $@

# Strict editable mode lays the mapped folders out as a real package tree, which type checkers can
# follow; in return a new file needs this step again.
$(VENV)/installed: $(VENV)/dependencies $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-deps --config-settings editable_mode=strict --editable .
	touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/python -m dubstream.benchmarks.demo_clip $(DEMO)
	$(BIN)/dubstream dub $(DEMO)/portrait.mp4 $(DEMO)/speech.wav --output $(DEMO)/dubbed.mp4 --weights seeded
	@echo "The dubbed clip is $(DEMO)/dubbed.mp4. Its weights are seeded, not trained: the mouth region is noise by design."

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy -p dubstream.engines -p dubstream.kernels -p dubstream.runtime -p dubstream.export -p dubstream.benchmarks

test: lint types
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

clean:
	rm -rf $(VENV) build *.egg-info
