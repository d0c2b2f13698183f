"""Puts the model of this commit into a stage, if it holds its own against the one that is there.

  python -m flows.promote --to staging
  python -m flows.promote --to production --push
  python -m flows.promote --to production --rollback
  python -m flows.promote --verify classifier@v1.2.0

A version and a stage are annotated git tags in GTO's form, with the evidence as their message. Nothing is
tagged unless all of it passed; run again, it finds its work done.
"""

from flows.run import Run

if __name__ == "__main__":
    run = Run.begin()  # first: it starts a server, which takes as long as all imports that follow

import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import logs, outcome, server, working_copy
from flows.events import emit_failure
from flows.outcome import EXPECTED_ERRORS, failed_by
from tasks.core.base import cli, console, params
from tasks.core.base.errors import DarkroomError
from tasks.core.base.files import remove
from tasks.core.base.paths import cache_folder
from tasks.core.release import git, model_card, probe, promotion, registry
from tasks.core.release.registry import Registry
from tasks.core.release.revision import Revision
from tasks.core.release.shipped import Shipped

logs.tidy()


def run_name() -> str:
    given = runtime.flow_run.parameters
    return f"{'roll back' if given.get('rollback') else 'promote to'} {given.get('to')}"


@flow(name="promote", retries=0, flow_run_name=run_name, on_failure=[emit_failure], on_crashed=[emit_failure])
def promote(
    to: str, dry_run: bool = False, push: bool = False, rollback: bool = False, champion: bool = True
) -> State[Any]:
    """Promotes the commit that is checked out, or takes a promotion back.

    Args:
        to: staging or production.
        dry_run: tell what would come of it, and change nothing.
        push: give the tags to git's remote too, or have none.
        rollback: put the version back that was there before.
        champion: compare with the version that is there.
    """
    Run.current().heed_signals()
    try:
        if to not in registry.STAGES:
            raise DarkroomError(f"there is no stage {to}; give {' or '.join(registry.STAGES)}")
        cache_folder().mkdir(parents=True, exist_ok=True)
        with (
            # In our cache, which the workers of a cluster see too.
            tempfile.TemporaryDirectory(dir=cache_folder()) as folder,
            Run.current().undoing(partial(remove, Path(folder))),
            # A rollback needs nothing of this folder, and waits for nobody who is at work in it.
            nullcontext() if rollback else working_copy.exclusive_run(get_run_logger().info, wait=False),
        ):
            git.check_identity()
            git.check_clock()
            if unasked := git.check_tags(push):
                get_run_logger().warning("%s; another promotion may be unknown here", unasked)
            if rollback:
                return Completed(message=roll_back(to, Path(folder), dry_run, push))
            return Completed(message=put_into(to, Path(folder), dry_run, push, champion))
    except working_copy.Busy as error:
        return failed_by(DarkroomError(f"{error}; run it again when that has ended"))
    except EXPECTED_ERRORS as error:
        return failed_by(error)


@task(retries=0, cache_policy=NO_CACHE, persist_result=False)
def step(work: Callable[[], Any]) -> Any:
    """A part of a promotion, which Prefect shows."""
    try:
        return work()
    except EXPECTED_ERRORS as error:
        return failed_by(error)


def do(name: str, function: Callable[..., Any], *given: Any) -> Any:
    """Takes a step; an error of it ends the run."""
    named = step.with_options(name=name, task_run_name=name)
    result = named(partial(function, *given), return_state=True).result(raise_on_failure=False)
    if isinstance(result, Exception):
        raise result
    return result


def put_into(to: str, folder: Path, dry_run: bool, push: bool, with_champion: bool) -> str:
    """Promotes HEAD; returns a line that says what came of it."""
    head, known = Revision("HEAD", published=True), Registry.read()
    do("check", promotion.check, head, push)
    promotion.check_not_withdrawn(head, known)
    version, champion = promotion.version_of(head, known), known.champion(to)
    if version and version == champion:
        published = promotion.publish(push and not dry_run)
        return f"{version.tag} is in {to} already{published}{promotion.branch_hint(push, version)}"
    if not version:
        promotion.check_name(known)
    p = params.load(promotion.Params)
    candidate, export = Shipped.gated(head), folder / "challenger"
    do("fetch", candidate.fetch, export)
    probed = do("probe", probe.probe, candidate, export, p.export.rules)
    compared: dict[str, Any] = {}
    if champion and with_champion:
        warn = get_run_logger().warning
        compared = do("compare", promotion.judge, candidate, champion, export, p, warn)
    evidence = promotion.evidence_of(candidate, version, known, to, probed, compared)
    lines = evidence.lines()
    for line in lines[1:] if dry_run else lines:  # the first is the verdict, which isn't one yet
        get_run_logger().info(line)
    if dry_run:
        return f"{git.MODEL}@{evidence.version} would be put into {to}; nothing is changed"
    undoing = Run.current().undoing
    return str(do("tag", promotion.tag, to, version, evidence, known, push, undoing))


def roll_back(to: str, folder: Path, dry_run: bool, push: bool) -> str:
    """Puts the version back that was in a stage before, if it can still be fetched and still answers."""
    promotion.check_remote(push)
    known = Registry.read()
    last = known.last(to)
    if push and last and last.is_rollback and last.tag in registry.unpublished():
        # All that an earlier run has left.
        return f"{known.history(to)[0].tag} is in {to}{promotion.publish(not dry_run)}"
    current, before = promotion.last_two(to, known)
    shipped = Shipped.gated(Revision(before.tag, published=True))
    do("fetch", shipped.fetch, folder)
    probed = do("probe", probe.probe, shipped, folder, params.load(promotion.Params).export.rules)
    if dry_run:
        return f"{before.tag} would come back to {to} in place of {current.tag}; nothing is changed"
    return promotion.roll_back(to, known, probed, push, Run.current().undoing)


def main(run: Run) -> int:
    parser = cli.parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", metavar="STAGE", choices=registry.STAGES, help="staging or production")
    what.add_argument(
        "--verify",
        type=cli.given,
        metavar="VERSION",
        help="check a version, or what is in a stage, by its tag alone",
    )
    what.add_argument("--card", type=cli.given, metavar="VERSION", help="print its model card, as Markdown")
    what.add_argument("--changelog", action="store_true", help="print what each version has changed")
    parser.add_argument("--dry-run", action="store_true", help="tell what would come of it")
    parser.add_argument("--push", action="store_true", help="give the tags to git's remote too")
    parser.add_argument("--rollback", action="store_true", help="put back what was in the stage before")
    parser.add_argument("--no-champion", action="store_true", help="compare with nothing")
    parser.add_argument(server.ALONE, action="store_true", help="report to no server that is there")
    given = parser.parse_args()
    if not given.to and (given.dry_run or given.push or given.rollback or given.no_champion):
        parser.error("--dry-run, --push, --rollback and --no-champion go with --to")
    git.check_place()
    if not given.to and (unknown := git.unknown_tags()):
        console.warn(f"promote: {unknown}")
    if given.verify:
        console.say(f"promote: {promotion.verify(given.verify)}")
        return 0
    if given.card or given.changelog:
        sys.stdout.write(model_card.card(given.card) if given.card else model_card.changelog())
        return 0
    with server.reporting(run.server), run.by_hand():
        state = promote(
            given.to, given.dry_run, given.push, given.rollback, not given.no_champion, return_state=True
        )
    if state.is_completed():
        console.say(f"promote: {state.message}")
    return outcome.report_failure(state, prefix="promote: ")


if __name__ == "__main__":
    cli.command(partial(main, run))
