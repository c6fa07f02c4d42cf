# The front door. `make` alone prints this help. Every target makes what it needs; all of them are safe to repeat.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

RECIPE ?= recipes/banking.yaml
PYTHON ?= python3
V := .venv
PY := $(V)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
PIP := $(INSTALL) -c constraints.txt
DATAGEN := $(PY) -m datagen
TRAIN := $(PY) -m train
ARGS_STORE = --recipe $(RECIPE) $(if $(STORE),--store $(STORE))
ARGS_DATAGEN = $(ARGS_STORE) $(if $(TEACHER),--teacher $(TEACHER)) $(if $(SCALE),--scale $(SCALE))
ARGS_TERMS = $(if $(TERMS),--terms "$$TERMS")
ARGS_WORKERS = $(if $(WORKERS),--engine ray --workers $(WORKERS))
ARGS_TRAIN = $(if $(GPUS),--processes $(GPUS)) --recipe $(RECIPE) $(if $(STUDENT),--student $(STUDENT)) $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

.PHONY: help setup setup-train setup-ray setup-documents setup-gguf setup-dev plan datagen sql review report train quantize dist evaluate curve serve-model check test coverage test-slow bench lock clean

help: ## Print this help
	@echo "Retort: from a domain's taxonomy to a small language model. Start with: make datagen, then make train"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo
	@echo "  RECIPE=recipes/banking.yaml  the experiment        TEACHER=openai/gpt-4o  another teacher    SCALE=0.1  a tenth of the mix"
	@echo "  STUDENT=Qwen/Qwen2.5-3B-Instruct  another student  DATA=data/banking      another data set   OUT=runs/x a run's folder"
	@echo "  TERMS=\"why we may\"  your decision that a teacher's outputs may train a model (docs/teachers.md)"
	@echo "  BATCH=1  ask through the provider's batch API, at half the price"
	@echo "  GPUS=2  train on several GPUs of this machine, one process each (docs/training.md)"
	@echo "  WORKERS=4  ask by several processes, with Ray (docs/teachers.md)"

$(V)/.base: pyproject.toml requirements.lock
	@echo "Making the environment in $(V) (a minute)"
	@test -x $(PY) || $(PYTHON) -m venv $(V)
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps -e .
	@touch $@

$(V)/.train: $(V)/.base constraints.txt
	@echo "Adding torch and the training libraries to $(V) (some minutes)"
	@$(PIP) -e '.[train]'
	@touch $@

$(V)/.ray: $(V)/.base constraints.txt
	@echo "Adding Ray to $(V)"
	@$(PIP) -e '.[ray]'
	@touch $@

$(V)/.documents: $(V)/.base constraints.txt
	@echo "Adding the readers of HTML and PDF to $(V)"
	@$(PIP) -e '.[documents]'
	@touch $@

$(V)/.gguf: $(V)/.train
	@echo "Compiling llama.cpp for $(V) (some minutes)"
	@$(PIP) -e '.[train,gguf]'
	@touch $@

$(V)/.dev: $(V)/.train
	@$(PIP) -e '.[train,documents,dev]'
	@touch $@

setup: $(V)/.base ## Make the environment for data generation (no torch)
setup-train: $(V)/.train ## Add what training needs
setup-ray: $(V)/.ray ## Add Ray, for data generation by several processes
setup-documents: $(V)/.documents ## Add what reads HTML and PDF, for recipes with sources
setup-gguf: $(V)/.gguf ## Add llama.cpp, compiled here, to try GGUF files (make train does not need it)
setup-dev: $(V)/.dev ## Add what checks and tests need

plan: $(V)/.base ## Show the plan: cells, counts, calls, cost
	@$(DATAGEN) plan $(ARGS_DATAGEN)

datagen: $(V)/.base $(if $(WORKERS),$(V)/.ray) ## Generate, curate and export a data set (with the offline teacher unless the recipe says otherwise)
	@code=0; $(DATAGEN) generate $(ARGS_DATAGEN) $(ARGS_TERMS) $(ARGS_WORKERS) $(if $(BATCH),--batch) || code=$$?; test $$code -le 1; \
	$(DATAGEN) curate $(ARGS_STORE); \
	$(DATAGEN) export $(ARGS_DATAGEN) $(ARGS_TERMS); \
	exit $$code  # 1: short of what was asked, and what there is was exported

sql: $(V)/.base ## Query the store: make sql, or make sql Q="FROM coverage"
	@$(DATAGEN) sql $(ARGS_STORE) $(if $(Q),"$(Q)")

review: $(V)/.base ## Review a sample in the terminal: make review N=20 REVIEWER=ana
	@$(DATAGEN) review $(ARGS_STORE) $(if $(N),--n $(N)) $(if $(REVIEWER),--reviewer $(REVIEWER))

report: $(V)/.base ## Show what was made, dropped and paid, and write it as a page with plots beside the store
	@$(DATAGEN) report $(ARGS_STORE)

train: $(V)/.train ## Tune the student (SFT, then DPO), merge, quantize, evaluate, report
	@$(TRAIN) run $(ARGS_TRAIN)

quantize: $(V)/.train ## Write the last run's merged model as GGUF, AWQ and GPTQ
	@$(TRAIN) quantize $(if $(OUT),--model $(OUT))

dist: $(V)/.train ## Put the last run's models, scores, licence notes and checksums into dist/
	@$(TRAIN) dist $(if $(OUT),--model $(OUT))

evaluate: $(V)/.train ## Evaluate the last run again
	@$(TRAIN) evaluate $(if $(OUT),--model $(OUT))

curve: $(V)/.train ## Learning curve: SFT on 12, 25, 50 and 100 % of the data, and what more rows would bring and cost
	@$(TRAIN) curve --recipe $(RECIPE) $(if $(STUDENT),--student $(STUDENT)) $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS))

serve-model: $(V)/.train ## Serve the last run's base and adapters (OpenAI-compatible): make serve-model RUN=runs/x PORT=8000 AB=dpo=90,sft=10
	@$(TRAIN) serve $(if $(RUN),--model $(RUN)) $(if $(PORT),--port $(PORT)) $(if $(AB),--ab $(AB))

check: $(V)/.dev ## Lint and types
	@$(V)/bin/ruff check .
	@$(V)/bin/ruff format --check .
	@$(V)/bin/mypy

test: $(V)/.dev ## Tests (under 10 minutes on 2 cores)
	@$(PY) -m pytest -m "not slow" -n auto --dist loadfile $(T)

coverage: $(V)/.dev ## The same tests with the lines that they cover, 90 % at least (twice as long)
	@$(PY) -m pytest -m "not slow" -n auto --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=90 $(T)

test-slow: $(V)/.dev ## The slow tests too
	@$(PY) -m pytest -m slow $(T)

bench: $(V)/.dev ## Measure the bars; writes benchmarks/results/
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(PY) $$script; done

lock: ## Make requirements.lock anew: the base environment with the hash of every file (needs PyPI)
	@test -x $(V)/lock/bin/pip-compile || { $(PYTHON) -m venv $(V)/lock && $(V)/lock/bin/python -m pip install --quiet pip-tools==7.6.2; }
	@PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= CUSTOM_COMPILE_COMMAND="make lock" $(V)/lock/bin/pip-compile --quiet --generate-hashes \
		--strip-extras --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--constraint constraints.txt --output-file requirements.lock pyproject.toml

clean: ## Remove the environment and caches (data/ and runs/ stay)
	@rm -rf $(V) *.egg-info .pytest_cache .mypy_cache .ruff_cache
