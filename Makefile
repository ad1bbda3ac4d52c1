# Every command sets up what it needs. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
COMMANDS := help run example publish demo bench test soak faults mutants check aws-check format lock clean
.PHONY: $(COMMANDS)

# What nothing reads is refused, before anything runs for minutes without it.
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out ARGS PYTHON VENDOR CUSTOMER CANARY PORT SANDBOX_PORT TEST_DATABASE_URL DEPUTY_%,$(GIVEN))
$(if $(UNKNOWN),$(error make does not know $(firstword $(UNKNOWN))=…; `make help` lists what it knows))
WORDS := $(filter-out $(COMMANDS) $(INSTALLED),$(MAKECMDGOALS))
$(if $(WORDS),$(error make does not know `$(firstword $(WORDS))`; `make help` lists what it knows, and `make test ARGS=tests/cli` chooses tests))
WITHOUT_ARGS := $(if $(ARGS),$(filter-out bench test soak faults mutants aws-check,$(or $(MAKECMDGOALS),help)))
$(if $(WITHOUT_ARGS),$(error make $(firstword $(WITHOUT_ARGS)) takes no ARGS))

help:
	@echo "make run     Deputy and a local AWS on this machine (PORT, SANDBOX_PORT, DEPUTY_DATA_DIR, DEPUTY_BOOTSTRAP_KEY)"
	@echo "make example a product that uses Deputy, beside make run or with a Deputy of its own (docs/integrate.md)"
	@echo "make publish publish changed permission sets beside make run, and restart Deputy with them"
	@echo "make demo    every step in the terminal, against the running service or one that it starts"
	@echo "make bench   the speed beside bare Flask and a peer; about 25 minutes (docs/performance.md)"
	@echo "make test    the tests, on a real PostgreSQL; about five minutes (TEST_DATABASE_URL names your own)"
	@echo "make soak    the longer cases of some tests: many requests of each kind, many accounts at once"
	@echo "make faults  what users see while one thing after the other fails; about six minutes (docs/reliability.md)"
	@echo "make mutants changes the code that decides, 400 times: tests must fail each time (docs/reliability.md)"
	@echo "make check   format, lint, types, architecture, CloudFormation, policies"
	@echo "make aws-check VENDOR=<profile> CUSTOMER=<profile> [CANARY=<profile>]"
	@echo "             the whole story once on real AWS, in accounts of yours; asks first, and cleans up at its end"
	@echo "make format  format with ruff, apply its fixes, and write tables of docs/settings.md and docs/api.md"
	@echo "make lock    pin requirements.in, requirements-publish.in and requirements-dev.in again"
	@echo "make clean   remove the virtual environment, the data and what was measured"

$(INSTALLED): requirements-dev.txt dev/setup.py
	@$(PYTHON) dev/setup.py

# What these reach is on this machine, and a proxy of the environment is on another one.
ALONE := exec env NO_PROXY='*' no_proxy='*'

run: $(INSTALLED)
	@$(ALONE) $(BIN)/python -m dev.run

example: $(INSTALLED)
	@$(ALONE) $(BIN)/python -m dev.example

publish: $(INSTALLED)
	@$(ALONE) $(BIN)/python -m dev.publish

demo: $(INSTALLED)
	@$(ALONE) $(BIN)/python -m dev.demo

bench: $(INSTALLED)
	@exec $(BIN)/python -m bench $(ARGS)

# Hundreds of the processes that these start would each compile the same modules.
test mutants: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED)
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

soak: $(INSTALLED)
	@$(BIN)/python -m pytest -n 2 -m soak $(ARGS)

faults: $(INSTALLED)
	@$(BIN)/python -m pytest -m faults tests/faults $(ARGS)

mutants: $(INSTALLED)
	@$(BIN)/python -m dev.mutants $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint cloudformation/*.yaml deploy/fargate.yaml
	$(BIN)/python -m dev.check_policies

# ARGS: --yes, --region <region>, --clean-up <run>.
aws-check: $(INSTALLED)
	@exec $(BIN)/python -m dev.aws_check $(if $(VENDOR),--vendor "$(VENDOR)") $(if $(CUSTOMER),--customer "$(CUSTOMER)") $(if $(CANARY),--canary "$(CANARY)") $(ARGS)

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m dev.tables

lock: $(INSTALLED)
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-strip-extras --python-version 3.11 requirements.in -o requirements.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-strip-extras --python-version 3.11 requirements-publish.in -o requirements-publish.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-strip-extras --python-version 3.11 requirements-dev.in -o requirements-dev.txt

clean:
	rm -rf .venv .data .bench mutants
