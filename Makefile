# Everything here needs Python 3.11+, make and a package index; `make integration` also needs Go and npm.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := protos/backends/v1/backend.proto protos/backends/v1/packed.proto protos/mixer/v1/mixer.proto
READY := $(VENV)/.ready
IMAGE := jwt kafka opensearch postgres qdrant redis s3 solr
RANK := .venv-rank
PEERS := .venv-peers
LOCK := --universal --generate-hashes --no-emit-find-links --no-emit-index-url --no-header

.PHONY: help demo story stack test check audit bench bench-check bench-compare bench-rank bench-peers integration format protos docs lock demo-model eval-demo eval-msrd

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "uv>=0.9,<1"
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements-dev.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

$(RANK)/.ready: tests/bench/requirements-rank.lock $(READY)
	$(PYTHON) -m venv $(RANK)
	$(BIN)/uv pip sync -q --python $(RANK)/bin/python --require-hashes tests/bench/requirements-rank.lock
	touch $@

$(PEERS)/.ready: requirements.lock tests/bench/peers/requirements.lock $(READY)
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/uv pip sync -q --python $(PEERS)/bin/python --require-hashes requirements.lock tests/bench/peers/requirements.lock
	$(BIN)/uv pip install -q --python $(PEERS)/bin/python --no-deps -e .
	touch $@

demo: $(READY) ## Index the standard library's docs, start three backends and Mixer, search, serve
	$(BIN)/mixer demo

story: $(READY) ## Tell a model's life on a real server under load: learned, tried, promoted; broken ones stopped
	$(BIN)/python -m mixer.demo.story

stack: $(READY) ## Start the demo's processes before a Collector, Jaeger and Prometheus, search, serve; needs Go
	tests/integration/tools.sh .tools jaeger otelcol prometheus
	$(BIN)/python -m mixer.demo.stack

test: $(READY) ## Run the tests
	$(BIN)/pytest -n 2

check: $(READY) ## Lint, types, generated code fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.check.generated $(PROTOS)
	$(BIN)/python -m tests.check.readme
	$(BIN)/python -m tests.check.runbooks
	$(BIN)/python -m tests.check.dashboards
	$(BIN)/python -m tests.check.chart_rules
	$(BIN)/python -m tests.check.ml_test_score
	$(BIN)/python -m tests.check.capacity
	$(BIN)/python -m tests.check.golden_vectors
	$(BIN)/buf lint protos
	$(BIN)/hadolint Dockerfile

audit: $(READY) ## Pins, hashes, licenses, known vulnerabilities; AUDIT=--offline-ok passes without the last
	$(BIN)/python -m tests.check.audit $(AUDIT)

integration: $(READY) ## Tests that need more: Helm (through Go), real programs
	tests/integration/tools.sh
	$(BIN)/pytest -n 2 --dist loadfile tests/integration

demo-model: $(READY) ## Train the model that the demo ships
	$(BIN)/python -m mixer.demo.experiment train
	$(BIN)/python -m tests.check.golden_vectors --write

eval-demo: $(READY) ## Measure the demo's model: five folds by need
	$(BIN)/python -m mixer.demo.experiment evaluate

eval-msrd: $(READY) ## Train and measure on the movie set beside the repository, through the running service
	$(BIN)/python -m tests.eval.msrd

bench: $(READY) ## Measure what Mixer adds to the bare fan-out; AGAINST=commit measures that beside it
	$(BIN)/python -m tests.bench.path $(if $(AGAINST),--against $(AGAINST))

bench-check: $(READY) ## The same, short: counts, and ratios within wide bounds
	$(BIN)/python -m tests.bench.path --check

bench-compare: $(READY) ## Compare two records: make bench-compare OLD=commit NEW=commit
	$(BIN)/python -m tests.bench.path --compare $(OLD) $(NEW)

bench-rank: $(RANK)/.ready ## Measure the scorer beside LightGBM, ONNX Runtime and lleaves
	$(RANK)/bin/python -m tests.bench.rank

bench-peers: $(PEERS)/.ready ## Measure Mixer beside a FastAPI service and a Haystack pipeline
	$(PEERS)/bin/python -m tests.bench.peers

format: $(READY) ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(READY) ## Generate Python from the .proto files
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

docs: $(READY) ## Write what is generated: README's tables, the dashboards, the runbooks, the chart's rules, the ML test score
	$(BIN)/python -m tests.check.readme --write
	$(BIN)/python -m tests.check.runbooks --write
	$(BIN)/python -m tests.check.dashboards --write
	$(BIN)/python -m tests.check.chart_rules --write
	$(BIN)/python -m tests.check.ml_test_score --write
	$(BIN)/python -m tests.check.capacity --write

lock: ## Renew the lock files from pyproject.toml
	$(BIN)/uv pip compile -q $(LOCK) pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q $(LOCK) --group dev --all-extras pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile -q $(LOCK) -c requirements-dev.lock $(IMAGE:%=--extra %) pyproject.toml -o requirements-image.lock
	$(BIN)/uv pip compile -q $(LOCK) tests/bench/requirements-rank.in -o tests/bench/requirements-rank.lock
	$(BIN)/uv pip compile -q $(LOCK) -c requirements.lock tests/bench/peers/requirements.in -o tests/bench/peers/requirements.lock
