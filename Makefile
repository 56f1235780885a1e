PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt

# Images of containers set it; every process of a run, and of the tests, would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run train-demo test test-slow test-vllm coverage check truth planted confusion real-facts fuzz chaos bench clean

run: .venv/installed  ## build the demo dataset, its release and its report
	$(BIN)/marathon run jobs/demo.yaml

train-demo: .venv/installed-dev  ## small models from scratch: with a memory, without it, of sampled frames (DEMO='--seeds 1')
	OMP_NUM_THREADS=1 $(BIN)/python -m marathon_pipeline.hour_llava.evaluation.demo out/train-demo $(DEMO)

test: .venv/installed-dev  ## run the tests
	$(BIN)/pytest -n 3

test-slow: .venv/installed-dev  ## what takes minutes: sudden death, failing servers, batches, and the tests' own server
	$(BIN)/pytest -n 2 -m 'slow and not vllm'

test-vllm: .venv/installed-dev .venv-vllm/installed  ## ask a real vLLM on the CPU, with tiny random models: 2.5 GB to install
	$(BIN)/pytest -m '$(or $(ONLY),vllm)' tests/vllm

coverage: .venv/installed-dev  ## run the tests and tell which lines and branches none of them takes
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 4
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

real-facts: .venv/installed-dev  ## hold facts about real videos against labels (MARATHON_TEST_VIDEOS: their folder)
	MARATHON_REAL_FACTS=1 $(BIN)/pytest -s tests/test_real_facts.py

fuzz: .venv/installed-dev  ## mutated videos (of MARATHON_TEST_VIDEOS), manifests, jobs, templates and answers: half an hour
	$(BIN)/python tests/fuzz.py $(or $(VIDEOS),1120) out/fuzz
	MARATHON_FUZZ=1000 $(BIN)/pytest tests/test_fuzz.py -k "not videos" --timeout 1800
	MARATHON_FUZZ=6000 $(BIN)/pytest -s tests/test_fuzz_answers.py --timeout 3600

check: .venv/installed-dev  ## lint, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest tests/test_structure.py

truth: .venv/installed-dev  ## score all that the offline annotator can say of videos of fresh seeds, against their scripts
	PYTHONPATH=tests $(BIN)/python -m truth.run $(FIRST_SEED)

planted: .venv/installed-dev  ## plant every known fault in clean datasets: what the audit finds of each
	PYTHONPATH=tests $(BIN)/python -m planted.run

confusion: .venv/installed-dev  ## what the audit lets through though it is wrong, on videos of fresh seeds with scripts
	PYTHONPATH=tests $(BIN)/python -m planted.confusion $(FIRST_SEED)

chaos: .venv/installed-dev  ## 500 videos on three hosts while everything fails, 50 times: a quarter of an hour (CHAOS='--videos 60 --events 8')
	$(BIN)/python tests/chaos.py $(CHAOS)

bench: .venv/installed-dev  ## measure speed and memory, REAL=film.mp4 on it too: an hour or more, docs/performance.md
	$(BIN)/python tests/bench/segment.py $(if $(REAL),--real $(REAL))
	$(BIN)/python tests/bench/chain.py
	PYTHONPATH=tests $(BIN)/python tests/bench/serving.py
	$(BIN)/python tests/bench/audit.py
	PYTHONPATH=tests $(BIN)/python tests/bench/loader.py
	$(BIN)/python tests/bench/hour_llava.py
	PYTHONPATH=tests $(BIN)/python tests/bench/governor.py
	PYTHONPATH=tests $(BIN)/python tests/bench/nodes.py

clean:
	rm -rf .venv .venv-vllm out

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "marathon needs Python 3.11 to 3.13: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip pyproject.toml .ci/constraints.txt
	$(INSTALL) --editable .
	@touch $@

# torch first and from the index of CPU builds, where it can be reached: the tests need no gigabytes of CUDA.
.venv/installed-dev: .venv/installed
	$(INSTALL) --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu torch
	$(INSTALL) --editable '.[dev,train]'
	@touch $@

# torch first, since vLLM for CPUs needs the CPU build, which PyPI does not have.
.venv-vllm/installed: tests/vllm/requirements.txt
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps --retries 1 \
	  --extra-index-url https://download.pytorch.org/whl/cpu $$(grep ^torch== $<)
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@
