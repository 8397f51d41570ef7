# Every target brings what it needs first; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help up down status logs clean check fix test chaos bench wheel

PYTHON := .venv/bin/python
STACK := $(PYTHON) -m compose.local
SETUP := @compose/local/bootstrap.sh
PATHS := schemas projections agents gateway compose tests benchmarks

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## start the whole system here, install what is missing, load three sample films, print where to look
	$(SETUP) up
	@$(STACK) up

down: ## stop everything; the data stay
	@test ! -x $(PYTHON) || $(STACK) down

status: ## each process (up, port, pid, memory) and how far each projection is behind
	$(SETUP) check
	@$(STACK) status

logs: ## follow the logs; k=worker follows one
	$(SETUP) check
	@$(STACK) logs $(k)

clean: ## stop everything and drop the data
	@test ! -x $(PYTHON) || $(STACK) clean

check: ## lint, types, imports, generated files, what each fold makes of a golden log: seconds, no server
	$(SETUP) check
	$(PYTHON) -m ruff check $(PATHS)
	$(PYTHON) -m ruff format --check $(PATHS)
	$(PYTHON) -m mypy --strict
	.venv/bin/lint-imports
	$(PYTHON) -m schemas --check
	$(PYTHON) -m agents.fingerprints --check

fix: ## format, and mend what ruff can mend
	$(SETUP) check
	$(PYTHON) -m ruff check --fix $(PATHS)
	$(PYTHON) -m ruff format $(PATHS)
	$(PYTHON) -m schemas
	$(PYTHON) -m agents.fingerprints

test: ## every test on servers of its own; k=positions runs those that match
	$(SETUP) test
	$(PYTHON) -m pytest $(if $(k),-k "$(k)",-n 2)

chaos: ## kill and freeze everything under traffic, then compare with the log; s=everything seed=7 seconds=60
	$(SETUP) test
	@$(PYTHON) -m tests.chaos $(s) $(if $(seed),--seed $(seed)) $(if $(seconds),--seconds $(seconds))

bench: ## figures, side by side with their baselines, on the stack that runs (half an hour); p=board measures one part
	$(SETUP) bench
	$(PYTHON) -m benchmarks $(p)

wheel: ## build entertainmenttime-schemas, the events for other Python services, into dist/
	$(SETUP) check
	cd schemas && ../$(PYTHON) -m hatchling build -t wheel -d ../dist
