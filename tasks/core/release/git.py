"""The git commands of a promotion: commits, the model's annotated tags, and those of the remote."""

import os
import re
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.core.base.errors import DarkroomError, Unreachable, brief
from tasks.core.base.params import FILE

MODEL = "classifier"  # its name in dvc.yaml, under artifacts
REMOTE = "origin"
FETCH_TAGS = f"git fetch --tags {REMOTE}"  # without the name git asks the remote that the branch follows
SILENT = 300  # seconds that a server may say nothing, as where a hook of its own is at work
# What a user may have set otherwise, and would change what git prints for us to read, or pushes.
SETTINGS = (
    *("core.quotePath=false", "color.ui=false", "column.ui=never", "diff.relative=false"),
    *("log.showSignature=false", "push.gpgSign=if-asked", "push.pushOption="),
    *("http.lowSpeedLimit=1", f"http.lowSpeedTime={SILENT}"),  # else it waits for ever
)
LOST = re.compile(  # what git, curl and ssh say of a connection
    r"[Cc]onnect|resolve|[Tt]imed out|[Uu]nreachable|No route|hung up|EOF|RPC failed|Broken pipe|error: 5\d\d"
)
TAGS = tuple(f"refs/tags/{MODEL}{mark}*" for mark in "@#")


def run(*words: str, given: str = "") -> str:
    """What a git command prints; `given` is what it reads.

    Raises:
        DarkroomError: it fails; says what git does.
    """
    done = attempt(*words, given=given)
    if done.returncode:
        raise DarkroomError(f"git {words[0]}: {_why(done)}")
    return done.stdout.strip()


def attempt(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a git command, however it ends.

    Raises:
        DarkroomError: there is no git.
    """
    settings = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}  # its own words, and no question for a password
    inherited = {name: value for name, value in os.environ.items() if name != "GIT_COMMITTER_DATE"}
    try:
        return subprocess.run(
            ["git", *(word for one in SETTINGS for word in ("-c", one)), *words],
            env=inherited | settings,  # a tag is of the moment: GTO and DVC go by the times of tags
            check=False,
            capture_output=True,
            input=given,
            encoding="utf-8",
            errors="replace",  # names and texts need not be UTF-8
        )
    except FileNotFoundError:
        raise DarkroomError("git is not found; install it, or add its folder to PATH") from None


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that has failed says of that, but for its warnings."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    return brief(" ".join(lines).strip() or f"exit code {done.returncode}")


def is_here() -> bool:
    """Whether this is part of a repository.

    Raises:
        DarkroomError: it is one that git can't read, as with an empty HEAD, or of another user.
    """
    done = attempt("rev-parse", "--git-dir")
    if not done.returncode:
        return True
    there = [folder / ".git" for folder in (Path.cwd(), *Path.cwd().parents) if (folder / ".git").exists()]
    if there or "not a git repository" not in done.stderr:
        raise DarkroomError(f"git can't read {there[0] if there else 'this repository'}: {_why(done)}")
    return False


def check_place() -> None:
    """Raises a DarkroomError unless this is the root of a repository of git and DVC that has a commit."""
    if not is_here() or not Path(".dvc").is_dir():
        raise DarkroomError("here is no repository of git and DVC; run it in the root of a clone")
    if above := run("rev-parse", "--show-prefix"):
        raise DarkroomError(
            f"this is the folder {above} of a git repository, whose versions would be of all of it; "
            "promotion needs one of its own"
        )
    if attempt("rev-parse", "--verify", "HEAD").returncode:
        raise DarkroomError("there is no commit yet, and a version is one: git add --all; git commit")


def unlooked() -> tuple[str, str] | None:
    """A file that is not what HEAD has, where git was told not to look; and the option that it was told by.

    Of a sparse checkout the files that are not here are no such.
    """
    rows = run("ls-files", "-v", "-z").split("\0")
    for mark, file in (row.split(" ", 1) for row in rows if row[:1] == "S" or row[:1].islower()):
        if not Path(file).is_file() or Path(file).is_symlink():
            continue
        committed = attempt("rev-parse", "--verify", "--quiet", f"HEAD:{file}").stdout.strip()
        if run("hash-object", "--", file) != committed:
            return file, "assume-unchanged" if mark.islower() else "skip-worktree"
    return None


def untracked() -> list[str]:
    """Files that git neither tracks nor ignores."""
    return run("ls-files", "--others", "--exclude-standard", "-z").split("\0")[:-1]


def ignored_code() -> list[str]:
    """Python files that git is to ignore."""
    return run("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", "*.py").split("\0")[:-1]


def check_identity() -> None:
    """Raises a DarkroomError if git has no name that a tag could carry."""
    if attempt("var", "GIT_COMMITTER_IDENT").returncode:
        raise DarkroomError(
            "git doesn't know who you are, and a version says who has made it: "
            'git config user.name "Your Name"; git config user.email you@example.com'
        )


def check_clock() -> None:
    """Looks whether a tag that is made now would be the last one: GTO and DVC go by the time of tags.

    Raises:
        DarkroomError: there is one of a later time than this machine's.
    """
    form = "--format=%(taggerdate:unix) %(taggerdate:iso) %(refname:strip=2)"
    last = run("for-each-ref", "--sort=-taggerdate", "--count=1", form, *TAGS)
    seconds, _, which = last.partition(" ")
    if seconds.isdigit() and int(seconds) > time.time():
        raise DarkroomError(
            f"the last tag is of {which}, which is still to come by this machine's clock; set the clock, as "
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
    if absent := _absent_remote():
        if push:
            raise DarkroomError(f"git has no remote {REMOTE} to push to: {absent[1]}")
        return absent[0] or None
    try:
        remote = remote_tags()
    except Unreachable as error:
        if push:
            raise Unreachable(f"{error}; nothing is promoted") from None
        return str(error)
    local = dict(
        line.split()
        for line in run("for-each-ref", "--format=%(refname:strip=2) %(objectname)", "refs/tags").splitlines()
    )
    for tag, digest in remote.items():
        if tag not in local:
            raise DarkroomError(f"{REMOTE} has {tag}, which is not here; `{FETCH_TAGS}` brings it")
        if local[tag] != digest:
            raise DarkroomError(f"{REMOTE} has another {tag}: git tag --delete '{tag}'; {FETCH_TAGS}")
    return None


def _absent_remote() -> tuple[str, str] | None:
    """What can't be known without the remote, nothing where there is no other one; and what to do."""
    remotes = run("remote").split()
    if REMOTE in remotes:
        return None
    if not remotes:
        return "", f"git remote add {REMOTE} ADDRESS"
    remedy = f"git remote rename {remotes[0]} {REMOTE}"
    others = f"git has no remote {REMOTE} but {', '.join(remotes)}"
    return f"{others}, so that it isn't known what others have promoted: {remedy}", remedy


def unknown_tags() -> str | None:
    """What `check_tags` finds or can't look at, for whom that is no hindrance; none if all tags are here."""
    try:
        return check_tags(push=False)
    except DarkroomError as error:
        return str(error)


def remote_tags() -> dict[str, str]:
    """The tags of the model that the remote has, each with its object.

    Raises:
        Unreachable: it can't be asked.
    """
    done = attempt("ls-remote", "--tags", "--refs", REMOTE, *TAGS)
    if done.returncode:
        raise Unreachable(f"{REMOTE} can't be asked for its tags ({_why(done)})")
    rows = (line.split("\trefs/tags/") for line in done.stdout.splitlines())
    return {tag: digest for digest, tag in rows}


def remedy(name: str) -> str:
    """The command that brings a commit that isn't here, also into a clone of another branch alone."""
    remote, _, branch = name.partition("/")
    is_shallow = run("rev-parse", "--is-shallow-repository") == "true"
    if not branch or remote not in run("remote").split() or set(name) & set("~^:@"):
        return f"git fetch --unshallow --tags {REMOTE}" if is_shallow else FETCH_TAGS
    return f"git fetch {'--depth 1 ' if is_shallow else ''}{remote} {branch}:refs/remotes/{name}"


def fetch() -> str | None:
    """Fetches the tags of the model that the remote has; returns what hindered it, if something did.

    By the user's fetch.prune git would delete those that only this clone has: promotions not yet pushed.
    """
    if absent := _absent_remote():
        return absent[0] or None
    words = ("--no-tags", "--no-prune", "--no-prune-tags", "--no-recurse-submodules")
    done = attempt("fetch", *words, REMOTE, *(f"{one}:{one}" for one in TAGS))
    if not done.returncode:
        return None
    return unknown_tags() or f"git fetch: {_why(done)}"


def message(tag: str) -> str:
    """The message of an annotated tag."""
    return run("for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")


@cache
def bring(commit: str) -> None:
    """Has the files of a commit here if this is a partial clone, which DVC doesn't know of: it would wait.

    Raises:
        Unreachable: the remote doesn't give them.
    """
    if attempt("config", "--get-regexp", r"^remote\..*\.promisor$").returncode:
        return
    # Of what a comparison lacks git fetches all at once; other commands fetch it one by one.
    nothing = run("hash-object", "-t", "tree", "--stdin")  # the tree without files, which git knows
    done = attempt("diff-tree", "-r", "--shortstat", "--no-renames", nothing, commit)
    if done.returncode:
        raise Unreachable(
            f"this is a partial clone, and git can't fetch what {commit[:7]} has of files ({_why(done)})"
        )


def parameters(commit: str) -> dict[str, Any]:
    """What params.yaml says in a commit; nothing where there is none."""
    done = attempt("show", f"{commit}:{FILE}")
    read: dict[str, Any] = {} if done.returncode else YAML(typ="safe", pure=True).load(done.stdout)
    return read


def date(tag: str) -> str:
    """The day on which a tag was made, as 2026-11-26."""
    return run("for-each-ref", "--format=%(taggerdate:short)", f"refs/tags/{tag}")


def push(tags: list[str]) -> None:
    """Gives these tags to the remote, all or none, and no others; those that it has are left alone.

    Raises:
        DarkroomError: another promotion was there first, or somebody's settings or hooks are against it.
        Unreachable: the remote can't be reached.
    """
    words = ("--atomic", "--quiet", "--no-follow-tags", "--recurse-submodules=no")
    done = attempt("push", *words, REMOTE, *(f"refs/tags/{tag}" for tag in tags))
    if not done.returncode:
        return
    try:
        remote = remote_tags()
    except Unreachable as error:
        raise Unreachable(
            f"{error}, and so it isn't known whether it took these; `{FETCH_TAGS}`, and run it again"
        ) from None
    local = {tag: run("rev-parse", f"refs/tags/{tag}") for tag in tags}
    if any(remote.get(tag, digest) != digest for tag, digest in local.items()):
        raise DarkroomError(f"another promotion was there first; `{FETCH_TAGS}`, and run it again")
    if set(tags) <= set(remote):
        return  # the connection broke after that
    if "[remote rejected]" in done.stderr:
        raise DarkroomError(f"{REMOTE} doesn't let you make these tags ({_why(done)})")
    # Neither addresses nor words of hooks.
    said = [line for line in done.stderr.splitlines() if line.startswith(("fatal:", "ssh:", "error: RPC"))]
    if LOST.search(re.sub("'.*?'", "", " ".join(said))):
        raise Unreachable(f"{REMOTE} took no tags, and so nothing is promoted ({_why(done)})")
    raise DarkroomError(
        f"git doesn't push the tags, and so nothing is promoted ({_why(done)}); see your rights there, the "
        f"hook pre-push, and `git config --get-regexp remote.{REMOTE}`"
    )


def make_tag(tag: str, commit: str, message: str) -> str:
    """Makes an annotated tag, by the name that git knows the user by, and returns it.

    Raises:
        DarkroomError: there is one already.
    """
    words = ("--annotate", "--no-sign", "--cleanup=verbatim", "--file=-")
    run("tag", *words, tag, commit, given=message)
    return tag


def has_tag(tag: str) -> bool:
    """Whether there is a tag of that name, of whatever kind."""
    return not attempt("show-ref", "--verify", "--quiet", f"refs/tags/{tag}").returncode


def delete_tags(tags: list[str]) -> None:
    """Removes tags from this clone."""
    for tag in tags:
        run("tag", "--delete", tag)
