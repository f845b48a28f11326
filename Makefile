# make serve    start a server, ask it one question, keep it until Ctrl-C
# make test     linters, type checker and the test suite
# make check    linters and type checker only
# make clean    remove the virtual environment and caches
#
# Each first sets up .venv, which takes minutes the first time.

PYTHON = python3

MODEL = checkpoints/tiny-llada
CACHE = none
PORT = 8000
# Further arguments for `vllm serve`, as in make serve ARGS="--host 0.0.0.0"
ARGS =

BIN = .venv/bin
# Touched when an installation is complete.  The plugin is installed in place:
# after a change to its sources there is nothing to install again.
INSTALLED = .venv/installed

.PHONY: serve test check clean

serve: $(INSTALLED)
	@$(BIN)/python tools/serve.py $(MODEL) --dllm-cache $(CACHE) --port $(PORT) $(ARGS)

test: check
	@$(BIN)/python -m pytest tests

check: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy vllm_dllm patches

$(INSTALLED): pyproject.toml setup.py tools/install.py tools/vllm_cpu/setup.py
	@test -x $(BIN)/pip || { echo "== creating .venv"; $(PYTHON) -m venv .venv; }
	@$(BIN)/python tools/install.py
	@touch $@

clean:
	rm -rf .venv *.egg-info build tools/vllm_cpu/*.egg-info tools/vllm_cpu/build
	rm -rf .pytest_cache .ruff_cache .mypy_cache
