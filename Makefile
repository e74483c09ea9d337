# Everything from a fresh clone with only python3, venv and make:  make listen,  make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help listen demo test check lint types format figures students clean

help:
	@echo "make listen   hear the microphone, or the example recording where there is none"
	@echo "make demo     hear the example recording"
	@echo "make test     run the tests"
	@echo "make check    tests, lint and types, as continuous integration does"
	@echo "make figures  measure again what README shows (EDGE_SER_DATA: the corpora)"
	@echo "make students train the students, press and evaluate one, in build/ (EDGE_SER_DATA: the corpora; TEACHER: a Whisper encoder)"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e ".[train,export,dev]"
	touch $@ $(VENV)/.runtime

listen: $(VENV)/.runtime
	@if $(BIN)/edge-ser devices >/dev/null 2>&1; then \
	  $(BIN)/edge-ser listen; \
	else \
	  echo "No microphone here (edge-ser devices says why); playing examples/conversation.flac instead."; \
	  $(BIN)/edge-ser listen --input examples/conversation.flac --format text; \
	fi

demo: $(VENV)/.runtime
	@$(BIN)/edge-ser listen --input examples/conversation.flac --format text

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: test lint types

figures: $(VENV)/.dev
	$(BIN)/python benchmarks/record.py
	$(BIN)/python benchmarks/readme.py

students: $(VENV)/.dev
	$(BIN)/python -m train.distill train/configs/students/encoder.toml --teacher "$(TEACHER)" --run runs/encoder
	$(BIN)/python -m train.distill train/configs/students/students.toml --teacher "$(TEACHER)" \
	  --encoder runs/encoder --run runs/students
	$(BIN)/python -m train.keep runs/students
	$(BIN)/python export/to_onnx.py train/checkpoints/clean/mdat.safetensors --out build/mdat
	$(BIN)/python export/quantize.py build/mdat --calibration "$(EDGE_SER_DATA)" --out build/mdat-int8
	$(BIN)/python -m train.evaluate build/mdat-int8 --out build/mdat-int8.json
	$(BIN)/python export/card.py build/mdat-int8 --metrics build/mdat-int8.json

clean:
	rm -rf $(VENV) build dist *.egg-info
