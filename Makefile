# Short names for scripts/dev.py, which works the same on machines without make.
# Arguments: make test ARGS="-k preset -x"

PYTHON ?= python3
ARGS ?=
DEV = $(PYTHON) scripts/dev.py

.DEFAULT_GOAL := help
.PHONY: help env demo test browsers bare hosts serve train attack package lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## make the environment and find ComfyUI (the other commands do it too)
	@$(DEV) env $(ARGS)

demo: ## run the whole job in a real ComfyUI and print its table
	@$(DEV) demo $(ARGS)

test: ## run all tests, the pure ones and those in a real ComfyUI
	@$(DEV) test $(ARGS)

browsers: ## run the tests of the page in old and new front ends of ComfyUI
	@$(DEV) browsers $(ARGS)

bare: ## run the first minute in an environment with ComfyUI's requirements and ours alone
	@$(DEV) bare $(ARGS)

hosts: ## try the pack in old and new versions of ComfyUI and its kernels
	@$(DEV) hosts $(ARGS)

serve: ## start ComfyUI with the pack, to try it by hand
	@$(DEV) serve $(ARGS)

train: ## train the demo model anew
	@$(DEV) train $(ARGS)

attack: ## attack the pack with hostile files, names, kills and scripts, and count what comes of it
	@$(DEV) attack $(ARGS)

package: ## build the package as the registry gets it, check it, and load it in a clean ComfyUI
	@$(DEV) package $(ARGS)

lint: ## check the code with ruff
	@$(DEV) lint $(ARGS)

clean: ## remove caches and the demo's output (ARGS=--all: also .venv and the downloaded ComfyUI)
	@$(DEV) clean $(ARGS)
