"""The pipeline as a Prefect flow: one task for each stage of dvc.yaml, with DVC as the only cache.

  python -m flows.pipeline [--pull] [--push]

The stages and their order are DVC's own; one that is added to dvc.yaml shows up here by itself.
A task ends as `Completed` if its stage ran, `Cached` if DVC had its outputs already, and `Failed`
with the stage's own words. No server is needed: without one, Prefect starts one for the time being.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks import check as preconditions
from tasks.core import cli, process
from tasks.core.errors import DarkroomError
from tasks.core.paths import LATENCIES

MISTAKES = (DarkroomError, DvcException)

running: list[subprocess.Popen[str]] = []  # what DVC is doing for us at the moment


@flow(name="pipeline")
def pipeline(pull: bool = False, push: bool = False) -> State:
    """Brings every stage up to date, in order; the first that fails ends the run.

    Args:
        pull: first fetch from DVC's remote what other machines have made.
        push: at the end put there what this one has.
    """
    for state in steps(pull, push):
        if not state.is_completed():
            return Failed(message=state.message, data=state.result(raise_on_failure=False))
    return Completed(message="every stage is up to date")


def steps(pull: bool, push: bool) -> Iterator[State]:
    """Takes one step after the other, and gives the state that each has ended in."""
    try:
        check(remote=pull or push)
        names = stages()
    except MISTAKES as error:
        yield mistaken(error)
        return
    if pull:
        yield transfer.with_options(task_run_name="pull")("pull", "--allow-missing", return_state=True)
    for name in names:
        yield reproduce.with_options(task_run_name=name)(name, return_state=True)
    if push:
        yield transfer.with_options(task_run_name="push")("push", return_state=True)


def check(remote: bool) -> None:
    """Looks for what would end the run later, with less to say.

    Raises:
        ParamError, DataError: params.yaml has a slip, or names what isn't there.
        DarkroomError: data should be fetched or put, and there is nowhere to do so.
    """
    preconditions.check()
    with Repo(".") as repo:
        if remote and not repo.config["remote"]:
            raise DarkroomError("DVC has no remote; name one: `dvc remote add --default NAME URL`")


def stages() -> list[str]:
    """Names of the stages, each after those it depends on, as `dvc repro` would take them."""
    with Repo(".") as repo:
        # `dvc add` makes stages too, of data alone
        return [stage.addressing for stage in nx.dfs_postorder_nodes(repo.index.graph) if stage.cmd]


@task(cache_policy=NO_CACHE, persist_result=False)
def reproduce(stage: str) -> State:
    """Has DVC bring one stage up to date."""
    unmeasured = stage == "latency" and not LATENCIES.exists()  # which DVC doesn't know of
    try:
        if not unmeasured and not is_changed(stage):
            return Completed(name="Cached", message=f"{stage} is up to date")
    except MISTAKES as error:
        return mistaken(error)
    code, lines = dvc("repro", "--single-item", *(["--force"] if unmeasured else []), stage)
    if code:
        return Failed(message=complaint(stage, lines), data=stage_exit(lines))
    if any(line.startswith("Running stage") for line in lines):
        return Completed(message=f"{stage} ran")
    return Completed(name="Cached", message=f"{stage} was restored from the cache")


@task(retries=3, retry_delay_seconds=[1, 5, 15], cache_policy=NO_CACHE, persist_result=False)
def transfer(*words: str) -> State:
    """Pulls or pushes data and runs; a network may come back, so this is tried again."""
    code, lines = dvc(*words, "--run-cache")
    if code:
        return Failed(message=complaint(words[0], lines))
    return Completed(message=f"{words[0]} is done")


def mistaken(error: Exception) -> State:
    """A state that says what the user can mend, in one line."""
    return Failed(message=" ".join(str(error).split()), data=DarkroomError.exit_code)


def is_changed(stage: str) -> bool:
    """Whether DVC sees something to do; asked here, since starting DVC for nothing takes a second."""
    with Repo(".") as repo:  # one of its own: threads can't share it
        return bool(repo.status(targets=[stage]))


def dvc(*words: str) -> tuple[int, list[str]]:
    """Runs DVC's command line and passes on its output as it comes; returns exit code and lines."""
    logger = get_run_logger()
    own = str(Path(sys.executable).parent)
    child = subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": own + os.pathsep + os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
        start_new_session=True,  # a ctrl-c is ours to pass on
        preexec_fn=process.die_with_parent,  # noqa: PLW1509 (one system call, found beforehand)
    )
    lines = []
    running.append(child)
    with child:
        try:
            for line in child.stdout or []:
                if text := line.rstrip():
                    lines.append(text)
                    logger.info(text)
        except BaseException:  # Prefect turns a SIGTERM into an exception
            stop(child)
            raise
        finally:
            running.remove(child)
    return child.returncode, lines


def stop(child: subprocess.Popen[str]) -> None:
    """Ends what DVC does for us, and waits until the stage has given its earlier outputs back."""
    os.killpg(child.pid, signal.SIGINT)  # DVC itself ignores it, and waits for its stage
    child.wait()


def complaint(stage: str, lines: list[str]) -> str:
    """The stage's own last words, else DVC's."""
    code = stage_exit(lines)
    if code < 0:  # its last words are of something else
        name = signal.Signals(-code).name
        return f"{stage} was ended by {name}, as it happens when memory runs out; run it again"
    own = [line for line in lines if line.startswith(f"{stage}: ")]
    theirs = [line for line in lines if line.startswith("ERROR: ")]
    return (own or theirs or lines or [f"{stage} failed and said nothing"])[-1]


def stage_exit(lines: list[str]) -> int:
    """The exit code of a failed stage, which DVC tells in words only; 1 where it didn't get that far.

    Negative: the number of the signal that ended it.
    """
    found = re.findall(r"exited with (-?\d+)", "\n".join(lines))
    return int(found[-1]) if found else 1


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--pull", action="store_true", help="fetch from DVC's remote first")
    parser.add_argument("--push", action="store_true", help="put results into DVC's remote at the end")
    arguments = parser.parse_args()
    for number in process.SIGNALS:
        signal.signal(number, interrupt)
    state = pipeline(arguments.pull, arguments.push, return_state=True)
    if state.is_completed():
        return 0
    print(state.message, file=sys.stderr)
    code = state.result(raise_on_failure=False)
    return code if isinstance(code, int) and code > 0 else 1


def interrupt(_signum: int, _frame: FrameType | None) -> None:
    """Ends the run: first the stage, which gives its earlier outputs back, then Prefect's own server.

    After an exception instead, Prefect would report to that server, which a ctrl-c ends too, and wait for it.
    """
    for number in process.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for child in list(running):
        stop(child)
    if api := sys.modules.get("prefect.server.api.server"):  # imported where Prefect has started a server
        for server in list(api.SubprocessASGIServer._instances.values()):
            server.stop()
    print("pipeline: interrupted", file=sys.stderr, flush=True)
    os._exit(process.INTERRUPTED)


if __name__ == "__main__":
    cli.command(main)
