"""Versions of the model and the stages they are in, as annotated git tags in GTO's form.

classifier@v1.2.0         a version: the commit it was made at, with its evidence as the tag's message
classifier#production#3   the third assignment of all; the last of a stage says which version is in it
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gto import api
from gto.constants import Action
from gto.exceptions import GTOException
from gto.tag import parse_name
from gto.versions import SemVer
from ruamel.yaml import YAML

from tasks.core.base.errors import DarkroomError, DataError, Unreachable, brief
from tasks.core.base.params import FILE

MODEL = "classifier"  # its name in dvc.yaml, under artifacts
STAGES = ("staging", "production")
REMOTE = "origin"


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

    count: goes up with every one.
    ends: it was taken out.
    back: it was put back by a rollback.
    """

    stage: str
    count: int
    commit: str
    tag: str
    ends: bool = False
    back: bool = False

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
    def read(cls) -> Registry:
        """Reads the tags of this repository."""
        versions, withdrawn, assignments = [], set(), []
        form = "--format=%(refname:strip=2) %(*objectname) %(contents)%00"
        for entry in git("for-each-ref", form, "refs/tags").split("\0")[:-1]:
            tag, commit, message = entry.removeprefix("\n").split(" ", 2)
            if not commit:
                continue  # a lightweight tag, which GTO passes over too
            found = parse_name(tag, raise_on_fail=False)
            action = found.get("action")
            if found.get("name") != MODEL or action is None:
                continue
            if action == Action.REGISTER:
                versions.append(Version(found["version"], commit))
            elif action == Action.DEREGISTER:
                withdrawn.add(found["version"])
            elif action in (Action.ASSIGN, Action.UNASSIGN) and "counter" in found:
                ends = action == Action.UNASSIGN
                back = _is_rollback(message, found["stage"])
                assignments.append(Assignment(found["stage"], found["counter"], commit, tag, ends, back))
        versions.sort(key=lambda one: SemVer.parse(one.name))
        return cls(
            tuple(one for one in versions if one.name not in withdrawn),
            tuple(one for one in versions if one.name in withdrawn),
            tuple(sorted(assignments, key=lambda one: one.count)),
        )

    def at(self, commit: str) -> Version | None:
        """The version that a commit is."""
        return next((one for one in self.versions if one.commit == commit), None)

    def named(self, tag: str) -> Version:
        """The version of a tag, of a name such as v1.2.0, or in a stage.

        Raises:
            DataError: there is none; says which there are.
        """
        known = {one.tag: one for one in self.versions}
        found = known.get(tag) or known.get(f"{MODEL}@{tag}") or self.champion(tag)
        if not found:
            raise DataError(
                f"there is no version {tag}, but {', '.join(known) or 'none at all'}; "
                "`git fetch --tags` brings those of a remote"
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
            while one.back and version in stack:
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
        """The name of the next version: a major one if it breaks what its users hold on to."""
        if not (self.versions or self.withdrawn):
            return "v1.0.0"
        last = max(SemVer.parse(one.name) for one in (*self.versions, *self.withdrawn))
        return f"v{last.bump_major() if breaks else last.bump_minor()}"


def facts(message: str) -> dict[str, Any]:
    """The JSON at the end of a tag's message; nothing where there is none."""
    _, brace, text = message.partition("\n{")
    try:
        found: dict[str, Any] = json.loads(brace + text)
        return found
    except ValueError:
        return {}


def _is_rollback(message: str, stage: str) -> bool:
    """Whether a tag's message says, in its JSON, that it puts an earlier version back into a stage.

    Those made before `rollback` stood there say it in their first line.
    """
    known = facts(message)
    if "rollback" in known:
        return bool(known["rollback"])
    return re.fullmatch(rf"{MODEL}@\S+ back into {stage}", message.partition("\n")[0]) is not None


def git(*words: str) -> str:
    """What a git command prints.

    Raises:
        DarkroomError: it fails; says what git does.
    """
    done = _git(*words)
    if done.returncode:
        raise DarkroomError(f"git {words[0]}: {brief(done.stderr.strip() or done.returncode)}")
    return done.stdout.strip()


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    settings = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}  # its own words, and no question for a password
    return subprocess.run(
        ["git", "-c", "core.quotePath=false", *words],
        env=os.environ | settings,
        check=False,
        capture_output=True,
        text=True,
    )


def check_place() -> None:
    """Looks whether this is the root of a repository of git and DVC that has a commit.

    Raises:
        DarkroomError: it isn't.
    """
    if _git("rev-parse", "--git-dir").returncode or not Path(".dvc").is_dir():
        raise DarkroomError("here is no repository of git and DVC; run it in the root of a clone")
    if _git("rev-parse", "--verify", "HEAD").returncode:
        raise DarkroomError("there is no commit yet, and a version is one: git add --all; git commit")


def is_on_a_branch(commit: str) -> bool:
    """Whether the remote has a branch with a commit, as far as is known here."""
    return bool(git("branch", "--remotes", "--contains", commit))


def check_identity() -> None:
    """Looks for the name that a tag carries.

    Raises:
        DarkroomError: git has none.
    """
    try:
        git("var", "GIT_COMMITTER_IDENT")
    except DarkroomError:
        raise DarkroomError(
            "git doesn't know who you are, and a version says who has made it: "
            'git config user.name "Your Name"; git config user.email you@example.com'
        ) from None


def check_clock() -> None:
    """Looks whether a tag that is made now would be the last one: GTO and DVC go by the time of tags.

    Raises:
        DarkroomError: there is one of a later time than this machine's.
    """
    tags = (f"refs/tags/{MODEL}{mark}*" for mark in "@#")
    form = "--format=%(taggerdate:unix) %(taggerdate:iso) %(refname:strip=2)"
    last = git("for-each-ref", "--sort=-taggerdate", "--count=1", form, *tags)
    seconds, _, told = last.partition(" ")
    if seconds.isdigit() and int(seconds) > time.time():
        raise DarkroomError(
            f"the last tag is of {told}, which is still to come by this machine's clock; set the clock, as "
            "by their times that tag would stay the last"
        )


def check_tags(push: bool) -> str | None:
    """Looks for tags that the remote has and this clone hasn't; returns what could not be looked at, if so.

    Args:
        push: whether the remote has to be there.

    Raises:
        DarkroomError: there are such, or there is no remote.
        Unreachable: it can't be asked.
    """
    if REMOTE not in git("remote").split():
        if push:
            raise DarkroomError(f"git has no remote {REMOTE} to push to: git remote add {REMOTE} ADDRESS")
        return None
    try:
        theirs = published()
    except Unreachable as error:
        if push:
            raise Unreachable(f"{error}; nothing is promoted") from None
        return str(error)
    ours = dict(
        line.split()
        for line in git("for-each-ref", "--format=%(refname:strip=2) %(objectname)", "refs/tags").splitlines()
    )
    for tag, digest in theirs.items():
        if tag not in ours:
            raise DarkroomError(f"{REMOTE} has {tag}, which is not here; `git fetch --tags` brings it")
        if ours[tag] != digest:
            raise DarkroomError(f"{REMOTE} has another {tag}: git tag --delete '{tag}'; git fetch --tags")
    return None


def unknown() -> str | None:
    """What `check_tags` finds or can't look at, for whom that is no hindrance; none if all tags are here."""
    try:
        return check_tags(push=False)
    except DarkroomError as error:
        return str(error)


def published() -> dict[str, str]:
    """The tags of the model that the remote has, each with its object.

    Raises:
        Unreachable: it can't be asked.
    """
    done = _git("ls-remote", "--tags", "--refs", REMOTE, f"{MODEL}@*", f"{MODEL}#*")
    if done.returncode:
        raise Unreachable(f"{REMOTE} can't be asked for its tags ({brief(done.stderr)})")
    rows = (line.split("\trefs/tags/") for line in done.stdout.splitlines())
    return {tag: digest for digest, tag in rows}


def refresh() -> str | None:
    """Fetches the tags of the model that the remote has; returns what hindered it, if something did."""
    if REMOTE not in git("remote").split():
        return None
    tags = (f"refs/tags/{MODEL}{mark}*" for mark in "@#")
    done = _git("fetch", "--no-tags", REMOTE, *(f"{one}:{one}" for one in tags))
    if not done.returncode:
        return None
    return unknown() or f"git fetch: {brief(done.stderr)}"


def unpublished() -> list[str]:
    """The tags of the model that the remote hasn't; none of a version that was withdrawn.

    Raises:
        Unreachable: it can't be asked.
    """
    known, theirs = Registry.read(), published()
    assigned = (one.tag for one in known.assignments if known.at(one.commit))
    ours = [*(one.tag for one in known.versions), *assigned]
    return [tag for tag in ours if tag not in theirs]


def message(tag: str) -> str:
    """The message of an annotated tag."""
    return git("for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")


def parameters(commit: str) -> dict[str, Any]:
    """What params.yaml says in a commit; nothing where there is none."""
    done = _git("show", f"{commit}:{FILE}")
    read: dict[str, Any] = {} if done.returncode else YAML(typ="safe", pure=True).load(done.stdout)
    return read


def date(tag: str) -> str:
    """The day on which a tag was made, as 2026-11-26."""
    return git("for-each-ref", "--format=%(taggerdate:short)", f"refs/tags/{tag}")


def register(version: str, commit: str, message: str) -> str:
    """Makes a version of a commit; returns its tag.

    Raises:
        DarkroomError: there is one already.
    """
    return _tagged("register", ref=commit, version=version, message=message)


def assign(stage: str, version: Version, message: str) -> str:
    """Puts a version into a stage, also one that was there before; returns the tag.

    Raises:
        DarkroomError: somebody did in this moment.
    """
    return _tagged("assign", stage=stage, version=version.name, message=message, force=True)


def _tagged(action: str, **facts: Any) -> str:
    try:
        tag: str = getattr(api, action)(".", MODEL, **facts).tag
    except GTOException as error:
        raise DarkroomError(f"{brief(error)}; `git fetch --tags`, and see `gto show`") from None
    return tag


def push(tags: list[str]) -> None:
    """Gives tags to the remote, all or none; those that it has are left alone.

    Raises:
        DarkroomError: another promotion was there first.
        Unreachable: the remote can't be reached.
    """
    done = _git("push", "--atomic", "--quiet", REMOTE, *(f"refs/tags/{tag}" for tag in tags))
    if not done.returncode:
        return
    try:
        theirs = published()
    except Unreachable as error:
        raise Unreachable(
            f"{error}, and so it isn't known whether it took these; `git fetch --tags`, and run it again"
        ) from None
    ours = {tag: git("rev-parse", f"refs/tags/{tag}") for tag in tags}
    if any(theirs.get(tag, digest) != digest for tag, digest in ours.items()):
        raise DarkroomError(
            f"another promotion was there first; `git fetch --tags {REMOTE}`, and run it again"
        )
    if set(tags) <= set(theirs):
        return  # the connection broke after that
    if "[remote rejected]" in done.stderr:
        raise DarkroomError(f"{REMOTE} doesn't let you make these tags ({brief(done.stderr)})")
    raise Unreachable(f"{REMOTE} took no tags, and so nothing is promoted ({brief(done.stderr)})")


@contextmanager
def all_or_none() -> Iterator[list[str]]:
    """Gives a list for the tags that a block makes; if it fails they are removed from this clone again."""
    made: list[str] = []
    try:
        yield made
    except BaseException:
        remove(made)
        raise


def remove(tags: list[str]) -> None:
    """Removes tags from this clone."""
    for tag in tags:
        git("tag", "--delete", tag)
