# Everything here needs Python 3.11+, make and a package index; `make integration` also needs Go and npm.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := protos/backends/v1/backend.proto protos/mixer/v1/mixer.proto
READY := $(VENV)/.ready
LOCK := --universal --generate-hashes --no-emit-find-links --no-emit-index-url --no-header

.PHONY: help demo test check bench bench-rank integration format protos docs lock demo-model eval-demo eval-msrd

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "uv>=0.9,<1"
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements-dev.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

demo: $(READY) ## Index the standard library's docs, start three backends and Mixer, search, serve
	$(BIN)/mixer demo

test: $(READY) ## Run the tests
	$(BIN)/pytest -n 2

check: $(READY) ## Lint, types, generated code fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.check.generated $(PROTOS)
	$(BIN)/python -m tests.check.readme
	$(BIN)/buf lint protos
	$(BIN)/hadolint Dockerfile

integration: $(READY) ## Tests that need more: Helm (through Go), real programs
	tests/integration/tools.sh
	$(BIN)/pytest -n 2 tests/integration

demo-model: $(READY) ## Train the model that the demo ships
	$(BIN)/python -m mixer.demo.experiment train

eval-demo: $(READY) ## Measure the demo's model: five folds by need
	$(BIN)/python -m mixer.demo.experiment evaluate

eval-msrd: $(READY) ## Train and measure on the movie set beside the repository, through the running service
	$(BIN)/python -m tests.eval.msrd

bench-rank: $(READY) ## Measure the scorer beside LightGBM's own
	$(BIN)/python -m tests.bench.rank

bench: $(READY) ## Measure what Mixer adds to the bare fan-out
	$(BIN)/python -m tests.bench.path

format: $(READY) ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(READY) ## Generate Python from the .proto files
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

docs: $(READY) ## Write the catalogue's tables into README.md
	$(BIN)/python -m tests.check.readme --write

lock: ## Renew the lock files from pyproject.toml
	$(BIN)/uv pip compile -q $(LOCK) pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q $(LOCK) --group dev pyproject.toml -o requirements-dev.lock
