# `make demo` and `make test` do all their own set-up. Everything installed lands in .venv.
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin

# For `make resume`: the folder of the run, and what the run is started with.
FOLDER ?= .
RUN ?= --profile slurm

.PHONY: demo test test-slurm resume lint clean

demo: .venv/ready
	$(BIN)/snakemake --cores $(CORES) --quiet rules reason

test: .venv/ready-test lint
	$(BIN)/pytest --numprocesses $(CORES) --dist loadfile --no-loadscope-reorder

# Part of `make test` where Slurm's programs are installed.
test-slurm: .venv/ready-test
	$(BIN)/pytest tests/slurm

# Goes on with a run that was killed: ends what it has left at work, by name, and nothing else; then unlocks and runs.
resume: .venv/ready
	cd $(FOLDER) && $(abspath $(BIN))/python -m edgeloop orphans --cancel
	$(BIN)/snakemake $(RUN) --unlock
	$(BIN)/snakemake $(RUN) --rerun-incomplete

lint: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

.venv/ready: envs/requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgeloop needs Python 3.11 or later; say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.venv/ready-test: .venv/ready envs/requirements-test.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-test.txt
	touch $@

clean:
	rm -rf .venv .snakemake results logs
