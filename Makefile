# make serve    start a server, ask it one question, keep it until Ctrl-C
# make unit     the tests that start no engine: two minutes
# make test     linters, type checker and the whole test suite: half an hour
# make check    linters and type checker only, and that the documentation's site can be built
# make site     the documentation as a site, in build/site
# make clean    remove the virtual environment and caches
#
# Each first sets up .venv, which takes minutes the first time.

PYTHON = python3

MODEL = checkpoints/tiny-llada
CACHE = entropy
# Positions behind the active block that exist: a long max_tokens costs, and tells
# the model, no more than the answer needs.
HORIZON = 32
# Either may be empty.  Unless they are given, models whose attention is causal by
# blocks, which have neither, are served without.
PORT = 8000
# Further arguments of `vllm serve`, as in make serve ARGS="--host 0.0.0.0", or
# of pytest, as in make test ARGS="--golden all"
ARGS =

BIN = .venv/bin
# Touched when an installation is complete.  The plugin is installed in place:
# after a change to its sources there is nothing to install again.
INSTALLED = .venv/installed

# It says where it comes from, at length, unless told not to.
SITE = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Two tests at a time; those that share an engine stay together (tests/together.py).
TWO = -n 2 --dist loadfile --no-loadscope-reorder

# With $(call unless,CACHE,A,B): A unless CACHE is given, else B
unless = $(if $(filter file,$(origin $(1))),$(2),$(3))
CACHE_FLAG = $(if $(CACHE),--dllm-cache $(CACHE))
HORIZON_FLAG = $(if $(HORIZON),--dllm-horizon $(HORIZON))
DEFAULTS = $(call unless,CACHE,$(CACHE_FLAG)) $(call unless,HORIZON,$(HORIZON_FLAG))
GIVEN = $(call unless,CACHE,,$(CACHE_FLAG)) $(call unless,HORIZON,,$(HORIZON_FLAG))

.PHONY: serve unit test check site clean

serve: $(INSTALLED)
	@$(BIN)/python tools/serve.py $(MODEL) --unless-in-blocks="$(DEFAULTS)" $(GIVEN) --port $(PORT) $(ARGS)

unit: $(INSTALLED)
	@$(BIN)/python -m pytest tests/unit tests/caching tests/attention_maps tests/kernels $(TWO) $(ARGS)

test: check
	@$(BIN)/python -m pytest tests $(TWO) $(ARGS)

check: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy vllm_dllm patches examples/third_party_policy/*_*.py
	@$(SITE)

# the documentation, in build/site
site: $(INSTALLED)
	@$(SITE)

$(INSTALLED): pyproject.toml setup.py tools/install.py tools/vllm_cpu/setup.py
	@test -x $(BIN)/pip || { echo "== creating .venv"; $(PYTHON) -m venv .venv; }
	@$(BIN)/python tools/install.py
	@touch $@

clean:
	rm -rf .venv *.egg-info build tools/vllm_cpu/*.egg-info tools/vllm_cpu/build
	rm -rf .pytest_cache .ruff_cache .mypy_cache
