"""Puts a version into a stage, or takes that back: what has to be so, by which evidence, and the tags."""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.artifacts.config import Export
from tasks.core.base import params
from tasks.core.base.errors import DarkroomError, DataError, Rejected
from tasks.core.base.files import sha256
from tasks.core.base.paths import EXPORT, METRICS, PREDICTIONS
from tasks.core.data.config import Processes
from tasks.core.evaluation import gates, metrics, predictions
from tasks.core.evaluation.config import Evaluate, Gate
from tasks.core.inference.config import Monitor
from tasks.core.release import comparison, dvc_api, git, registry, shipped
from tasks.core.release.evidence import FORMAT, Evidence
from tasks.core.release.registry import Registry, Version
from tasks.core.release.revision import Revision
from tasks.core.release.shipped import LOCK, Shipped

Undoing = Callable[[Callable[[], object]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Params(params.Section):
    data: params.Data
    evaluate: Evaluate
    gate: Gate
    export: Export
    monitor: Monitor
    compute: Processes


def check(head: Revision, push: bool) -> None:
    """Raises a DarkroomError unless what is here was gated and committed, and others can have it."""
    lock = git.attempt("show", f"{head.commit}:{LOCK}")
    if lock.returncode:
        raise DarkroomError(f"{LOCK} is not committed: git add {LOCK}; git commit")
    if re.search("^(<{7}|>{7}) ", lock.stdout, re.MULTILINE):  # which DVC can't read
        raise DarkroomError(
            f"{LOCK} was committed with the marks of a merge that conflicted; remove it, `dvc repro`, and "
            "commit it"
        )
    check_committed()
    if pending := dvc_api.survey()[1]:
        names = ", ".join(sorted(pending))
        raise DarkroomError(
            f"what is here is not what dvc.lock says of {names}; "
            "`dvc pull`, or `dvc repro` and commit dvc.lock"
        )
    check_remote(push)
    if dvc_api.has_remote() and (missing := dvc_api.unpushed()):
        raise DarkroomError(f"{missing} is in no remote, where others could fetch it: `dvc push`")


def check_committed() -> None:
    """Raises a DarkroomError unless what was gated is what this commit has."""
    changed = git.run("diff", "--name-only", "HEAD").splitlines()
    images = Path(params.load(Params).data.images).resolve()  # may be kept from git

    def inputs(files: list[str]) -> list[Path]:
        others = [file for file in files if not Path(file).parent.resolve().is_relative_to(images)]
        return dvc_api.inputs_among(others)

    left_out = inputs(git.untracked())
    if changed or left_out:
        file = [*changed, *left_out][0]
        raise DarkroomError(f"{file} is not committed; commit it, so that a version is a commit")
    if code := inputs(git.ignored_code()):
        raise DarkroomError(
            f"{code[0]}, which git is to ignore, is code that a stage reads; commit it (git add --force), or "
            "name it in .dvcignore if none does"
        )
    if found := git.unlooked():
        raise DarkroomError(
            "{0} is not what is committed, and git was told not to look: git update-index --no-{1} {0}; "
            "commit it".format(*found)
        )


def check_remote(push: bool) -> None:
    """Raises a DarkroomError if the tags are to be pushed and DVC has no remote."""
    if push and not dvc_api.has_remote():
        raise DarkroomError(
            "DVC has no remote from which others could fetch it: `dvc remote add --default NAME URL`"
        )


def check_not_withdrawn(head: Revision, known: Registry) -> None:
    """Raises a DarkroomError if a commit was a version that has been withdrawn."""
    if gone := next((one for one in known.withdrawn if one.commit == head.commit), None):
        raise DarkroomError(
            f"this commit was {gone.tag}, which was withdrawn; git commit --allow-empty makes another one"
        )


def check_name(known: Registry) -> None:
    """Raises a DarkroomError if the next version's name is that of a lightweight tag."""
    tag = f"{git.MODEL}@{known.next(breaks=False)}"
    if git.has_tag(tag):
        raise DarkroomError(
            f"{tag} is no version but a lightweight tag of the next version's name: "
            f"git tag --delete '{tag}'; if {git.REMOTE} has it too, "
            f"git push --delete {git.REMOTE} 'refs/tags/{tag}'"
        )


def version_of(head: Revision, known: Registry) -> Version | None:
    """The version that HEAD is, or whose dvc.lock it still has: what came since has changed no model."""
    if found := known.at(head.commit):
        return found
    digest = head.digest(LOCK)
    for version in reversed(known.versions):
        evidence = Evidence.of(version.tag)
        if evidence and evidence.digests.get(LOCK.as_posix()) == digest:
            return version
    return None


def is_breaking(about: dict[str, Any], known: Registry) -> bool:
    """Whether programs that use the last version may have to change: for other classes, or another input."""
    if not known.versions:
        return False
    before = Evidence.of(known.versions[-1].tag)
    breaking_keys = ("classes", "image_size", "resize")
    return before is None or any(before.about[name] != about[name] for name in breaking_keys)


def judge(
    candidate: Shipped, champion: Version, folder: Path, p: Params, warn: Callable[[str], object]
) -> dict[str, Any]:
    """Compares a candidate with the champion by the gates; gives what `Evidence` has of it.

    Args:
        folder: that `Shipped.fetch` has filled with the candidate's.

    Raises:
        Rejected: it doesn't hold its own.
    """
    before = Revision(champion.tag)
    if comparison.is_same(candidate, before):
        return {
            "champion": champion.tag,
            "notes": [f"its artifacts are those of {champion.tag}, byte by byte"],
        }
    pair = comparison.compare(candidate, before, folder, Path(p.data.images), p.monitor.batch_size, p.compute)
    left, min_slice = len(pair.candidate), p.evaluate.min_slice
    if left < min_slice:
        raise DataError(
            f"{left} test images are left that {champion.tag} hasn't learned from, too few to compare by "
            f"(evaluate.min_slice is {min_slice}); --no-champion does without"
        )
    evaluator = gates.GateEvaluator(
        comparison.recount_slices(candidate.revision.json(METRICS), pair.candidate, min_slice),
        pair.candidate,
        pair.champion,
        p.evaluate,
    )
    verdict = gates.evaluate_gates(evaluator, p.gate.rules, p.gate.on_inconclusive)
    for note in pair.notes:
        warn(note)
    failed = [one for one in verdict["gates"] if not one["passed"]]
    if failed:
        faults = "; ".join(f"{one['verdict']}: {one['why']}" for one in failed)
        doubt = "; more test images would tell, or see gate.on_inconclusive"
        undecided = all(one["verdict"] == "inconclusive" for one in failed)
        raise Rejected(f"{champion.tag} stays: {faults} (gate.rules){doubt if undecided else ''}")
    sides = {"challenger": pair.candidate, "champion": pair.champion}
    # Log loss and calibration error are then not those of `metrics.json`.
    calibrated = ", with the calibration that the metrics are without" if p.export.calibrate else ""
    return {
        "champion": champion.tag,
        "compared": {
            side: metrics.measure(predictions.answers(table), p.evaluate.calibration_bins) | {"n": len(table)}
            for side, table in sides.items()
        },
        "gates": verdict["gates"],
        "notes": [f"compared by {pair.files}{calibrated}", *pair.notes],
    }


def evidence_of(
    candidate: Shipped,
    version: Version | None,
    known: Registry,
    to: str,
    probed: dict[str, Any],
    compared: dict[str, Any],
) -> Evidence:
    """What speaks for a candidate.

    Args:
        version: the one that it is already; none: the next one.
        probed: of `probe.probe`.
        compared: of `judge`; empty if there was no champion to compare with.
    """
    head = candidate.revision
    made = Revision(version.tag, published=True) if version else head  # HEAD may have other words since
    about = shipped.about(made)
    return Evidence(
        version=version.name if version else known.next(is_breaking(about, known)),
        commit=made.commit,
        verdict=f"promoted to {to}{'' if compared else ', compared with no champion'}",
        about=about,
        digests=shipped.digests(made),
        artifacts=candidate.digests(),
        probe=probed,
        metrics=made.json(METRICS)["test"],
        calibrated=shipped.calibrated(made),
        **compared | {"notes": candidate.left_out + compared.get("notes", [])},
    )


@contextmanager
def tagging(known: Registry, push: bool, undoing: Undoing) -> Iterator[list[str]]:
    """Gives a list for the tags that a block makes, all or none, and pushes what others don't know.

    Args:
        known: what the decision was made by, minutes ago.
        undoing: has the tags removed again if the process is interrupted within the block.

    Raises:
        DarkroomError: it is another by now.
    """
    git.check_tags(push)
    if Registry.read() != known:
        raise DarkroomError("another promotion was there first; run it again")
    made: list[str] = []
    with undoing(partial(git.delete_tags, made)):
        try:
            yield made
            if push:
                git.push([*(tag for tag in registry.unpublished() if tag not in made), *made])
        except BaseException:
            git.delete_tags(made)
            raise


def tag(
    to: str, version: Version | None, evidence: Evidence, known: Registry, push: bool, undoing: Undoing
) -> str:
    """Makes the tags: of the version, if it is a new one, and of its stage; says so."""
    with tagging(known, push, undoing) as made:
        if not version:
            headline = f"{git.MODEL} {evidence.version}"
            made.append(registry.register(evidence.version, evidence.commit, evidence.message(headline)))
            version = Version(evidence.version, evidence.commit)
        made.append(registry.assign(to, version, evidence.message(f"{version.tag} into {to}")))
    return f"{version.tag} is in {to}, by {made[-1]}{push_hint(push)}{branch_hint(push, version)}"


def publish(push: bool) -> str:
    """Pushes the tags that earlier runs have left here, if it is to and there are any; says so."""
    left = registry.unpublished() if push else []
    if left:
        git.push(left)
    return ", and now others know" if left else ""


def branch_hint(push: bool, version: Version) -> str:
    """Says so if others have a version's tag, and its commit on no branch."""
    if not push or git.run("branch", "--remotes", "--contains", version.commit):  # as far as is known here
        return ""
    return f"; {git.REMOTE} has its commit on no branch, so `git push` that too"


def push_hint(push: bool) -> str:
    """What is left to do, so that others know of it."""
    return "" if push else "; run again with --push, it tells others"


def last_two(to: str, known: Registry) -> list[Version]:
    """The version in a stage, and the one that was there before.

    Raises:
        DarkroomError: there is none to go back to.
    """
    history = known.history(to)
    if len(history) < 2:
        now = f"before {history[0].tag} nothing was in {to}" if history else f"nothing has been in {to}"
        raise DarkroomError(f"{now}: there is nothing to go back to")
    return history[:2]


def roll_back(to: str, known: Registry, probed: dict[str, Any], push: bool, undoing: Undoing) -> str:
    """Makes the tag that puts the version back that was in a stage before; says so."""
    current, before = last_two(to, known)
    headline = f"{before.tag} back into {to}"
    verdict = f"put back into {to} in place of {current.tag}"
    if evidence := Evidence.of(before.tag):
        uncompared = replace(evidence, champion=None, compared=None, gates=[], notes=[])
        back = replace(uncompared, verdict=verdict, probe=probed, rollback=True, format=FORMAT)
        message = back.message(headline)
    else:  # one that was made by hand has none
        message = f'{headline}\n\n{{"rollback": true}}\n'
    with tagging(known, push, undoing) as made:
        made.append(registry.assign(to, before, message))
    return f"{before.tag} is back in {to} in place of {current.tag}, by {made[0]}{push_hint(push)}"


def verify(tag: str) -> str:
    """Compares a version's evidence with what git and DVC have of it; returns a line that says so.

    Raises:
        Rejected: something is not what the tag says.
    """
    version = Registry.read().find(tag)
    evidence = Evidence.read(version.tag)
    revision = Revision(version.tag, published=True)
    faults = [] if revision.commit == evidence.commit else [f"the commit is {revision.commit}"]
    if evidence.version != version.name:
        faults.append(f"it says that it is {evidence.version}")
    if evidence.metrics != revision.json(METRICS)["test"]:
        faults.append(f"its metrics are not those of {METRICS}")
    unproven = [path.as_posix() for path in shipped.PROVEN if path.as_posix() not in evidence.digests]
    unnamed = sorted(set(Shipped.gated(revision).digests()) - set(evidence.artifacts))
    faults += [f"it has no digest of {name}" for name in [*unproven, *unnamed]]
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
    bins = git.parameters(revision.commit)["evaluate"]["calibration_bins"]
    measured = metrics.measure(predictions.answers(revision.parquet(PREDICTIONS)), bins)
    for name, value in measured.items():
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
