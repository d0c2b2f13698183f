# Two commands to know: `make run` and `make test`. Each sets up .venv first, when it has to.
# Another Python: make run PYTHON=/path/to/python3.12

BIN := .venv/bin
READY := .venv/ready

PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
  $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$python && break; done)

.PHONY: run serve test slow ci-pull ci-report reproduce bench lock clean

run: $(READY)
	@$(BIN)/python -m tasks.check
	$(BIN)/dvc repro
	@# Artifacts that DVC brings from its cache come without the latencies, which it mustn't keep.
	@test -e export/export.json || $(BIN)/dvc repro --single-item --force latency

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile

slow: $(READY)
	$(BIN)/pytest -m slow --numprocesses auto --maxprocesses 4 --dist loadfile

# Prefect's server, UI, schedules and a worker, on this machine alone; ctrl-c ends them.
serve: $(READY)
	@exec $(BIN)/python -m flows.serve

# What other machines have made, if DVC has a remote; what it hasn't got is made anew.
ci-pull: $(READY)
	@test -z "$$($(BIN)/dvc remote list)" || $(BIN)/dvc pull --run-cache --allow-missing

# What a reviewer wants to see of a change, as Markdown: make ci-report BASE=origin/main
BASE ?= origin/main
ci-report: $(READY)
	@$(BIN)/python -m tasks.ci_report --base '$(BASE)'

# Two cold runs in two clones, which must give the same bytes.
reproduce: $(READY)
	$(BIN)/python -m tests.reproduce

# Side by side with CleanVision, bare Pillow and the notebook; takes minutes, and wants an idle machine.
bench: $(READY)
	$(BIN)/python -m benchmarks

lock: $(READY)
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-annotate --no-header \
	  --python-version 3.10 --extra dev --output-file requirements.txt pyproject.toml

clean:
	rm -rf .venv .cache

# uv installs in a tenth of pip's time. It comes from the lock like the rest; where it can't reach
# the index that pip is set up for, pip does the work. Where Python may not write bytecode later, as in many
# containers, it is compiled now, or every stage would do so again.
$(READY): requirements.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10, 3.11 or 3.12 found; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	$(BIN)/uv pip install --no-config --quiet $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) --python $(BIN)/python --require-hashes --no-deps -r requirements.txt \
	  || { echo "uv could not install; pip takes over, which needs minutes"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt; }
	@# DVC runs `python -m tasks.<stage>`: let that be this environment's Python, activated or not.
	@$(BIN)/python -c 'import sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "own_python_first.pth").write_text("import os, sys; own = os.path.join(sys.prefix, \"bin\"); os.environ.get(\"PATH\", \"\").split(os.pathsep)[0] == own or os.environ.update(PATH=own + os.pathsep + os.environ.get(\"PATH\", \"\"))\n")'
	@touch $@
