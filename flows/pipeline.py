"""The pipeline as a Prefect flow: one task for each stage of dvc.yaml, with DVC as the only cache.

  python -m flows.pipeline [--pull] [--push]

The stages and their order are DVC's own; one that is added to dvc.yaml shows up here by itself.
A task ends as `Completed` if its stage ran, `Cached` if DVC had its outputs already, and `Failed`
with the stage's own words. No server is needed: without one, Prefect starts one for the time being.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
from dvc.repo import Repo
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.core import cli


@flow(name="pipeline")
def pipeline(pull: bool = False, push: bool = False) -> State:
    """Brings every stage up to date, in order; the first that fails ends the run.

    Args:
        pull: first fetch from DVC's remote what other machines have made.
        push: at the end put there what this one has.
    """
    if pull:
        transfer("pull", "--run-cache", "--allow-missing")
    for stage in stages():
        state = reproduce.with_options(task_run_name=stage)(stage, return_state=True)
        if not state.is_completed():
            return Failed(message=state.message, data=state.data)
    if push:
        transfer("push", "--run-cache")
    return Completed(message="every stage is up to date")


def stages() -> list[str]:
    """Names of the stages, each after those it depends on, as `dvc repro` would take them."""
    with Repo(".") as repo:
        return [stage.name for stage in nx.dfs_postorder_nodes(repo.index.graph)]


@task(cache_policy=NO_CACHE, persist_result=False)
def reproduce(stage: str) -> State:
    """Has DVC bring one stage up to date."""
    if not is_changed(stage):
        return Completed(name="Cached", message=f"{stage} is up to date")
    code, lines = dvc("repro", "--single-item", stage)
    if code:
        return Failed(message=complaint(stage, lines), data=stage_exit(lines))
    if any(line.startswith("Running stage") for line in lines):
        return Completed(message=f"{stage} ran")
    return Completed(name="Cached", message=f"{stage} was restored from the cache")


@task(retries=3, retry_delay_seconds=[1, 5, 15], cache_policy=NO_CACHE, persist_result=False)
def transfer(*words: str) -> None:
    """Pulls or pushes data; a network may come back, so this is tried again."""
    code, lines = dvc(*words)
    if code:
        raise RuntimeError(complaint(words[0], lines))


def is_changed(stage: str) -> bool:
    """Whether DVC sees something to do; asked here, since starting DVC for nothing takes a second."""
    with Repo(".") as repo:  # one of its own: threads can't share it
        return bool(repo.status(targets=[stage]))


def dvc(*words: str) -> tuple[int, list[str]]:
    """Runs DVC's command line and passes on its output as it comes; returns exit code and lines."""
    logger = get_run_logger()
    own = str(Path(sys.executable).parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": own + os.pathsep + os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
        preexec_fn=cli.die_with_parent,  # noqa: PLW1509 (one system call, which takes no lock)
    )
    lines = []
    with process:
        for line in process.stdout or []:
            if text := line.rstrip():
                lines.append(text)
                logger.info(text)
    return process.returncode, lines


def complaint(stage: str, lines: list[str]) -> str:
    """The stage's own last words, else DVC's."""
    own = [line for line in lines if line.startswith(f"{stage}: ")]
    theirs = [line for line in lines if line.startswith("ERROR: ")]
    return (own or theirs or lines or [f"{stage} failed and said nothing"])[-1]


def stage_exit(lines: list[str]) -> int:
    """The exit code of a failed stage, which DVC tells in words only; 1 where it didn't get that far."""
    found = re.findall(r"exited with (\d+)", "\n".join(lines))
    return int(found[-1]) if found else 1


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--pull", action="store_true", help="fetch from DVC's remote first")
    parser.add_argument("--push", action="store_true", help="put results into DVC's remote at the end")
    arguments = parser.parse_args()
    state = pipeline(arguments.pull, arguments.push, return_state=True)
    if state.is_completed():
        return 0
    print(state.message, file=sys.stderr)
    return state.data if isinstance(state.data, int) else 1


if __name__ == "__main__":
    cli.command(main)
