"""Puts the model of this commit into a stage, if it holds its own against the one that is there.

  python -m flows.promote --to staging
  python -m flows.promote --to production --push
  python -m flows.promote --to production --rollback
  python -m flows.promote --verify classifier@v1.2.0

A version and a stage are annotated git tags in GTO's form, with the evidence as their message. Nothing is
tagged unless all of it passed; run again, it finds its work done.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import outcome, repo, server
from flows.events import tell
from flows.outcome import failed_by_user_error
from tasks.check import Params
from tasks.core.base import cli, console, params
from tasks.core.base.errors import DarkroomError, DataError, Rejected
from tasks.core.base.files import remove, sha256
from tasks.core.base.paths import EXPORT, METRICS, PREDICTIONS, cache_folder
from tasks.core.evaluation import gates
from tasks.core.release import comparison, model_card, registry
from tasks.core.release.comparison import LOCK
from tasks.core.release.evidence import FORMAT, Evidence
from tasks.core.release.registry import Registry, Version
from tasks.core.release.revision import Revision

HEAD = "HEAD"


def run_name() -> str:
    given = runtime.flow_run.parameters
    return f"{'roll back' if given.get('rollback') else 'promote to'} {given.get('to')}"


@flow(name="promote", flow_run_name=run_name, on_failure=[tell], on_crashed=[tell])
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
    outcome.heed_signals()
    try:
        if to not in registry.STAGES:
            raise DarkroomError(f"there is no stage {to}; give {' or '.join(registry.STAGES)}")
        cache_folder().mkdir(parents=True, exist_ok=True)
        # A rollback needs nothing of this folder, and waits for nobody who is at work in it.
        lock = nullcontext() if rollback else repo.alone(get_run_logger().info, wait=False)
        # In our cache, which the workers of a cluster see too.
        with (
            tempfile.TemporaryDirectory(dir=cache_folder()) as folder,
            outcome.undoing(partial(remove, Path(folder))),
            lock,
        ):
            registry.check_identity()
            registry.check_clock()
            if unasked := registry.check_tags(push):
                get_run_logger().warning("%s; another promotion may be unknown here", unasked)
            if rollback:
                return Completed(message=taken_back(to, Path(folder), dry_run, push))
            return Completed(message=promoted(to, Path(folder), dry_run, push, champion))
    except repo.Busy as error:
        return failed_by_user_error(DarkroomError(f"{error}; run it again when that has ended"))
    except repo.EXPECTED_ERRORS as error:
        return failed_by_user_error(error)


def promoted(to: str, folder: Path, dry_run: bool, push: bool, with_champion: bool) -> str:
    """Promotes HEAD; returns a line that says what came of it."""
    head, known = Revision(HEAD, published=True), Registry.read()
    step("check", checked, head, push)
    if gone := next((one for one in known.withdrawn if one.commit == head.commit), None):
        raise DarkroomError(
            f"this commit was {gone.tag}, which was withdrawn; git commit --allow-empty makes another one"
        )
    version, champion = version_of(head, known), known.champion(to)
    if version and version == champion:
        return f"{version.tag} is in {to} already{told(push and not dry_run)}{unmerged(push, version)}"
    p = params.read(params.FILE, Params)
    artifacts = comparison.shipped(head)
    here = folder / "challenger"
    step("fetch", comparison.fetched, head, artifacts, here)
    probe = step("probe", comparison.probed, here, artifacts, p.export.rules)
    compared: dict[str, Any] = {}
    if champion and with_champion:
        compared = step("compare", judged, head, champion, artifacts, here, p)
    made = Revision(version.tag, published=True) if version else head  # HEAD may have other words since
    about = comparison.about(made)
    name = version.name if version else known.next(breaks(about, known))
    evidence = Evidence(
        version=name,
        commit=made.commit,
        verdict=f"promoted to {to}" + ("" if champion and with_champion else ", compared with no champion"),
        about=about,
        digests=comparison.digests(made),
        artifacts={fact["file"]: fact["sha256"] for fact in artifacts.values()},
        probe=probe,
        metrics=made.json(METRICS)["test"],
        calibrated=comparison.calibrated(made),
        **compared,
    )
    lines = evidence.lines()
    for line in lines[1:] if dry_run else lines:  # the first is the verdict, which isn't one yet
        get_run_logger().info(line)
    if dry_run:
        return f"{registry.MODEL}@{name} would be put into {to}; nothing is changed"
    said: str = step("tag", tagged, to, version, evidence, known, push)
    return said


def step(name: str, work: Any, *given: Any) -> Any:
    """Does a part of it as a task of its own, which Prefect shows; an error of it ends the run."""
    errors = []

    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
    def run() -> Any:
        try:
            return work(*given)
        except repo.EXPECTED_ERRORS as error:
            errors.append(error)
            return failed_by_user_error(error)

    state = run(return_state=True)
    if errors:
        raise errors[0]
    return state.result()


def told(push: bool) -> str:
    """Pushes the tags that earlier runs have left here, if it is to and there are any; says so."""
    left = registry.unpublished() if push else []
    if left:
        registry.push(left)
    return ", and now others know" if left else ""


def version_of(head: Revision, known: Registry) -> Version | None:
    """The version that HEAD is, or whose dvc.lock it still has: what came since has changed no model."""
    if found := known.at(head.commit):
        return found
    if not (known.versions and head.holds(LOCK)):
        return None
    digest = head.digest(LOCK)
    for version in reversed(known.versions):
        evidence = Evidence.of(version.tag)
        if evidence and evidence.digests.get(LOCK.as_posix()) == digest:
            return version
    return None


def checked(head: Revision, push: bool) -> None:
    """Sees that what is here is what was gated and committed, and that others can have it.

    Raises:
        DarkroomError: it isn't, or they can't.
    """
    if changed := registry.git("diff", "--name-only", "HEAD"):
        file = changed.splitlines()[0]
        raise DarkroomError(f"{file} is not committed; commit it, so that a version is a commit")
    if not head.holds(LOCK):
        raise DarkroomError("dvc.lock is not committed: git add dvc.lock; git commit")
    _, pending = repo.survey()
    if pending:
        names = ", ".join(sorted(pending))
        raise DarkroomError(
            f"what is here is not what dvc.lock says of {names}; "
            "`dvc pull`, or `dvc repro` and commit dvc.lock"
        )
    check_remote(push)
    if repo.has_remote() and (missing := repo.unpushed()):
        raise DarkroomError(f"{missing} is in no remote, where others could fetch it: `dvc push`")


def check_remote(push: bool) -> None:
    """Sees that DVC has a remote, if others are to be told.

    Raises:
        DarkroomError: it has none.
    """
    if push and not repo.has_remote():
        raise DarkroomError(
            "DVC has no remote from which others could fetch it: `dvc remote add --default NAME URL`"
        )


def breaks(about: dict[str, Any], known: Registry) -> bool:
    """Whether programs that use the last version may have to change: for other classes, or another input."""
    if not known.versions:
        return False
    before = Evidence.of(known.versions[-1].tag)
    held_on_to = ("classes", "image_size", "resize")
    return before is None or any(before.about[name] != about[name] for name in held_on_to)


def judged(
    head: Revision, champion: Version, artifacts: comparison.Artifacts, folder: Path, p: Params
) -> dict[str, Any]:
    """Holds the challenger against the champion by the gates; gives what `Evidence` has of it.

    Args:
        artifacts, folder: the challenger's, fetched.

    Raises:
        Rejected: it doesn't hold its own.
    """
    before = Revision(champion.tag)
    if comparison.same(artifacts, before):
        return {
            "champion": champion.tag,
            "notes": [f"its artifacts are those of {champion.tag}, byte by byte"],
        }
    pair = comparison.compared(
        head, before, artifacts, folder, Path(p.data.images), p.monitor.batch_size, p.compute
    )
    left, least = len(pair.ours), p.evaluate.min_slice
    if left < least:
        raise DataError(
            f"{left} test pictures are left that {champion.tag} hasn't learned from, too few to compare by "
            f"(evaluate.min_slice is {least}); --no-champion does without"
        )
    evaluator = gates.GateEvaluator(
        comparison.recounted_slices(head.json(METRICS), pair.ours, least),
        pair.ours,
        pair.theirs,
        least,
        p.evaluate.calibration_bins,
        p.evaluate.bootstrap,
        p.evaluate.seed,
    )
    verdict = gates.evaluate_gates(evaluator, p.gate.rules, p.gate.on_inconclusive)
    for note in pair.notes:
        get_run_logger().warning(note)
    failed = [one for one in verdict["gates"] if not one["passed"]]
    if failed:
        faults = "; ".join(f"{one['verdict']}: {one['why']}" for one in failed)
        doubt = "; more test pictures would tell, or see gate.on_inconclusive"
        undecided = all(one["verdict"] == "inconclusive" for one in failed)
        raise Rejected(f"{champion.tag} stays: {faults} (gate.rules){doubt if undecided else ''}")
    sides = {"challenger": pair.ours, "champion": pair.theirs}
    return {
        "champion": champion.tag,
        "compared": {
            side: comparison.measured(table, p.evaluate.calibration_bins) | {"n": len(table)}
            for side, table in sides.items()
        },
        "gates": verdict["gates"],
        "notes": [comparison.by_what(pair.file, p.export.calibrate), *pair.notes],
    }


@contextmanager
def tagging(known: Registry, push: bool) -> Iterator[list[str]]:
    """Gives a list for the tags that a block makes, all or none, and pushes what others don't know.

    Args:
        known: what the decision went by, minutes ago.

    Raises:
        DarkroomError: it is another by now.
    """
    registry.check_tags(push)
    if Registry.read() != known:
        raise DarkroomError("another promotion was there first; run it again")
    with registry.all_or_none() as made, outcome.undoing(partial(registry.remove, made)):
        yield made
        if push:
            registry.push([*(tag for tag in registry.unpublished() if tag not in made), *made])


def tagged(to: str, version: Version | None, evidence: Evidence, known: Registry, push: bool) -> str:
    """Makes the tags: of the version, if it is a new one, and of its stage."""
    with tagging(known, push) as made:
        if not version:
            headline = f"{registry.MODEL} {evidence.version}"
            made.append(registry.register(evidence.version, evidence.commit, evidence.message(headline)))
            version = Version(evidence.version, evidence.commit)
        made.append(registry.assign(to, version, evidence.message(f"{version.tag} into {to}")))
    return f"{version.tag} is in {to}, by {made[-1]}{hint(push)}{unmerged(push, version)}"


def unmerged(push: bool, version: Version) -> str:
    """Says so if others have a version's tag, and its commit on no branch."""
    if not push or registry.is_on_a_branch(version.commit):
        return ""
    return f"; {registry.REMOTE} has its commit on no branch, so `git push` that too"


def hint(push: bool) -> str:
    """What is left to do, so that others know of it."""
    return "" if push else "; run again with --push, it tells others"


def taken_back(to: str, folder: Path, dry_run: bool, push: bool) -> str:
    """Puts the version back that was in a stage before, if it can still be fetched and still answers."""
    check_remote(push)
    known = Registry.read()
    history, last = known.history(to), known.last(to)
    if push and last and last.back and last.tag in registry.unpublished():
        return f"{history[0].tag} is in {to}{told(not dry_run)}"  # which was all that an earlier run has left
    if len(history) < 2:
        now = f"before {history[0].tag} nothing was in {to}" if history else f"nothing has been in {to}"
        raise DarkroomError(f"{now}: there is nothing to go back to")
    current, before = history[:2]
    past = Revision(before.tag, published=True)
    artifacts = comparison.shipped(past)
    step("fetch", comparison.fetched, past, artifacts, folder)
    probe = step("probe", comparison.probed, folder, artifacts, params.read(params.FILE, Params).export.rules)
    if dry_run:
        return f"{before.tag} would come back to {to} in place of {current.tag}; nothing is changed"
    headline = f"{before.tag} back into {to}"
    verdict = f"put back into {to} in place of {current.tag}"
    if evidence := Evidence.of(before.tag):
        back = replace(evidence.uncompared(), verdict=verdict, probe=probe, rollback=True, format=FORMAT)
        message = back.message(headline)
    else:  # one that was made by hand has none
        message = f'{headline}\n\n{{"rollback": true}}\n'
    with tagging(known, push) as made:
        made.append(registry.assign(to, before, message))
    return f"{before.tag} is back in {to} in place of {current.tag}, by {made[0]}{hint(push)}"


def verified(tag: str) -> str:
    """Holds a version's evidence against what git and DVC have of it; returns a line that says so.

    Raises:
        Rejected: something is not what the tag says.
    """
    version = Registry.read().named(tag)
    evidence = Evidence.read(version.tag)
    revision = Revision(version.tag, published=True)
    faults = [] if revision.commit == evidence.commit else [f"the commit is {revision.commit}"]
    if evidence.version != version.name:
        faults.append(f"it says that it is {evidence.version}")
    if evidence.metrics != revision.json(METRICS)["test"]:
        faults.append(f"its metrics are not those of {METRICS}")
    unproven = [path.as_posix() for path in comparison.PROVEN if path.as_posix() not in evidence.digests]
    shipped = {fact["file"] for fact in comparison.shipped(revision).values()}
    faults += [
        f"it has no digest of {name}" for name in [*unproven, *sorted(shipped - set(evidence.artifacts))]
    ]
    for path, digest in evidence.digests.items():
        if revision.digest(Path(path)) != digest:
            faults.append(f"{path} is not the one of then")
    with tempfile.TemporaryDirectory() as folder:
        export = revision.fetch(EXPORT, Path(folder))
        faults += [
            f"{EXPORT / file} is not the one of then"
            for file, digest in evidence.artifacts.items()
            if not (export / file).exists() or sha256(export / file) != digest
        ]
    bins = registry.parameters(revision.commit)["evaluate"]["calibration_bins"]
    for name, value in comparison.measured(revision.parquet(PREDICTIONS), bins).items():
        if value != evidence.metrics.get(name, value):  # a measure that came later is not in it
            faults.append(
                f"test.{name} of the stored predictions is {value}, and not {evidence.metrics[name]}"
            )
    if faults:
        raise Rejected(f"{version.tag} is not what it says: {'; '.join(faults)}")
    count = len(evidence.digests) + len(evidence.artifacts)
    return (
        f"{version.tag} is what it says: {count} digests, and the metrics of the predictions that are stored"
    )


def main() -> int:
    parser = cli.parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", metavar="STAGE", choices=registry.STAGES, help="staging or production")
    what.add_argument(
        "--verify", metavar="VERSION", help="check a version, or what is in a stage, by its tag alone"
    )
    what.add_argument("--card", metavar="VERSION", help="print its model card, as Markdown")
    what.add_argument("--changelog", action="store_true", help="print what each version has changed")
    parser.add_argument("--dry-run", action="store_true", help="tell what would come of it")
    parser.add_argument("--push", action="store_true", help="give the tags to git's remote too")
    parser.add_argument("--rollback", action="store_true", help="put back what was in the stage before")
    parser.add_argument("--no-champion", action="store_true", help="compare with nothing")
    parser.add_argument(server.ALONE, action="store_true", help="report to no server that is there")
    given = parser.parse_args()
    if not given.to and (given.dry_run or given.push or given.rollback or given.no_champion):
        parser.error("--dry-run, --push, --rollback and --no-champion go with --to")
    registry.check_place()
    if given.verify:
        console.say(f"promote: {verified(given.verify)}")
        return 0
    if given.card or given.changelog:
        if unknown := registry.unknown():
            console.warn(f"promote: {unknown}")
        sys.stdout.write(model_card.card(given.card) if given.card else model_card.changelog())
        return 0
    with server.reporting(), outcome.by_hand():
        state = promote(
            given.to, given.dry_run, given.push, given.rollback, not given.no_champion, return_state=True
        )
    if state.is_completed():
        console.say(f"promote: {state.message}")
    return outcome.told(state, prefix="promote: ")


if __name__ == "__main__":
    cli.command(main)
