# make demo   set up, build MovieLens 100K, train a recommender, print and plot the result
# make test   set up, run the tests that take a few minutes in all
# make test-all   the same and the slow tests: kills, mutations, clusters, long trainings
# make benchmark   set up, build MovieLens 100K, measure all speeds and sizes on this device; QUICK=1 for a quick look
# make lab    set up, open the first notebook in JupyterLab
# make notebooks   set up, execute all notebooks and write them with their outputs
# make docs   set up, build the documentation site into site/, without a warning
# make lint   set up, run the linters and the type checker
#
# Everything is installed into .venv from the versions in constraints.txt. EXTRAS adds optional dependencies:
# `make test EXTRAS=embed` also runs the tests of the text encoder.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?=
QUICK ?=
BIN = $(VENV)/bin
comma = ,

.PHONY: demo test test-all benchmark lab notebooks docs lint clean

demo: $(VENV)/.installed-demo
	$(BIN)/python -m prep build ml-100k
	$(BIN)/python -m agents train dqn --dataset ml-100k --seeds 3 --out runs/demo --overwrite
	$(BIN)/python -m agents train dqn --dataset ml-100k --seeds 3 --dry-run

test: $(VENV)/.installed-test$(EXTRAS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(VENV)/.installed-test$(EXTRAS)
	$(BIN)/python -m pytest -n 2 --dist loadfile

benchmark: $(VENV)/.installed-demo
	$(BIN)/python -m prep build ml-100k
	$(BIN)/python -m benchmarks all --out runs/benchmark $(if $(QUICK),--quick)

docs: $(VENV)/.installed-docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W -q -b html docs site
	@echo "written to site/index.html"

lab: $(VENV)/.installed-notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "jupyterlab>=4.4,<5"
	$(BIN)/python -m jupyterlab notebooks/01_first_steps.ipynb

notebooks: $(VENV)/.installed-notebooks
	$(BIN)/python notebooks/execute.py

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/question.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	! test -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile .devcontainer/Dockerfile

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test$(EXTRAS): $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test$(if $(EXTRAS),$(comma)$(EXTRAS))]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

$(VENV)/.installed-notebooks: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks]"
	touch $@

$(VENV)/.installed-lint: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lint]"
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
