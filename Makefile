# Two commands do all the set-up on a machine that has Python and make:  make run   make test
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Every process that a test starts would compile all it imports, were it not allowed to keep that.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-long test-fleet goldens campaign mutation gpu-acceptance openvino engines lint mypy pyright clean

run: $(VENV)/.run  ## benchmark the built-in model: FP32 and INT8 take turns
	$(BIN)/harness duel --model digits --backend onnxruntime --across precision=fp32,int8 --launches 5

# The tests of a file share what they set up, so one process takes them all; in this order, since the
# files of tests/e2e last longest.
SIDE_BY_SIDE = -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev  ## the whole suite: side by side what judges no figure, then the rest; PYTEST_ARGS="-x"
	$(BIN)/python -m pytest tests/e2e tests/contract tests/unit plugins/wall-meter $(SIDE_BY_SIDE) -m "not measures" $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/e2e -m measures $(PYTEST_ARGS)

test-long:  ## the same, with simulated error rates ten times as exact
	$(MAKE) test PYTEST_ARGS="--long $(PYTEST_ARGS)"

goldens: $(VENV)/.dev  ## writes tests/data/goldens anew; read the diff like code
	$(BIN)/python -m pytest tests/unit/test_goldens.py tests/unit/test_goldens_made.py tests/unit/views/test_terminal.py --update-goldens

campaign: $(VENV)/.dev  ## kills, signals, mutated files, models of onnx's wheel and torch; CAMPAIGN_ARGS="--count 30 --seed 2"
	$(BIN)/python tests/campaign/campaign.py kills $(CAMPAIGN_ARGS)
	$(BIN)/python tests/campaign/campaign.py signals $(CAMPAIGN_ARGS)
	$(BIN)/python tests/campaign/campaign.py files $(CAMPAIGN_ARGS)
	$(BIN)/python tests/campaign/campaign.py onnx $(CAMPAIGN_ARGS)
	$(BIN)/python tests/campaign/campaign.py factories $(CAMPAIGN_ARGS)

# MUTANTS=200 SEED=1 SECONDS=1800 MODULES="harness/stats/* harness/records/refs.py"
mutation: $(VENV)/.dev  ## a sample of the code's mutants, and those that no unit test sees; brings mutmut
	$(PIP) -c constraints.txt mutmut==3.8.1
	$(BIN)/python tests/campaign/mutation.py --mutants $(or $(MUTANTS),200) --seed $(or $(SEED),1) --seconds $(or $(SECONDS),1800) $(MODULES)

gpu-acceptance:  ## on a machine with a GPU: each line with its verdict; BIN=DIR for the environment, PART_S=240 for a part
	$(BIN)/python benchmarks/gpu_acceptance.py -o results/gpu-acceptance --seconds $(or $(PART_S),480)

test-fleet: $(VENV)/.dev  ## the fleet on a real Ray cluster; brings Ray, some 240 MB
	$(PIP) -c constraints.txt -e '.[dev,fleet]'
	$(BIN)/python -m pytest tests/e2e/test_fleet.py $(PYTEST_ARGS)

openvino: $(VENV)/.dev  ## the wheel of plugins/openvino under Harness's contract, in an environment of its own
	rm -rf build/openvino && mkdir -p build/openvino
	$(PYTHON) -m venv build/openvino/venv
	build/openvino/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build
	build/openvino/venv/bin/python -m build --wheel --outdir build/openvino .
	build/openvino/venv/bin/python -m build --wheel --outdir build/openvino plugins/openvino
	build/openvino/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --find-links build/openvino 'hw-harness[onnxruntime,pytest]' hw-harness-openvino
	cd build/openvino && venv/bin/python -m pytest $(CURDIR)/plugins/openvino/tests $(PYTEST_ARGS)

engines: $(VENV)/.dev  ## every zoo model at every precision through the real builder of TensorRT for RTX
	$(BIN)/python -m pytest tests/campaign/engines.py $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## style and types, the two checkers side by side
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j2 mypy pyright

mypy pyright: $(VENV)/.dev
	$(BIN)/$@ $(if $(filter pyright,$@),--pythonpath $(BIN)/python)

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -c constraints.txt -e '.[onnxruntime]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.run
