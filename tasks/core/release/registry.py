"""Versions of the model and the stages they are in, as annotated git tags in GTO's form.

classifier@v1.2.0         a version: the commit it was made at, with its evidence as the tag's message
classifier#production#3   the third assignment of all; the last of a stage says which version is in it
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from gto.constants import Action
from gto.tag import parse_name
from gto.versions import SemVer

from tasks.core.base.errors import DataError
from tasks.core.release import git
from tasks.core.release.git import MODEL

STAGES = ("staging", "production")


@dataclass(frozen=True)
class Version:
    """A registered version; `name` is like v1.2.0."""

    name: str
    commit: str

    @property
    def tag(self) -> str:
        return f"{MODEL}@{self.name}"


@dataclass(frozen=True)
class Assignment:
    """A version that was put into a stage, or by `gto unassign` taken out.

    order: its time, and a number that goes up with every one, which those by `gto assign --simple` lack.
    ends: it was taken out.
    is_rollback: it was put back by a rollback.
    """

    stage: str
    order: tuple[int, int]
    commit: str
    tag: str
    ends: bool = False
    is_rollback: bool = False

    @property
    def what(self) -> str:
        return f"{'out of ' if self.ends else ''}{self.stage}"


@dataclass(frozen=True)
class Registry:
    """What the tags of a repository say."""

    versions: tuple[Version, ...]  # the lowest first
    withdrawn: tuple[Version, ...]  # by `gto deregister`; their names aren't given again
    assignments: tuple[Assignment, ...]  # the earliest first

    @classmethod
    def read(cls) -> Self:
        """Reads the tags of this repository."""
        versions, withdrawn, assignments = [], set(), []
        form = "--format=%(refname:strip=2) %(*objecttype) %(*objectname) %(taggerdate:unix) %(contents)%00"
        for entry in git.run("for-each-ref", form, "refs/tags").split("\0")[:-1]:
            tag, kind, commit, time, message = entry.removeprefix("\n").split(" ", 4)
            if not commit:
                continue  # a lightweight tag, which GTO passes over too
            if kind == "tag":  # a tag of a tag
                commit = git.run("rev-parse", f"{commit}^{{}}")
            found = parse_name(tag, raise_on_fail=False)
            if found.get("name") != MODEL:
                continue
            action = found.get("action")
            if action == Action.REGISTER:
                versions.append(Version(found["version"], commit))
            elif action == Action.DEREGISTER:
                withdrawn.add(found["version"])
            elif action in (Action.ASSIGN, Action.UNASSIGN):
                order = int(time or 0), int(found.get("counter", 0))
                ends = action == Action.UNASSIGN
                back = _is_rollback(message, found["stage"])
                assignments.append(Assignment(found["stage"], order, commit, tag, ends, back))
        versions.sort(key=lambda one: SemVer.parse(one.name))
        return cls(
            tuple(one for one in versions if one.name not in withdrawn),
            tuple(one for one in versions if one.name in withdrawn),
            tuple(sorted(assignments, key=lambda one: one.order)),
        )

    def at(self, commit: str) -> Version | None:
        """The version that a commit is."""
        return next((one for one in self.versions if one.commit == commit), None)

    def find(self, tag: str) -> Version:
        """The version of a tag, of a name such as v1.2.0, or in a stage.

        Raises:
            DataError: there is none; says which there are, or which one a tag put into a stage.
        """
        known = {one.tag: one for one in self.versions}
        if assigned := next((self.at(one.commit) for one in self.assignments if one.tag == tag), None):
            raise DataError(
                f"{tag} puts a version into a stage or out of it; give that version, {assigned.tag}"
            )
        found = known.get(tag) or known.get(f"{MODEL}@{tag}") or self.champion(tag)
        if not found:
            raise DataError(
                f"there is no version {tag}, but {', '.join(known) or 'none at all'}; "
                f"`{git.FETCH_TAGS}` brings those of the remote"
            )
        return found

    def of(self, version: Version) -> list[Assignment]:
        """A version's ways into stages and out of them, the earliest first."""
        return [one for one in self.assignments if one.commit == version.commit]

    def history(self, stage: str) -> list[Version]:
        """What is in a stage, and what was there before it; a rollback takes back what came after."""
        stack: list[Version] = []
        for one in self.assignments:
            version = self.at(one.commit)
            if one.stage != stage or not version:
                continue
            if one.ends:
                stack = [other for other in stack if other != version]
                continue
            while one.is_rollback and version in stack:
                stack.pop()
            stack.append(version)
        return stack[::-1]

    def last(self, stage: str) -> Assignment | None:
        """The last assignment to a stage."""
        return next((one for one in reversed(self.assignments) if one.stage == stage), None)

    def champion(self, stage: str) -> Version | None:
        """The version that is in a stage."""
        return next(iter(self.history(stage)), None)

    def next(self, breaks: bool) -> str:
        """The name of the next version: a major one if it breaks what its users rely on."""
        if not (self.versions or self.withdrawn):
            return "v1.0.0"
        last = max(SemVer.parse(one.name) for one in (*self.versions, *self.withdrawn))
        return f"v{last.bump_major() if breaks else last.bump_minor()}"


def facts(message: str) -> dict[str, Any]:
    """The JSON at the end of a tag's message, but for a signature; nothing where there is none."""
    _, brace, text = message.partition("\n{")
    text = text.partition("\n-----BEGIN ")[0]
    try:
        found: dict[str, Any] = json.loads(brace + text)
        return found
    except (ValueError, RecursionError):  # of a text that is nested thousands of times
        return {}


def _is_rollback(message: str, stage: str) -> bool:
    """Whether a tag's message says, in its JSON, that it puts an earlier version back into a stage.

    Those made before `rollback` stood there say it in their first line.
    """
    known = facts(message)
    if "rollback" in known:
        return bool(known["rollback"])
    return re.fullmatch(rf"{MODEL}@\S+ back into {stage}", message.partition("\n")[0]) is not None


def unpublished() -> list[str]:
    """The tags of the model that the remote hasn't; none of a version that was withdrawn.

    Raises:
        Unreachable: it can't be asked.
    """
    known, remote = Registry.read(), git.remote_tags()
    assigned = (one.tag for one in known.assignments if known.at(one.commit))
    return [tag for tag in (*(one.tag for one in known.versions), *assigned) if tag not in remote]


def register(version: str, commit: str, message: str) -> str:
    """Makes a version of a commit; returns its tag.

    Raises:
        DarkroomError: there is one already.
    """
    return git.make_tag(f"{MODEL}@{version}", commit, message)


def assign(stage: str, version: Version, message: str) -> str:
    """Puts a version into a stage, also one that was there before; returns the tag.

    Raises:
        DarkroomError: somebody did in this moment.
    """
    known = git.run("for-each-ref", "--format=%(refname:strip=2)", *git.TAGS).split("\n")
    counts = (parse_name(tag, raise_on_fail=False).get("counter", 0) for tag in known)
    return git.make_tag(f"{MODEL}#{stage}#{max(counts) + 1}", version.commit, message)
