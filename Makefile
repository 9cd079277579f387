# On a fresh clone, with Python 3.11 or newer and pip:
#
#   make demo    trains on MNIST-1D with e-prop, on NumPy, under a minute
#   make test    passes the tests on every backend, together with ruff, mypy and the examples in the documentation
#
# Both set up .venv first; stamps in it keep later calls from installing anything again until pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv

# The tests need no GPU. Where pip has a CPU build of PyTorch it takes that; from PyPI alone it takes the CUDA build,
# several GB on Linux. To avoid that:
#   make test TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch==2.13.0

# The same TensorFlow in half the size where there is such a build. It is not what the extra asks for, because
# installing it beside a user's own tensorflow would overwrite that.
TENSORFLOW ?= $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' '-')),tensorflow-cpu,tensorflow)

# Processes that share the tests, and further arguments of pytest, such as PYTEST_ARGS='-k eprop'.
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: demo test clean

demo: $(VENV)/core.stamp
	$(BIN)/neko run configs/mnist1d_eprop.yaml

test: $(VENV)/test.stamp
	NEKO_REQUIRE_BACKENDS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build *.egg-info

# Some distributions ship Python without ensurepip; their pip can then equip the environment.
$(VENV)/created.stamp:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv --clear $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@touch $@

$(VENV)/core.stamp: $(VENV)/created.stamp pyproject.toml
	$(PIP) -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/created.stamp pyproject.toml
	$(PIP) $(TORCH) || echo 'pip does not find $(TORCH): taking the newest that it finds'
	$(PIP) '$(TENSORFLOW)>=2.18' -e '.[torch,jax,dev]'
	@touch $@
