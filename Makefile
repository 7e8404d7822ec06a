.DEFAULT_GOAL := help
.PHONY: help install check format test test-all demo docs pictures bench clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install:  ## Install editable, with the development tools
	python -m pip install -c constraints.txt -e ".[dev]"

check:  ## Style and types
	ruff check gravmap cli tests benchmarks docs
	ruff format --check gravmap cli tests benchmarks docs
	mypy

format:  ## Format the code
	ruff check --fix gravmap cli tests benchmarks docs
	ruff format gravmap cli tests benchmarks docs

test:  ## The default tests (no network, no GPU, minutes)
	pytest

test-all:  ## Also the slow tests and the comparisons with other packages
	pytest -m "not network and not gpu"

demo:  ## All steps on a synthetic crust
	gravmap demo

docs:  ## The site, build/docs/index.html (offline), and docs/commands.md from --help
	@python -c "import myst_parser, numpydoc, pydata_sphinx_theme" 2>/dev/null || { echo 'Install what builds the site: pip install ".[docs]"'; exit 1; }
	python docs/make_commands.py
	python -m sphinx -q -W --keep-going docs build/docs

pictures:  ## Run the tutorials and renew their pictures (4 minutes)
	python docs/run_tutorials.py

bench:  ## Benchmarks beside other packages
	for script in benchmarks/continuation.py benchmarks/network.py; do python $$script; done

clean:  ## Remove the files of builds and tests
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
