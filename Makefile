# Every target sets up what it needs: Python 3.10 to 3.13 with its headers, a C++20 compiler, make and
# pip are enough.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
TORCH ?= 2.13.0
CUDA_TORCH ?= 2.14.1
VENV := .venv
CUDA_VENV := .venv-cuda
BIN := $(VENV)/bin
DEMO ?= demo-run
# The floors of `make test`, in per cent of lines and branches (Python) and of lines (C++).
PYTHON_COVERAGE ?= 95
CPP_COVERAGE ?= 90
PYTEST_ARGS ?=
# --full: every round and shape.
BENCH_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
export CMAKE_GENERATOR := Ninja
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

CPP_SOURCES := $(shell find cpp tests/cpp tests/fuzz cmake CMakeLists.txt -type f 2>/dev/null)
EXTENSION_SOURCES := $(filter-out tests/%,$(CPP_SOURCES))

.PHONY: help demo test test-cpp test-python test-report sanitize fuzz neon-check dev lint format bench bench-gate docs stubs deploy-check cuda-check clean

help:
	@echo "make demo        train a small model on the built-in stories and let it write"
	@echo "make test        build, run all tests, report coverage"
	@echo "make sanitize    the tests that need no torch under the sanitizers (part of make test)"
	@echo "make fuzz        give broken files to the readers for FUZZ_SECONDS each (60; needs clang)"
	@echo "make dev         an editable install with every tool of development"
	@echo "make lint        ruff, mypy, clang-format (make format mends the layout)"
	@echo "make bench       measure beside the peers and print tables (BENCH_ARGS=--full for all)"
	@echo "make bench-gate  check that the ratios to PyTorch have not fallen"
	@echo "make docs        build the documentation into docs/_build/html"
	@echo "make stubs       write python/omnima/_core.pyi anew from the extension"
	@echo "make deploy-check  run the steps of deploy/Dockerfile without a container engine (compiles anew)"
	@echo "make cuda-check  build against a CUDA torch, run kernels emulated and a step (needs nvcc, no GPU)"
	@echo "make neon-check  build what needs no torch for 64-bit ARM and run its tests (needs a cross compiler)"
	@echo "make clean       remove what the other targets made"

# --- setting up -----------------------------------------------------------------------------------

# torch comes first and pinned: an unpinned one may bring gigabytes that this build cannot use.
$(VENV)/.torch:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch==$(TORCH)" numpy
	touch $@

$(VENV)/.build: $(VENV)/.torch
	$(BIN)/pip install --quiet "scikit-build-core>=0.10" "cmake>=3.24" "ninja>=1.11"
	touch $@

# Editable: a change of Python needs nothing, a change of C++ builds again what it touches.
INSTALL := $(BIN)/pip install --quiet --no-build-isolation --editable
NO_REBUILD := --config-settings=editable.rebuild=false

$(VENV)/.extension: $(VENV)/.build pyproject.toml $(EXTENSION_SOURCES)
	$(INSTALL) ".[plot]" $(NO_REBUILD)
	touch $@

$(VENV)/.test: $(VENV)/.build pyproject.toml | $(VENV)/.extension
	$(INSTALL) ".[test]" $(NO_REBUILD)
	touch $@

# The editable install of `make dev` also rebuilds by itself, on import.
$(VENV)/.dev: $(VENV)/.build pyproject.toml
	$(INSTALL) ".[dev]"
	touch $@ $(VENV)/.test $(VENV)/.extension

$(VENV)/.lint: $(VENV)/.build pyproject.toml | $(VENV)/.extension
	$(INSTALL) ".[test,lint]" $(NO_REBUILD)
	touch $@

# --- what a newcomer types ------------------------------------------------------------------------

demo: $(VENV)/.extension
	$(BIN)/omnima train --config examples/recipes/tinyworld.yaml --overwrite --out $(DEMO)
	$(BIN)/omnima generate $(DEMO) --prompt "Once" --max-new-tokens 120 --seed 1

test: $(VENV)/.extension $(VENV)/.test test-cpp test-python test-report sanitize

# The GoogleTest program is built with line counters: its run alone gives the coverage of the C++ core.
# What only Python reaches does not count, so the bindings are left out; the lines of a kernel's body,
# compiled once for each instruction set, are merged. Objects of sources that have since gone are passed over.
test-cpp: $(VENV)/.test
	mkdir -p build
	cmake -S . -B build/coverage -DOMNIMA_TESTS=ON -DOMNIMA_COVERAGE=ON \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" $(CMAKE_ARGS) > build/coverage.log || (cat build/coverage.log; exit 1)
	cmake --build build/coverage --target omnima_tests omnima_cuda_tests
	find build/coverage -name '*.gcda' -delete
	build/coverage/tests/cpp/omnima_tests --gtest_brief=1
	build/coverage/tests/cpp/omnima_cuda_tests --gtest_brief=1

test-python: $(VENV)/.extension $(VENV)/.test
	$(BIN)/python -m pytest --cov=omnima --cov-branch --cov-report= $(PYTEST_ARGS)

# Lines of kernels run more than 2^32 times: such counts are no errors.
test-report: test-cpp test-python
	@echo; echo "== coverage of the C++ core (lines; floor $(CPP_COVERAGE)%)"
	$(BIN)/gcovr --root . --object-directory build/coverage --filter 'cpp/omnima/' \
	  --exclude 'cpp/omnima/bindings/' --gcov-ignore-errors=source_not_found --merge-lines \
	  --gcov-suspicious-hits-threshold 0 --merge-mode-functions=merge-use-line-min -j $(CMAKE_BUILD_PARALLEL_LEVEL) \
	  --fail-under-line $(CPP_COVERAGE) build/coverage/cpp build/coverage/tests
	@echo; echo "== coverage of the Python package (lines and branches)"
	$(BIN)/coverage report
	$(BIN)/coverage json -q -o - | $(BIN)/python tools/coverage_floor.py $(PYTHON_COVERAGE)

# What needs no torch, with its tests, under the sanitizers: of addresses and undefined behaviour, and
# of threads for what has threads of its own.
sanitize: sanitize-address,undefined sanitize-thread

# GoogleTest is fetched where the system has none: once, by the first build that needs it.
GTEST_FETCHED = $(addprefix -DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=$(CURDIR)/,$(wildcard build/coverage/_deps/googletest-src))

# Some systems spread addresses wider than the thread sanitizer can follow: there without spreading,
# and where that is forbidden it says that it did not run.
sanitize-%: $(VENV)/.build
	mkdir -p build
	cmake -S . -B build/$@ -DOMNIMA_TESTS=ON -DOMNIMA_SANITIZE=$* $(GTEST_FETCHED) $(CMAKE_ARGS) \
	  > build/$@.log || (cat build/$@.log; exit 1)
	cmake --build build/$@ --target omnima_tests
	run=build/$@/tests/cpp/omnima_tests; starts() { $$run --gtest_list_tests > /dev/null 2>&1; }; \
	if [ $* = thread ] && ! starts; then \
	  run="setarch -R $$run"; \
	  starts || { echo "NOT RUN: the thread sanitizer cannot start on this system"; exit 0; }; \
	fi; \
	UBSAN_OPTIONS=print_stacktrace=1 $$run --gtest_brief=1

# Outside CI, which gives the same entries their seeds, what was found and changes of both. The corpus
# in build/fuzz grows from run to run.
FUZZ_SECONDS ?= 60
FUZZ_ENTRIES ?= safetensors gguf quantize
FUZZ_CXX ?= $(shell compgen -c clang++ | grep -E '^clang\+\+(-[0-9]+)?$$' | sort -V | tail -1)
FUZZ_SMALLEST = extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }

fuzz: $(VENV)/.build
	@mkdir -p build/fuzz
	@echo '$(FUZZ_SMALLEST)' | $(or $(FUZZ_CXX),clang++) -fsanitize=fuzzer,address -x c++ - -o build/fuzz/can 2> /dev/null || \
	  (echo "make fuzz needs clang with its fuzzer (Debian: clang-16 libclang-rt-16-dev); FUZZ_CXX names another one" && exit 1)
	cmake -S . -B build/fuzz -DOMNIMA_FUZZ=ON -DCMAKE_CXX_COMPILER=$(FUZZ_CXX) $(CMAKE_ARGS) \
	  > build/fuzz.log || (cat build/fuzz.log; exit 1)
	cmake --build build/fuzz --target write_seeds $(addprefix fuzz_,$(FUZZ_ENTRIES))
	$(foreach entry,$(FUZZ_ENTRIES),$(call run_fuzzer,$(entry)))

define run_fuzzer
	mkdir -p build/fuzz/seeds/$(1) build/fuzz/corpus/$(1)
	build/fuzz/tests/fuzz/write_seeds $(1) build/fuzz/seeds/$(1)
	UBSAN_OPTIONS=print_stacktrace=1 build/fuzz/tests/fuzz/fuzz_$(1) -max_total_time=$(FUZZ_SECONDS) \
	  -max_len=8192 -rss_limit_mb=1024 -timeout=10 -verbosity=0 -print_final_stats=1 \
	  -artifact_prefix=build/fuzz/$(1)- build/fuzz/corpus/$(1) build/fuzz/seeds/$(1) || \
	  (echo "keep it as a test: xxd -p FILE > tests/fuzz/found/$(1)/WHAT.hex" && exit 1)

endef

dev: $(VENV)/.dev $(VENV)/.extension
	@echo "ready: source $(BIN)/activate, then omnima --help"

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint deploy/Dockerfile deploy/Dockerfile.cuda
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.cuda.yaml
	! git grep -nE '^(<<<<<<<|>>>>>>>) ' || { echo 'A merge was committed unresolved.'; exit 1; }
	find cpp tests/cpp tests/fuzz -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find cpp tests/cpp tests/fuzz -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

bench: $(VENV)/.extension $(VENV)/.test
	$(BIN)/python benchmarks/run_all.py $(BENCH_ARGS)

# Compares ratios to PyTorch in the same minutes, so that a slow machine passes too.
bench-gate: $(VENV)/.extension $(VENV)/.test
	$(BIN)/python benchmarks/gate.py

docs: $(VENV)/.dev $(VENV)/.extension
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

stubs: $(VENV)/.extension $(VENV)/.test
	$(BIN)/python tools/make_stubs.py

# DEPLOY_ARGS="--wheel FILE" installs that instead of compiling the checkout.
DEPLOY_ARGS ?=

deploy-check:
	$(PYTHON) tools/deploy_check.py $(DEPLOY_ARGS)

# A CUDA torch weighs gigabytes: it has an environment of its own, filled once.
NVCC_THERE = command -v nvcc > /dev/null || (echo "make cuda-check needs nvcc on the PATH" && exit 1)

$(CUDA_VENV)/.torch-$(CUDA_TORCH):
	@$(NVCC_THERE)
	test -x $(CUDA_VENV)/bin/python || $(PYTHON) -m venv $(CUDA_VENV)
	rm -f $(CUDA_VENV)/.torch-*
	$(CUDA_VENV)/bin/pip install --quiet "torch==$(CUDA_TORCH)" numpy cmake ninja
	touch $@

cuda-check: $(CUDA_VENV)/.torch-$(CUDA_TORCH)
	@$(NVCC_THERE)
	mkdir -p build
	$(CUDA_VENV)/bin/cmake -S . -B build/cuda -DOMNIMA_CUDA=ON -DOMNIMA_TESTS=ON \
	  -DOMNIMA_SANITIZE_CUDA=ON -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
	  -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(CUDA_VENV)/bin/ninja" \
	  -DPython_EXECUTABLE="$(CURDIR)/$(CUDA_VENV)/bin/python" > build/cuda.log || (cat build/cuda.log; exit 1)
	$(CUDA_VENV)/bin/cmake --build build/cuda --target _core omnima_cuda_tests
	ASAN_OPTIONS=detect_leaks=0 build/cuda/tests/cpp/omnima_cuda_tests --gtest_brief=1 --gtest_filter=-*DeathTest*
	$(CUDA_VENV)/bin/python tools/cuda_check.py build/cuda

# Outside CI: ARM's vectors are part of every 64-bit ARM, so the generic level is compiled to them.
NEON_CXX ?= aarch64-linux-gnu-g++
NEON_RUN ?= $(shell command -v qemu-aarch64-static || command -v qemu-aarch64)

neon-check: $(VENV)/.build
	@command -v $(NEON_CXX) > /dev/null || (echo "make neon-check needs $(NEON_CXX) (Debian: g++-aarch64-linux-gnu)" && exit 1)
	mkdir -p build
	cmake -S . -B build/neon -DOMNIMA_TESTS=ON -DOMNIMA_TORCH_FREE=ON -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(NEON_CXX) -DCMAKE_EXE_LINKER_FLAGS=-static \
	  -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ONLY -DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON \
	  $(or $(GTEST_FETCHED),$(addprefix -DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=,$(wildcard /usr/src/googletest))) \
	  > build/neon.log || (cat build/neon.log; exit 1)
	cmake --build build/neon --target omnima_tests
	@test -n "$(NEON_RUN)" || echo "built, not run: there is no qemu-aarch64 (Debian: qemu-user-static)"
	$(if $(NEON_RUN),$(NEON_RUN) build/neon/tests/cpp/omnima_tests --gtest_brief=1 --gtest_filter=-*DeathTest*)

clean:
	rm -rf $(VENV) $(CUDA_VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	find python tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f python/omnima/_core*.so python/omnima/_torch_version.txt
