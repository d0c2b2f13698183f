"""What is asked of DVC beyond its documented API, and how its sentences are read.

An update of DVC may change any of it: tests/release/test_dvc_api.py runs each function against the installed
DVC. `tasks.core.data.last_run` and `tasks.core.base.inputs` keep their own parts, since an edit here must not
run their stages again; `tasks.core.base.mending` works within DVC. Importing this module takes half a second.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.scm import SCMError, resolve_rev
from dvc_data.hashfile.db import get_index
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.base.errors import DarkroomError, DataError, Unreachable, brief, ended_by, remedy
from tasks.core.base.files import fingerprint, flat
from tasks.core.base.paths import METRICS
from tasks.core.release import git

# Packages of what a remote of DVC's may raise; all else is an OSError.
STORES = {"aiohttp", "asyncssh", "azure", "botocore", "dvc", "dvc_data", "dvc_objects", "fsspec", "gcsfs"}
STORES |= {"google", "oss2", "paramiko", "scmrepo", "sshfs", "webdav4"}
DvcError: type[Exception] = DvcException
Locked: type[Exception] = LockError
BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
INDEX_LOCK = re.compile(r"'([^']*index\.lock)'$", re.MULTILINE)
OTHER_GIT = "another git is at work, or was killed; remove it if none is"
EXITED = re.compile(r"exited with (-?\d+)")  # a stage, by what DVC says
CHATTER = re.compile(  # what DVC says after every stage
    r"(Generating|Updating) lock file|To track the changes|\s*git add |To enable auto staging|"
    r"\s*dvc config core.autostage|Use `dvc push`"
)


def words(error: Exception) -> str:
    """What DVC says of an error, in a line without colours."""
    return brief(COLOURS.sub("", str(error)))


def survey(targets: Sequence[str] = ()) -> tuple[list[str], set[str]]:
    """Looks at all stages at once, which costs as much as at one.

    Args:
        targets: stages, which with what they depend on are all that is wanted; none for all.

    Returns:
        Names of the stages, each after those it depends on, as `dvc repro` would take them; and of those
        that DVC sees something to do for: in what was there before the first of them has run.

    Raises:
        DvcException: dvc.yaml has a slip.
        DarkroomError: no such target.
    """
    with Repo(".") as repo:
        # `dvc add` makes stages too, of data alone
        order = [stage for stage in nx.dfs_postorder_nodes(repo.index.graph) if stage.cmd]
        wanted = set() if targets else set(order)
        for target in targets:
            try:
                wanted |= set(repo.stage.collect(target, with_deps=True))
            except DvcException:
                known = ", ".join(stage.addressing for stage in order)
                raise DarkroomError(f"{target} is no stage of dvc.yaml, which has {known}") from None
        names = [stage.addressing for stage in order if stage in wanted]
        return names, set(repo.status()) & set(names)


def changed_stages(*stages: str) -> set[str]:
    """Stages and data that DVC sees something to do for; of some stages, or of all that there are."""
    with Repo(".") as repo:  # a new one each time: it keeps what it has once read
        return set(repo.status(targets=list(stages) or None))


def missing() -> list[str]:
    """Paths of data that DVC tracks outside of stages and that isn't here; stages restore their own outputs.

    What is here stays as it is: DVC would refuse to touch a folder with images that it doesn't know yet.
    """
    with Repo(".") as repo:
        outs = [out for stage in repo.index.stages if not stage.cmd for out in stage.outs]
        return [str(out) for out in outs if not out.exists]


def inputs() -> str:
    """A digest of all that the stages now read: images, parameters, code, and each other's outputs."""
    with Repo(".") as repo:
        found = {}
        for stage in repo.index.stages:
            stage.save_deps(allow_missing=True)
            deps = [(dep.def_path, dep.hash_info.value) for dep in stage.deps]
            found[stage.addressing] = [stage.cmd, deps]
        return fingerprint(found)


def inputs_among(files: Iterable[str]) -> list[Path]:
    """Of files that git doesn't track, those that a stage depends on and DVC doesn't keep."""
    with Repo(".") as repo:
        kept = {Path(out.fs_path) for out in repo.index.outs}
        deps = {Path(dep.fs_path) for dep in repo.index.deps if dep.is_in_repo} - kept
        return [
            path
            for path in map(Path, files)
            if (above := {path.absolute(), *path.absolute().parents}) & deps
            and not above & kept
            and not repo.dvcignore.is_ignored_file(str(path))
        ]


def settings(words: Sequence[str]) -> list[tuple[list[str], Any]]:
    """Reads KEY=VALUE as `dvc exp run --set-param` does; gives the parts of each key, and its value.

    Raises:
        DarkroomError: one of them can't be read.
    """
    from dvc.utils.hydra import to_hydra_overrides  # half a second
    from hydra.errors import HydraException

    try:
        parsed = to_hydra_overrides(list(words))
        values = [(one.key_or_group.split("."), one.value()) for one in parsed]
    except HydraException:
        raise DarkroomError(f"set: {' '.join(words)} can't be read; give KEY=VALUE") from None
    if any(one.is_sweep_override() for one in parsed):
        raise DarkroomError(f"set: {' '.join(words)} is a sweep; `dvc exp run --queue` has those")
    return values


def committed_metrics() -> dict[str, Any]:
    """The metrics of the last commit by their dotted names; none where it has none, or DVC's cache hasn't."""
    try:
        with Repo(".") as repo:
            found = repo.metrics.show(targets=[str(METRICS)], revs=["HEAD"], hide_workspace=True)
    except (DvcException, SCMError):
        return {}
    return flat(found.get("HEAD", {}).get("data", {}).get(str(METRICS), {}).get("data", {}))


def difference(what: str, base: str) -> tuple[dict[str, Any], bool]:
    """What `dvc metrics diff` or `dvc params diff` gives, by file and name, and whether the base has any.

    Raises:
        DataError: they can't be compared.
        Unreachable: the base can't be fetched.
    """
    try:
        with Repo(".") as repo:
            if not repo.scm.get_ref("HEAD"):
                raise DataError("there is no commit to compare with")
            git.bring(resolve_rev(repo.scm, base))
            found: dict[str, Any] = getattr(repo, what).diff(a_rev=base)
            return dict(found.get("diff", {})), base not in found.get("errors", {})
    except (DvcException, SCMError) as error:
        raise DataError(
            f"{base} can't be compared with ({brief(error)}); `{git.remedy(base)}` brings it, if it is there"
        ) from None


class Commit(NamedTuple):
    """A commit as DVC has it.

    stays: whether its name is one that doesn't move.
    files: a file system of all that git and DVC keep of it.
    cache: where DVC's own store is.
    remote: the default remote's store.
    """

    digest: str
    stays: bool
    files: Any
    cache: Path
    has_remote: bool
    remote: Any


def commit(name: str, published: bool) -> Commit:
    """Looks up a commit by a tag, a digest or a name that moves.

    Args:
        published: give the remote too, if there is one.

    Raises:
        DataError: git knows no such thing; or DVC has a slip in its configuration, or several remotes and no
            default.
        Unreachable: its files can't be fetched.
    """
    try:
        with Repo(".") as repo:
            digest: str = resolve_rev(repo.scm, name)
            is_tag = repo.scm.get_ref(f"refs/tags/{name}") is not None
            git.bring(digest)
            stays = is_tag or re.fullmatch("[0-9a-f]{7,40}", name) is not None
            cache, known = Path(repo.cache.local.path), bool(repo.config["remote"])
            remote = repo.cloud.get_remote_odb() if published and known else None
    except SCMError:
        raise DataError(
            f"{name} is nothing that git knows here; `{git.FETCH_TAGS}` brings the tags of the remote"
        ) from None
    except DvcException as error:
        raise DataError(f"DVC: {brief(error)}") from None
    return Commit(digest, stays, DVCFileSystem(".", rev=digest), cache, known, remote)


def has_remote() -> bool:
    with Repo(".") as repo:
        return bool(repo.config["core"].get("remote"))  # the default one, to which `dvc push` pushes


def unpushed() -> str | None:
    """The first path whose content is in no remote, if there is one.

    Raises:
        DataError: the remote is a folder that isn't there.
        Unreachable: the remote can't be asked.
    """
    try:
        with Repo(".") as repo:
            remote = repo.cloud.get_remote()
            absent = _absent(remote)
            if not absent:
                forget(remote.odb)  # DVC would go by what was there the last time
                state = repo.status(cloud=True).items()
                return next((path for path, known in state if known == "new"), None)
    except Exception as error:  # of any package; `is_of_a_store` says which of them are a remote's
        if not is_of_a_store(error):
            raise
        raise Unreachable(
            f"DVC's remote can't be asked ({brief(error)}); see that it is there, and that it lets you in"
        ) from None
    raise DataError(absent)


def absent_remote() -> str | None:
    """Says so if DVC's default remote is a folder that isn't there."""
    with Repo(".") as repo:
        return _absent(repo.cloud.get_remote()) if repo.config["core"].get("remote") else None


def _absent(remote: Any) -> str | None:
    if remote.fs.protocol != "local" or remote.fs.exists(remote.path):
        return None
    return f"DVC's remote, {remote.path}, is not there: mount it, or `mkdir -p {remote.path}` if it is new"


def forget(store: Any) -> None:
    """Clears what DVC remembers of a remote's content, so that `dvc push` and `dvc status` look again."""
    if store:
        get_index(store).clear()


def is_of_a_store(error: Exception) -> bool:
    """Whether DVC's remote has failed, and not the code that asks it: by the package of the exception."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or not packages.isdisjoint(STORES)


class Run(NamedTuple):
    """What DVC has noted of how a stage once ended.

    file: the note. stage: what tells it from others. time: when, in seconds. contents: digests of what it
    gave, and of the files in it.
    """

    file: Path
    stage: tuple[str, ...]
    time: float
    contents: set[str]


class Store:
    """DVC's cache of this repository, while its lock is held.

    Raises:
        DarkroomError: the cache lies elsewhere, where it may be of others too.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        path = Path(repo.cache.local.path)
        if not path.resolve().is_relative_to(Path(repo.dvc_dir).resolve()):
            raise DarkroomError(f"{path}, which DVC caches in, may be of others too; it is left alone")

    @classmethod
    @contextmanager
    def open(cls) -> Iterator["Store"]:
        """Raises a DarkroomError if another DVC is at work, or this is no repository of DVC's."""
        try:
            with Repo(".") as repo, repo.lock:
                yield cls(repo)
        except LockError:
            raise DarkroomError("DVC is at work here; run it again when that has ended") from None
        except DvcException as error:
            raise DarkroomError(f"DVC: {brief(error)}") from None

    def runs(self) -> list[Run]:
        """Those whose contents are here, the latest first: a fetch brings notes, and all at once."""
        found = []
        for file in Path(self._repo.stage_cache.cache_dir).glob("*/*/*"):
            try:
                note = YAML(typ="safe").load(file.read_text("utf-8"))
                outs = {out["path"]: out["md5"] for out in note["outs"]}
                stage = (note["cmd"], *outs)
                time = max(self.file(digest).stat().st_mtime for digest in outs.values())
            except (FileNotFoundError, YAMLError, ValueError, LookupError, TypeError):
                continue  # no content, or no note: one that is half written, or not of DVC's
            found.append(Run(file, stage, time, self.with_files(outs.values())))
        return sorted(found, key=lambda run: (-run.time, run.file))

    def file(self, digest: str) -> Path:
        return Path(self._repo.cache.local.oid_to_path(digest))

    def with_files(self, digests: Iterable[str]) -> set[str]:
        """Digests, and those of the files in each that is a folder and is here."""
        found = set(digests)
        for digest in list(found):
            if digest.endswith(".dir"):
                with suppress(
                    OSError, ValueError, LookupError, TypeError
                ):  # gone or damaged: DVC makes it anew
                    found |= {entry["md5"] for entry in json.loads(self.file(digest).read_bytes())}
        return found


def was_busy(lines: list[str]) -> bool:
    """Whether a command of DVC's failed because another one was at work on the same files."""
    return any(sign in line for line in lines if line.startswith("ERROR: ") for sign in BUSY)


def has_run(lines: list[str]) -> bool:
    """Whether `dvc repro` has run a stage, and not restored it."""
    return any(line.startswith("Running stage") for line in lines)


def complaint(stage: str, lines: list[str]) -> str:
    """The failed stage's own last words; DVC's, where it has failed before the stage or after it."""
    code = stage_exit(lines)
    if code < 0:  # its last words are of something else
        return ended_by(stage, -code)
    errors = [line for line in lines if line.startswith("ERROR: ")]
    has_failed = any(EXITED.search(line) for line in errors)
    own = [line for line in lines if has_failed and line.startswith(f"{stage}: ")]
    if not own and (lock := git_lock(lines)):
        return f"{lock} is there, so that DVC can't stage files: {OTHER_GIT}"
    return (own or errors or lines or [f"{stage} failed and said nothing"])[-1]


def git_lock(lines: list[str]) -> str | None:
    """The lock of git's index that has kept DVC from staging what a command has written, if one has."""
    found = INDEX_LOCK.search("\n".join(lines))
    return found[1] if found else None


def refusal_of_folder(lines: list[str]) -> str | None:
    """Why DVC's default remote has taken no more, where it is a folder: no later try will do better."""
    with Repo(".") as repo:
        remote = repo.cloud.get_remote()
    if remote.fs.protocol != "local":
        return None
    text = "\n".join(lines)
    what = remedy(OSError(text)) if str(remote.path) in text else None
    if not what and "Bad cache file path" in text:  # DVC's words for an object that is there in part
        with suppress(OSError):  # it went away
            what = f"its disk has {shutil.disk_usage(remote.path).free / 1e6:,.0f} MB left; make room there"
    return f"DVC's remote, {remote.path}, can't be written: {what}" if what else None


def stage_exit(lines: list[str]) -> int:
    """The exit code of a failed stage, which DVC tells in words only; 2 where it didn't get that far.

    Negative: the number of the signal that ended it.
    """
    found = EXITED.findall("\n".join(lines))
    return int(found[-1]) if found else DarkroomError.exit_code
