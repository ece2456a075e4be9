# Everything a user or a developer types. The first target that needs it makes .venv and installs
# the project into it; on Debian that works without the python3-venv package too.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help run test lint demo demo-redis demo-services demo-network bench bench-peers soak clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install -q pip setuptools; }
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

run: $(READY)  ## install, then run a full node on the embedded default network
	$(BIN)/skynode --profile fullnode

test: $(READY)  ## the whole test suite
	$(BIN)/python -m pytest -q -m 'not soak'

lint: $(READY)  ## style, types and architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

demo: $(READY)  ## a two full nodes and three visors, real processes, real sockets
	$(BIN)/python -m examples.demo $(DEMO_ARGS)

demo-redis: $(READY)  ## a mirror without a DHT, one Redis, two full nodes on it, and a visor
	$(BIN)/python -m examples.demo_redis

demo-services: $(READY)  ## a recorded network's visors register over HTTP, and the DHT says the same
	$(BIN)/python -m examples.demo_services

demo-network: $(READY)  ## nodes behind NATs lose all HTTP discovery; a new one joins by one relay
	$(BIN)/python -m examples.demo_network $(DEMO_ARGS)

bench: $(READY)  ## our figures on this machine
	$(BIN)/python -m benchmarks

bench-peers: $(READY)  ## the same work by py-libp2p, kademlia and noiseframework, in the same run
	$(BIN)/python -m pip install -q -e '.[peers]'
	$(BIN)/python -m benchmarks --peers

soak: $(READY)  ## the long and the wide tests
	$(BIN)/python -m pytest -q -m soak

clean:  ## forget the environment and every build product
	rm -rf $(VENV) build dist *.egg-info
