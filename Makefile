PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt

.PHONY: demo test lint docs notebooks compat peers bench bench-all bench-local clean

demo: $(VENV)/.demo  ## rerank real documents in a LangChain retriever and a LlamaIndex query engine, offline
	$(BIN)/python notebooks/demo.py

# COVERAGE=--cov counts lines too, which takes half as long again.
test: $(VENV)/.test  ## run the whole suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(COVERAGE)

lint: $(VENV)/.lint  ## static checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the site into build/site; a broken link or an unknown name fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

notebooks: $(VENV)/.test  ## run the notebooks again, and store their outputs
	$(BIN)/python notebooks/execute.py

compat: compat-lowest compat-newest  ## run the marked tests with the lowest and with the newest versions
COMPAT := bedrock,cohere,embedded,langchain,llamaindex,oci,voyage

# In an environment of its own; the frameworks' own warnings about newer packages are not ours to mend.
# make compat COMPAT=…,local installs torch and sentence-transformers too.
compat-%:
	$(PYTHON) -m venv --clear $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-$*/bin/python -m pip install --quiet --constraint .ci/constraints.txt \
		--constraint .ci/constraints-$*.txt --editable ".[$(COMPAT)]" --group compat
	$(VENV)-$*/bin/python -m pytest --numprocesses auto --maxprocesses 4 -o filterwarnings=default -m compat \
		--ignore tests/adapters/test_langchain_agents.py tests/adapters tests/contract

# In an environment of its own, because other rerankers' packages pin what ours do not.
peers:  ## run other packages' own rerankers inside ours
	$(PYTHON) -m venv --clear $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-peers/bin/python -m pip install --quiet --constraint .ci/constraints.txt \
		--editable ".[bedrock,langchain,llamaindex,local,onnx]" --group compat --group peers
	$(VENV)-peers/bin/python -m pytest -o filterwarnings=default tests/peers

bench: $(VENV)/.test  ## print the figures; make bench CRANFIELD=folder adds the evaluation on that collection
	$(BIN)/python tests/benchmarks/import_time.py
	$(BIN)/python tests/benchmarks/overhead.py
	$(BIN)/python tests/benchmarks/embedded_speed.py
	$(BIN)/python tests/benchmarks/providers.py
	$(BIN)/python tests/benchmarks/faults.py
	$(BIN)/python tests/benchmarks/load.py
	$(BIN)/python tests/benchmarks/embedded_first.py
	$(if $(CRANFIELD),$(BIN)/python tests/benchmarks/evaluation.py $(CRANFIELD))
	$(if $(CRANFIELD),$(BIN)/python tests/benchmarks/stored.py $(CRANFIELD))
	$(if $(CRANFIELD),$(BIN)/python tests/benchmarks/policies.py $(CRANFIELD))
	$(if $(CRANFIELD),$(BIN)/python tests/benchmarks/llm.py $(CRANFIELD))

BENCH ?= $(VENV)-bench

# Half an hour on 2 cores. The other rerankers are installed into environments of their own, on first use.
bench-local: $(VENV)/.test  ## compare the local engine with the other local rerankers
	$(INSTALL) --group bench
	$(BIN)/python tests/benchmarks/local_speed.py --folder $(BENCH) --rivals-venv $(BENCH)
	$(BIN)/python tests/benchmarks/local_precision.py --folder $(BENCH) --rivals-venv $(BENCH)
	$(BIN)/python tests/benchmarks/local_concurrency.py --folder $(BENCH)
	$(BIN)/python tests/benchmarks/local_memory.py --folder $(BENCH)
	$(BIN)/python tests/benchmarks/local_shapes.py --folder $(BENCH)
	$(BIN)/python tests/benchmarks/embedded_first.py --folder $(BENCH)

# All of it takes two hours on 2 cores; PARTS="stored local_speed" some of it, WITH="--rounds 1" a quick look.
bench-all: $(VENV)/.test  ## measure what the documentation quotes; CRANFIELD=folder adds what needs that collection
	$(INSTALL) --group bench
	$(BIN)/python tests/benchmarks/bench_all.py $(PARTS) --folder $(BENCH) \
		$(if $(CRANFIELD),--cranfield $(CRANFIELD)) $(if $(WITH),--with "$(WITH)")

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-peers $(VENV)-bench build dist

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.demo: pyproject.toml .ci/constraints.txt | $(BIN)/pip
	$(INSTALL) --editable ".[cli,embedded,eval,langchain,llamaindex]"
	touch $@

$(VENV)/.test: pyproject.toml .ci/constraints.txt | $(BIN)/pip
	$(INSTALL) torch
	$(INSTALL) --editable ".[all,ray]" --group test
	touch $@ $(VENV)/.demo

# The type checker reads the installed packages, so it needs what the tests need.
$(VENV)/.lint: $(VENV)/.test
	$(INSTALL) --group lint
	touch $@

$(VENV)/.docs: pyproject.toml .ci/constraints.txt | $(BIN)/pip
	$(INSTALL) --editable . --group docs
	touch $@
