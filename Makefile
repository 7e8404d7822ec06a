.DEFAULT_GOAL := help
.PHONY: help install check format test test-all demo docs bench clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install:  ## Install editable, with the development tools
	python -m pip install -c constraints.txt -e ".[dev]"

check:  ## Style and types
	ruff check gravmap cli tests benchmarks docs
	ruff format --check gravmap cli tests benchmarks docs
	mypy

format:  ## Put the code in shape
	ruff check --fix gravmap cli tests benchmarks docs
	ruff format gravmap cli tests benchmarks docs

test:  ## The default tests (no network, no GPU, minutes)
	pytest

test-all:  ## Also the slow ones and the comparisons with peers
	pytest -m "not network and not gpu"

demo:  ## The whole chain on the synthetic crust
	gravmap demo

docs:  ## Write docs/commands.md anew from --help
	python docs/make_commands.py

bench:  ## Our figures beside the peers'
	for script in benchmarks/continuation.py benchmarks/network.py; do python $$script; done

clean:  ## Remove what building and testing left
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
