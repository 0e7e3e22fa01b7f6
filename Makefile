# Two commands do everything on a fresh machine: `make demo` and `make test`. Both are fast when .venv stands.

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check hooks coverage docs pictures bench bench-tables bench-second-order bench-factorisation bench-fields bench-marginal coverage-study invariance certify trust clean

demo: .venv/installed
	$(BIN)/hofit fit models/sleepstudy.py --config configs/sleepstudy_mixed.yaml --run-dir runs/demo --overwrite

# Bytecode is kept whatever the environment says, so that no process of the command line compiles hofit anew. Each of
# the two starts with one half of the tests, in their order: what a file fits once is mostly fitted in one of them alone.
test: check
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# What needs no run: .pre-commit-config.yaml asks for the same.
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

hooks: .venv/installed
	$(BIN)/pre-commit install

# The lines and branches of hofit/ that no test reaches, the command line's own processes included.
coverage: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term-missing:skip-covered

# The README and docs/ as a site, in build/site; a link that leads nowhere is an error.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What docs/pictures holds, by the commands that stand beside each picture.
pictures: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.pictures

# The exact set that is tested; torch first, so that nothing asks for another build of it.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

bench: .venv/installed
	$(BIN)/python -m tests.benchmarks.overhead

bench-tables: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/tables.py

# Needs pytorch-minimize besides, for the methods of that library.
bench-second-order: .venv/installed
	$(BIN)/python tests/benchmarks/hessian_ratio.py --threads 1
	$(BIN)/python tests/benchmarks/second_order.py --threads 1

bench-factorisation: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/factorisation.py

# Fields in time and space, nested beside crossed levels, against scipy's answer.
bench-fields: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.fields

bench-marginal: .venv/installed
	$(BIN)/python tests/benchmarks/marginal.py --threads 2

coverage-study: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/coverage.py

invariance: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.invariance

certify: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.certification.nist

# All of tests/trust, whose fast slice is in `make test`: every kill, flip, fault, payload and mutant.
trust: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/trust tests/sharding --trust-full -n 2

clean:
	rm -rf .venv runs build .coverage* *.egg-info
