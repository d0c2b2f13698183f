"""The pipeline as a Prefect flow: one task for each stage of dvc.yaml, with DVC as the only cache.

  python -m flows.pipeline [--pull] [--push]
  python -m flows.pipeline evaluate --set train.epochs=3

The stages and their order are DVC's own; one that is added to dvc.yaml appears here automatically.
A task ends as `Completed` if its stage ran, `Cached` if DVC had its outputs already, and `Failed`
with the stage's own words. No server is needed: without one, Prefect has an ephemeral one.
"""

from flows.run import Run

if __name__ == "__main__":
    run = Run.begin()  # first: it starts a server, which takes as long as all imports that follow

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from flows import dvc_command, logs, outcome, server, working_copy
from flows.events import emit_failure
from flows.outcome import EXPECTED_ERRORS, code_of, failed_by, stopped
from tasks import check as preconditions
from tasks import latency
from tasks.core.base import cli, inputs, params
from tasks.core.base.errors import DarkroomError, Rejected, Unreachable, brief
from tasks.core.base.files import read_json, write_text
from tasks.core.base.paths import DATASET, DATASET_FACTS
from tasks.core.release import dvc_api

logs.tidy()
HOURS, MAX_HOURS = 24.0, 10_000.0
CACHED = "Cached"
TRANSFERS = ("pull", "checkout", "push")


def run_name() -> str:
    """What a run is about: the digest of the data as it was built last, and the parameters set for it."""
    digest = "new"
    with suppress(OSError, ValueError, KeyError):
        digest = str(read_json(DATASET / DATASET_FACTS)["manifest"])[:8]
    return " ".join([f"data {digest}", *(runtime.flow_run.parameters.get("set") or ())])


@flow(
    name="pipeline", retries=0, flow_run_name=run_name, on_failure=[emit_failure], on_crashed=[emit_failure]
)
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
        stage_hours: what a stage may take, before it is ended; more than 0.
    """
    Run.current().heed_signals()
    say = get_run_logger().info
    try:
        if not 0 < stage_hours <= MAX_HOURS:
            raise DarkroomError(f"stage_hours is {stage_hours:g}; give more than 0, {MAX_HOURS:g} at most")
        params.read(params.FILE, preconditions.Params)
        if (pull or push) and not dvc_api.has_remote():
            raise DarkroomError("DVC has no remote; name one: `dvc remote add --default NAME URL`")
        with working_copy.exclusive_run(say, wait=not only_if_changed):
            if only_if_changed and (why := working_copy.retry_while_busy(working_copy.nothing_new, say)):
                return Completed(name="Skipped", message=why)
            pull, push = (dvc_api.has_remote() if wish is None else wish for wish in (pull, push))
            if pull and (absent := dvc_api.absent_remote()):  # DVC would fetch nothing, and all stages run
                raise DarkroomError(absent)
            return run_steps(targets, steps(targets, set, pull, push, force, stage_hours))
    except working_copy.Busy as error:
        return Completed(name="Skipped", message=str(error))
    except EXPECTED_ERRORS as error:
        return failed_by(error)


def prepare(targets: tuple[str, ...], settings: tuple[str, ...]) -> tuple[list[str], set[str]]:
    """Sets parameters, sees what would end a run later with less to say, and gives what `survey` does.

    Raises:
        DarkroomError, DvcError: what can't be done; params.yaml is then as it was.
    """
    before = params.FILE.read_text("utf-8")
    try:
        if settings:
            working_copy.override(settings)
        preconditions.check()
        return working_copy.retry_while_busy(partial(dvc_api.survey, targets), get_run_logger().info)
    except EXPECTED_ERRORS:
        if settings:
            write_text(params.FILE, before)
        raise


def run_steps(targets: tuple[str, ...], states: Iterator[tuple[str, State]]) -> State:
    """Takes one step after the other, until one fails, and gives the state that the run has then."""
    names: Counter[str] = Counter()  # of the states
    failure = None
    for step, state in states:
        if step not in TRANSFERS:
            names[str(state.name)] += 1
        if not state.is_completed():
            failure = state_after(step, state)
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
        if missing := dvc_api.missing():
            state = carry.with_options(task_run_name="checkout")("checkout", *missing, return_state=True)
            yield "checkout", state
    names, pending = prepare(targets, settings)  # not before: the images may have come just now
    touched = False
    for name in names:
        is_due = name in pending
        if touched and not is_due:
            is_due = bool(working_copy.retry_while_busy(partial(dvc_api.changed_stages, name), say))
        touched |= is_due
        unmeasured = name == "latency" and not latency.is_timed()  # which DVC doesn't know of
        stage = reproduce.with_options(task_run_name=name, timeout_seconds=limit)
        yield name, stage(name, is_due, force or unmeasured, return_state=True)
    if push:
        yield "push", carry.with_options(task_run_name="push")("push", "--run-cache", return_state=True)


def may_pass(_task: Any, _run: Any, state: State) -> bool:
    """Whether a stage may do better the next time, which only a network can make it."""
    return bool(code_of(state) == Unreachable.exit_code)


OPTIONS: dict[str, Any] = {
    "retries": 3,
    "retry_condition_fn": may_pass,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(retry_delay_seconds=[60, 300, 900], **OPTIONS)
def reproduce(stage: str, is_due: bool, force: bool) -> State:
    """Has DVC bring one stage up to date."""
    if not (is_due or force):
        return Completed(name=CACHED, message=f"{stage} is up to date")
    code, lines = dvc_command.run("repro", "--single-item", *(["--force"] if force else []), stage)
    if code and (lock := dvc_api.git_lock(lines)) and not dvc_api.changed_stages(stage):
        text = "%s is done, but what it changed is not staged, as by `git add dvc.lock`: %s is there; %s"
        get_run_logger().warning(text, stage, lock, dvc_api.OTHER_GIT)
        code = 0
    if code:
        return stopped(dvc_api.complaint(stage, lines), dvc_api.stage_exit(lines))
    if false := inputs.withdraw_false_records():
        return stopped(false[0])
    if dvc_api.has_run(lines):
        return Completed(message=f"{stage} ran")
    return Completed(name=CACHED, message=f"{stage} was restored from the cache")


@task(retry_delay_seconds=[1, 5, 15], **OPTIONS)
def transfer(*words: str) -> State:
    """Fetches or pushes data and runs; a network may come back, so this is tried again."""
    code, lines = dvc_command.run(*words)
    if not code:
        return Completed(message=f"{words[0]} is done")
    if words[0] == "push" and (refusal := dvc_api.refusal_of_folder(lines)):
        return stopped(refusal)
    return stopped(dvc_api.complaint(words[0], lines), Unreachable.exit_code)


def state_after(step: str, state: State) -> State:
    """The state of a run that a step has ended; `Rejected` where that was a verdict."""
    message = state.message or ""
    if state.name == "TimedOut":
        message = f"{step} took longer than it may (stage_hours), and was ended: {message}"
    else:
        outcome.raise_unexpected(state)
    code = code_of(state)
    if code in (Rejected.exit_code, DarkroomError.exit_code):
        with suppress(*EXPECTED_ERRORS):  # which hides no failure: it is only noted
            working_copy.remember_failure(message)
    is_verdict = step == "verdict" and code == Rejected.exit_code
    return stopped(message, code, "Rejected" if is_verdict else "Failed")


def show() -> None:
    """Adds the results to the run, and names it after what it has used."""
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


def main(run: Run) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "targets",
        nargs="*",
        type=cli.given,
        metavar="STAGE",
        help="with what it depends on; all if none is given",
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
    given = vars(parser.parse_args())
    del given["no_server"]  # which `Run.begin` has seen to
    with server.reporting(run.server), run.by_hand():
        state = pipeline(**given, return_state=True)
    return outcome.report_failure(state)


if __name__ == "__main__":
    cli.command(partial(main, run))
