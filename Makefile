# Everything from a fresh clone with only python3, venv and make:  make listen,  make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help listen demo test test-assistants bindings surface check lint types format figures students clean

help:
	@echo "make listen   hear the microphone, or the example recording where there is none"
	@echo "make demo     hear the example recording"
	@echo "make test     run the tests"
	@echo "make test-assistants  run the tests of Pipecat and LiveKit, in a venv of their own"
	@echo "make surface  look up every name of TensorRT and CUDA that the code uses in their real Python bindings"
	@echo "make check    tests, lint and types, as continuous integration does"
	@echo "make figures  measure again what README shows (EDGE_SER_DATA: the corpora)"
	@echo "make students train the students, press and evaluate one, in build/ (EDGE_SER_DATA: the corpora; TEACHER: a Whisper encoder)"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e ".[train,export,serve,zeroconf,dev]"
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

# Pipecat and LiveKit Agents pin what the workshop has newer.
$(VENV)-assistants/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-assistants
	$(VENV)-assistants/bin/python -m pip --disable-pip-version-check -q install -e ".[assistants]"
	touch $@

test-assistants: $(VENV)-assistants/.done
	$(VENV)-assistants/bin/python -m pytest tests/edge_ser/assistants/test_pipecat.py \
	  tests/edge_ser/assistants/test_livekit.py tests/edge_ser/assistants/test_doors.py

# The versions of JetPack 6.2, of JetPack 7, and the newest; without the libraries, which are not on PyPI.
BINDINGS := tensorrt_cu12_bindings==10.3.0 tensorrt_cu13_bindings==10.16.1.11 tensorrt_cu13_bindings==11.4.0.106 \
  cuda-bindings==12.8.0 cuda-bindings==13.5.0 cuda-pathfinder==1.9.0

bindings: | $(VENV)/bin/python
	@for wheel in $(BINDINGS); do \
	  $(PIP) download --no-deps --only-binary=:all: -d build/bindings "$$wheel" || exit 1; \
	done

surface: $(VENV)/.dev bindings
	$(BIN)/python export/trt_surface.py build/bindings/*.whl

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
	$(BIN)/python -m train.speak --out runs/spoken
	$(BIN)/python -m train.distill train/configs/students/encoder.toml --teacher "$(TEACHER)" \
	  --spoken runs/spoken --run runs/encoder
	$(BIN)/python -m train.distill train/configs/students/encoder-longer.toml --teacher "$(TEACHER)" \
	  --spoken runs/spoken --start runs/encoder --run runs/encoder-longer
	$(BIN)/python -m train.distill train/configs/students/encoder-cut.toml --teacher "$(TEACHER)" \
	  --spoken runs/spoken --start runs/encoder-longer --run runs/encoder-cut
	$(BIN)/pip install "pyworld>=0.3.5" "setuptools<81"
	test -d runs/spoken-voices || cp -r runs/spoken runs/spoken-voices
	$(BIN)/python -m train.voices --out runs/spoken-voices
	$(BIN)/python -m train.distill train/configs/students/encoder-voices.toml --teacher "$(TEACHER)" \
	  --spoken runs/spoken-voices --start runs/encoder-cut --run runs/encoder-voices
	$(BIN)/python -m train.distill train/configs/students/students.toml --teacher "$(TEACHER)" \
	  --spoken runs/spoken-voices --encoder runs/encoder-voices --run runs/students
	$(BIN)/python -m train.keep runs/students
	$(BIN)/python export/to_onnx.py train/checkpoints/clean/mdat.safetensors --out build/mdat
	$(BIN)/python export/quantize.py build/mdat --calibration "$(EDGE_SER_DATA)" --out build/mdat-int8
	$(BIN)/python -m train.evaluate build/mdat-int8 --out build/mdat-int8.json
	$(BIN)/python export/card.py build/mdat-int8 --metrics build/mdat-int8.json

clean:
	rm -rf $(VENV) $(VENV)-assistants build dist *.egg-info
