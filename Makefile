# Two commands to know: `make run` and `make test`. Each sets up .venv first, if needed.
# Another Python: make run PYTHON=/path/to/python3.12, or PYTHON=3.12

BIN := .venv/bin

.PHONY: ready run serve prune test slow soak fuzz mutants ci-pull ci-report reproduce bench lock clean

run: ready
	@$(BIN)/python -m tasks.check
	$(BIN)/dvc repro
	@# Artifacts that DVC brings back come without latencies, which it must not store, or beside those of others.
	@$(BIN)/python -m tasks.latency --check || $(BIN)/dvc repro --single-item --force latency

# One room's tests only, between two edits: make test ROOM=data
test: ready
ifdef ROOM
	$(BIN)/pytest -m "not slow" tests/$(ROOM)
else
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile
endif

slow: ready
	$(BIN)/pytest -m slow --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The small pipeline in faults at random moments, of which each round is told by seed and number.
ROUNDS ?= 300
SEED ?= 1
FIRST ?= 0
soak: ready
	@$(BIN)/python -m tests.soak --rounds $(ROUNDS) --seed $(SEED) --first $(FIRST)

# What strangers give, changed at random: each input comes to a result or to one line.
COUNT ?= 2000
fuzz: ready
	@$(BIN)/python -m tests.fuzz --count $(COUNT) --seed $(SEED)

# Changes one thing at a time in the code, and says what no fast test of its room has noticed.
N ?= 20
mutants: ready
	@$(BIN)/python -m tests.mutants -n $(N) --seed $(SEED)

# Prefect's server, UI, schedules and a worker, on this machine only; ctrl-c ends them.
serve: ready
	@exec $(BIN)/python -m flows.serve

# Frees room on the disk: what HEAD, branches, tags and each stage's last RUNS runs don't need.
RUNS ?= 3
prune: ready
	@$(BIN)/python -m tasks.prune --runs $(RUNS)

# Fetches what other machines have computed, if DVC has a remote; what it doesn't have is computed again.
ci-pull: ready
	@test -z "$$($(BIN)/dvc remote list)" || $(BIN)/dvc pull --run-cache --allow-missing

# Writes what a reviewer wants to see of a change, as Markdown: make ci-report BASE=origin/main
BASE ?= origin/main
ci-report: ready
	@$(BIN)/python -m tasks.ci_report --base '$(BASE)'

# Two cold runs in two clones, which must give the same bytes.
reproduce: ready
	$(BIN)/python -m tests.reproduce

# Compares with CleanVision, bare Pillow and the notebook; takes minutes, and needs an idle machine.
bench: ready
	$(BIN)/python -m benchmarks

lock: ready
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-annotate --no-header \
	  --python-version 3.11 --extra dev --output-file requirements.txt pyproject.toml

clean:
	rm -rf .venv .cache

# Returns at once where .venv is of this lock, and of the Python that is asked for.
ready:
	@.ci/install '$(PYTHON)'
