# make demo     run the whole pipeline on generated videos, on a CPU, up to the report
# make test     run the tests
# make unlock   after Snakemake was killed, remove its lock; CONFIG=config/mine.yaml: for that configuration
# make lock-check  tell which stages of dvc.lock are stale by code or settings, in seconds (docs/dvc.md)
# make restore  restore the files recorded in dvc.lock from the DVC remote (docs/dvc.md); ONLY=tables: without data and weights
# make bundle   write one archive with the recorded results; DATA=1: and frames and flow; ONLY=tables: without weights
# make lint     run the style checks
# make clean    remove the demo's data and results
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
INSTALLED := .venv/.installed

# Snakemake and DVC need a folder for their caches; where there is no home folder, it is one of this checkout.
CACHE := $(shell mkdir -p "$${XDG_CACHE_HOME:-$$HOME/.cache}" 2>/dev/null && test -w "$${XDG_CACHE_HOME:-$$HOME/.cache}" || echo .venv/cache)
ifneq ($(CACHE),)
export XDG_CACHE_HOME := $(CURDIR)/$(CACHE)
export MPLCONFIGDIR := $(CURDIR)/$(CACHE)/matplotlib
endif

.PHONY: demo test unlock lock-check restore bundle lint clean install
.DEFAULT_GOAL := demo

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || { \
	  echo "mscl needs Python 3.11.4 or newer; $(PYTHON) is older. Choose another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu install python3-venv, or choose another Python: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar off -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/snakemake --cores $(CORES) --quiet reason host || { code=$$?; \
	  test -z "$$(ls -A .snakemake/locks 2>/dev/null)" || \
	    echo "The folder is locked: Snakemake runs here, or it was killed. If none runs: make unlock, then make demo again." >&2; \
	  exit $$code; }

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 --durations 10

unlock: $(INSTALLED)
	$(BIN)/snakemake --unlock --cores 1 $(if $(CONFIG),--configfile $(CONFIG))

lock-check: $(INSTALLED)
	@$(BIN)/python -m workflow.recorded $(if $(EXPERIMENT),--experiment $(EXPERIMENT))

restore: $(INSTALLED)
	@$(BIN)/python -m workflow.restore $(if $(EXPERIMENT),--experiment $(EXPERIMENT)) $(if $(FROM),--from "$(FROM)") \
	  $(if $(ONLY),--only $(ONLY)) $(if $(REMOTE),--remote $(REMOTE)) $(if $(FORCE),--force)

bundle: $(INSTALLED)
	@$(BIN)/python -m workflow.bundle $(if $(EXPERIMENT),--experiment $(EXPERIMENT)) $(if $(TO),--to "$(TO)") \
	  $(if $(ONLY),--only $(ONLY)) $(if $(DATA),--data)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

clean:
	rm -rf data/demo results/demo
