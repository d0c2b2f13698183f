"""The pipeline as a Prefect flow: one task for each stage of dvc.yaml, with DVC as the only cache.

  python -m flows.pipeline [--pull] [--push]
  python -m flows.pipeline evaluate --set train.epochs=3

The stages and their order are DVC's own; one that is added to dvc.yaml shows up here by itself.
A task ends as `Completed` if its stage ran, `Cached` if DVC had its outputs already, and `Failed`
with the stage's own words. No server is needed: without one, Prefect has one for the time being.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed

from flows import repo, server
from flows.events import tell
from flows.outcome import code_of, mistaken, told
from tasks import check as preconditions
from tasks.core import cli, params, process
from tasks.core.errors import DarkroomError, Rejected, Unreachable, brief
from tasks.core.paths import DATASET, LATENCIES
from tasks.core.serialize import read_json, write_text

HOURS = 24.0
CACHED = "Cached"
TRANSFERS = ("pull", "checkout", "push")


def run_name() -> str:
    """What a run is about: the digest of the data as it was built last, and the parameters set for it."""
    digest = "new"
    with suppress(OSError, ValueError, KeyError):
        digest = str(read_json(DATASET / "dataset.json")["manifest"])[:8]
    return " ".join([f"data {digest}", *(runtime.flow_run.parameters.get("set") or ())])


@flow(name="pipeline", flow_run_name=run_name, on_failure=[tell], on_crashed=[tell])
def pipeline(
    targets: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
    pull: bool | None = False,
    push: bool | None = False,
    force: bool = False,
    only_if_changed: bool = False,
    stage_hours: float = HOURS,
) -> State:
    """Brings every stage up to date, in order; the first that fails ends the run.

    Args:
        targets: stages, which are then all that is wanted, with what they depend on.
        set: parameters to change in params.yaml first, each KEY=VALUE.
        pull: first fetch from DVC's remote what other machines have made; null: if there is a remote.
        push: at the end put there what this one has; null: if there is a remote.
        force: run what is wanted even if it is up to date.
        only_if_changed: end at once if nothing has changed since the last run, or one is at work.
        stage_hours: what a stage may take, before it is ended.
    """
    say = get_run_logger().info
    try:
        params.load()
        if (pull or push) and not repo.has_remote():
            raise DarkroomError("DVC has no remote; name one: `dvc remote add --default NAME URL`")
        with repo.alone(say, wait=not only_if_changed):
            if only_if_changed and (why := repo.patiently(repo.nothing_new, say)):
                return Completed(name="Skipped", message=why)
            pull, push = (repo.has_remote() if wish is None else wish for wish in (pull, push))
            return ended(targets, steps(targets, set, pull, push, force, stage_hours))
    except repo.Busy as error:
        return Completed(name="Skipped", message=str(error))
    except repo.MISTAKES as error:
        return mistaken(error)


def check(settings: tuple[str, ...]) -> None:
    """Sets parameters, and looks for what would end the run later, with less to say.

    Raises:
        ParamError, DataError: params.yaml has a slip, or names what isn't there; it is then as it was.
    """
    before = params.FILE.read_text("utf-8")
    if settings:
        repo.override(settings)
    try:
        preconditions.check()
    except DarkroomError:
        if settings:
            write_text(params.FILE, before)
        raise


def ended(targets: tuple[str, ...], taken: Iterator[tuple[str, State]]) -> State:
    """Takes one step after the other, until one fails, and gives the state that the run has then."""
    names: Counter[str] = Counter()  # of the states
    failure = None
    for step, state in taken:
        if step not in TRANSFERS:
            names[str(state.name)] += 1
        if not state.is_completed():
            failure = failed(step, state)
            break
    if set(names) != {CACHED}:
        show()
    if failure:
        return failure
    counts = ", ".join(f"{count} {name.lower()}" for name, count in sorted(names.items()))
    return Completed(message=f"{', '.join(targets) or 'every stage'} is up to date ({counts})")


def steps(
    targets: tuple[str, ...],
    settings: tuple[str, ...],
    pull: bool,
    push: bool,
    force: bool,
    stage_hours: float,
) -> Iterator[tuple[str, State]]:
    """The steps, which are taken as they are asked for: each with the state that it has ended in."""
    say = get_run_logger().info
    limit = stage_hours * 3600
    carry = transfer.with_options(timeout_seconds=limit)
    if pull:
        yield "pull", carry.with_options(task_run_name="pull")("fetch", "--run-cache", return_state=True)
        if missing := repo.missing():
            state = carry.with_options(task_run_name="checkout")("checkout", *missing, return_state=True)
            yield "checkout", state
    check(settings)  # not before: the pictures themselves may have come just now
    names, pending = repo.patiently(lambda: repo.survey(targets), say)
    touched = False
    for name in names:
        is_due = name in pending or (touched and repo.patiently(partial(repo.is_changed, name), say))
        touched |= is_due
        unmeasured = name == "latency" and not LATENCIES.exists()  # which DVC doesn't know of
        stage = reproduce.with_options(task_run_name=name, timeout_seconds=limit)
        yield name, stage(name, is_due, force or unmeasured, return_state=True)
    if push:
        yield "push", carry.with_options(task_run_name="push")("push", "--run-cache", return_state=True)


def may_pass(_task: Any, _run: Any, state: State) -> bool:
    """Whether a stage may do better the next time, which only a network can make it."""
    return state.data == Unreachable.exit_code


@task(
    retries=3,
    retry_delay_seconds=[60, 300, 900],
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def reproduce(stage: str, is_due: bool, force: bool) -> State:
    """Has DVC bring one stage up to date."""
    if not (is_due or force):
        return Completed(name=CACHED, message=f"{stage} is up to date")
    code, lines = repo.dvc(
        "repro", "--single-item", *(["--force"] if force else []), stage, say=get_run_logger().info
    )
    if code:
        return Failed(message=repo.complaint(stage, lines), data=repo.stage_exit(lines))
    if any(line.startswith("Running stage") for line in lines):
        return Completed(message=f"{stage} ran")
    return Completed(name=CACHED, message=f"{stage} was restored from the cache")


@task(retries=3, retry_delay_seconds=[1, 5, 15], cache_policy=NO_CACHE, persist_result=False)
def transfer(*words: str) -> State:
    """Fetches or pushes data and runs; a network may come back, so this is tried again."""
    code, lines = repo.dvc(*words, say=get_run_logger().info)
    if code:
        return Failed(message=repo.complaint(words[0], lines), data=Unreachable.exit_code)
    return Completed(message=f"{words[0]} is done")


def failed(step: str, state: State) -> State:
    """The state of a run that a step has ended; `Rejected` where that was a verdict."""
    message = state.message or ""
    if state.name == "TimedOut":
        message = f"{step} took longer than it may (stage_hours), and was ended: {message}"
    elif state.result(raise_on_failure=False) in (Rejected.exit_code, DarkroomError.exit_code):
        with suppress(*repo.MISTAKES):  # which hides no failure: it is only noted
            repo.remember_failure(message)
    name = "Rejected" if message.startswith("verdict: rejected") else "Failed"
    return Failed(name=name, message=message, data=code_of(state))


def show() -> None:
    """Hangs the results on the run, and names it after what it has used."""
    from flows import artifacts  # and pandas

    logger = get_run_logger()
    if not server.is_up(str(PREFECT_API_URL.value())):  # its client would try for a minute
        logger.warning("the results can't be shown beside the run: Prefect's server doesn't answer")
        return
    try:
        artifacts.make()
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, name=run_name())
    except Exception as error:  # of every kind: what the run has done is worth more than how it is shown
        logger.warning("the results can't be shown beside the run: %s", brief(error))


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="STAGE", help="with what it depends on; all if none is given"
    )
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="change params.yaml first"
    )
    parser.add_argument("--pull", action="store_true", help="fetch from DVC's remote first")
    parser.add_argument("--push", action="store_true", help="put results into DVC's remote at the end")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date too")
    parser.add_argument(
        "--stage-hours",
        type=float,
        default=HOURS,
        metavar="N",
        help=f"end a stage that takes longer ({HOURS:g})",
    )
    parser.add_argument(server.ALONE, action="store_true", help="report to no server that is there")
    given = parser.parse_args()
    for number in process.SIGNALS:
        signal.signal(number, interrupt)
    with server.reporting():
        state = pipeline(
            targets=tuple(given.targets),
            set=tuple(given.set),
            pull=given.pull,
            push=given.push,
            force=given.force,
            stage_hours=given.stage_hours,
            return_state=True,
        )
    return told(state)


def interrupt(_signum: int, _frame: FrameType | None) -> None:
    """Ends the run: first the stage, which gives its earlier outputs back, then the server that is ours.

    Prefect itself would wait for that server, or call the run crashed.
    """
    for number in process.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for child in list(repo.running):
        repo.stop(child)
    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(runtime.flow_run.id, Cancelled(message="interrupted"), force=True)
    server.stop()
    print("pipeline: interrupted", file=sys.stderr, flush=True)
    os._exit(process.INTERRUPTED)


if __name__ == "__main__":
    cli.command(main)
