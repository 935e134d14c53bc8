# make demo   the whole pipeline on drawn photographs: masks, panels, metrics, report (CPU, about 5 minutes)
# make test   the fast test suite                   make lint   formatting, style, notebooks without output
# Each sets itself up in .venv first.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
# glibc gives every large tensor back to the system and takes it anew: a fifth of a training step on a CPU went there.
MALLOC := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: setup demo benchmark train-compact test test-faults test-faults-slow test-documents test-browser test-browser-smoke test-colab
.PHONY: test-colab-fast test-all lint strip set-repository clean

setup: .venv/ready

# open_clip_torch for a test: the vocabulary of CLIP's tokenizer; never imported, and without what it would drag in.
.venv/ready: pyproject.toml constraints/tested.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit("Python 3.11 to 3.13 is needed, this is %d.%d; give one with make PYTHON=..." % v) if not (3, 11) <= v <= (3, 13) else \
	  v > (3, 11) and print("Python %d.%d: torch may come as a CUDA build of several GB; with Python 3.11 it is small" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about 2.5 GB, two or three minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints/tested.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps open_clip_torch==3.3.0
	@touch $@

demo: setup
	$(MALLOC) $(BIN)/drywall-seg run all --run-name demo

# Pictures of README and model card: the median test image of each label, of the demo run and of the shipped model.
PICTURE = $(BIN)/python -c "from drywall_seg.config import run_config; from drywall_seg.data.manifest import prepare; \
  from drywall_seg.visualization import panels as p; c = run_config(run_name='$(1)'); \
  median = [cells for _, rank, cells in p.run_examples(c, prepare(c)) if rank == 'median']; \
  p.save_figure(p.plot_grid(median, cell_inches=2.6), '$(2)')"

docs/example.png: demo
	$(call PICTURE,demo,$@)

docs/compact.png: setup
	$(BIN)/drywall-seg run 03_evaluate -p model compact -p data_root data/sample --run-name compact-sample
	$(call PICTURE,compact-sample,$@)

docs/viewer.png: .venv/browser-ready chromium
	$(BIN)/drywall-seg run 03_evaluate -p model compact -p data_root data/sample --run-name compact-sample
	$(BIN)/drywall-seg gallery compact-sample --order best --label crack --limit 12
	$(BIN)/python -m tests.browser.picture outputs/compact-sample/gallery.html $@

docs/how_it_works.png: docs/how_it_works.py .venv/ready
	$(BIN)/python $< $@

# How much faster than CLIPSeg the compact model is, here.
benchmark: setup
	$(BIN)/drywall-seg benchmark

# Trains the shipped weights anew from the real exports (about an hour on two cores; goes on where it was stopped).
DATA ?= ../shared/data
train-compact: setup
	$(MALLOC) $(BIN)/drywall-seg run 02_train -p preset compact_scratch -p data_root $(DATA) --run-name train-compact
	$(BIN)/python -m drywall_seg.models.ship outputs/train-compact

# One thread a process: two processes of two threads each spend their time waiting for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# All that was tried to break it: hostile input, full disks, kills, more than one process, machine, or none with torch.
test-faults: setup
	OMP_NUM_THREADS=1 RELIABILITY=docs/reliability.md $(BIN)/python -m pytest -n 2 --dist loadfile -m fault tests --ignore tests/browser

# What of it the fast suite leaves out, for CI.
test-faults-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow tests/faults tests/training/test_devices.py tests/inference

# Every command of the documents, in a copy of the project.
test-documents: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/test_documents.py

# The notebooks' viewers in Chromium: Voila, JupyterLab, exported HTML, the keyboard, a phone, axe-core's rules.
AXE_CORE := 4.14.1
PIP_INSTALL := install --quiet --disable-pip-version-check

.venv/browser-ready: .venv/ready Makefile
	$(BIN)/python -m pip $(PIP_INSTALL) --constraint constraints/tested.txt --editable '.[browser]'
	@command -v npm >/dev/null || { echo "npm is needed for axe-core (Debian: apt-get install npm)"; exit 1; }
	npm install --silent --no-fund --no-audit --prefix .venv/axe axe-core@$(AXE_CORE)
	@touch $@

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes chromium >/dev/null; } || \
	  { echo "chromium is needed on the PATH (Debian: apt-get install chromium)"; exit 1; }

test-browser: .venv/browser-ready chromium
	OMP_NUM_THREADS=1 BROWSER=required $(BIN)/python -m pytest -m slow tests/browser

# One of each place, for CI.
SMOKE := answers_with_the_figures or it_is_live or filtered or two_hundred or paint_save or touch
test-browser-smoke: .venv/browser-ready chromium
	OMP_NUM_THREADS=1 BROWSER=required $(BIN)/python -m pytest -m slow tests/browser -k "$(SMOKE)"

# The fast suite and the browser's with the versions that Colab has preinstalled, and the front end of its widgets' time.
# What differs is installed (700 MB); all else, torch too, is .venv's: its packages come behind .venv-colab's own.
COLAB := .venv-colab/bin/python
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))

.venv-colab/ready: .venv/browser-ready constraints/colab.txt
	$(BIN)/python -m venv --clear --without-pip .venv-colab
	$(BIN)/python -m pip --python $(COLAB) $(PIP_INSTALL) --no-deps --requirement constraints/colab.txt
	@behind=$$($(BIN)/python -c '$(PURELIB)') && front=$$($(COLAB) -c '$(PURELIB)') && \
	  echo "import site; site.addsitedir('$$behind')" > "$$front/behind.pth"
	@touch $@

test-colab-fast: .venv-colab/ready
	OMP_NUM_THREADS=1 $(COLAB) -m pytest -n 2 --dist loadfile -m "not slow"

test-colab: test-colab-fast chromium
	OMP_NUM_THREADS=1 BROWSER=required $(COLAB) -m pytest -m slow tests/browser

# The browser's tests measure times: they run by themselves.
test-all: setup .venv/browser-ready chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/browser
	$(MAKE) test-browser test-colab

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify $(STRIP) notebooks/*.ipynb

# Colab writes a user's name and run times into a notebook; these go with the outputs.
STRIP = --extra-keys "metadata.colab.provenance cell.metadata.executionInfo cell.metadata.outputId cell.metadata.colab"

strip: setup
	$(BIN)/nbstripout $(STRIP) notebooks/*.ipynb

# make set-repository REPO=owner/name   in the badges and in the notebooks' set-up cells
REPOSITORY = $(shell sed -n 's|^Repository = "https://github.com/\(.*\)"|\1|p' pyproject.toml)
set-repository:
	sed -i.bak 's|$(REPOSITORY)|$(REPO)|g' pyproject.toml README.md notebooks/*.ipynb
	rm pyproject.toml.bak README.md.bak notebooks/*.bak

clean:
	rm -rf data/processed data/sample outputs/demo
