# `make quickstart` and `make test` set up everything they need in .venv.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

# Images of containers often set this. Without bytecode each of the many processes that Ray starts
# compiles all that it imports: 16 s instead of 6 for a driver on 2 cores of an AMD EPYC.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test pages bench clean

quickstart: $(READY)
	$(PY) -m jobs.quickstart

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

# Every command of README.md and docs/, as written; too long for each `make test`.
pages: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m pages tests/docs -rP

bench: $(READY)
	$(PY) -m pip install --quiet --no-deps -c constraints.txt molsets
	$(PY) -m bench

# torch comes first and by its exact version: a looser spelling may pull gigabytes of CUDA.
# rfc3987-syntax (an optional part of jsonschema that Jupyter packages bring along) takes a
# second to import, in every process that Ray starts; nothing here needs it. Python compiles what
# is imported; compiling all that is installed takes 45 s.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-compile torch==2.13.0
	$(PY) -m pip install --quiet --no-compile -c constraints.txt -e '.[dev,minimol]'
	$(PY) -m pip uninstall --quiet --yes rfc3987-syntax
	touch $@

clean:
	rm -rf $(VENV) .molsieve outputs
