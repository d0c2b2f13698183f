"""What the flows ask of DVC, and how they run it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx
import zc.lockfile
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from flows.children import started
from tasks.check import Params
from tasks.core.base import params, process
from tasks.core.base.errors import DarkroomError, DataError, ParamError, Unreachable, brief
from tasks.core.base.files import fingerprint, read_json, write_json, write_text
from tasks.core.release.revision import away, forget, is_of_a_store

EXPECTED_ERRORS = (DarkroomError, DvcException)
LOCK = Path(".dvc/tmp/pipeline.lock")
FAILURE = Path(".dvc/tmp/pipeline.json")  # what the last run that failed was given
BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
CHATTER = re.compile(  # what DVC says after every stage
    r"(Generating|Updating) lock file|To track the changes|\s*git add |To enable auto staging|"
    r"\s*dvc config core.autostage|Use `dvc push`"
)
GRACE, AGAIN = 60, 3  # seconds that a stage has for its end, and between two demands for it
PAUSE = 1.0  # seconds between two looks at what is busy

Say = Callable[[str], None]
Answer = TypeVar("Answer")

running: dict[subprocess.Popen[str], Sequence[str]] = {}  # what DVC is doing for us, and by which words


class Busy(DarkroomError):
    """Something else is at work in this folder."""


@contextmanager
def alone(say: Say, wait: bool) -> Iterator[None]:
    """Lets one run at a time into a working copy; the kernel lets go of the lock, however a run ends.

    Raises:
        Busy: there is one, and this one is not to wait.
    """

    def take() -> Any:
        try:
            return locked(LOCK)
        except zc.lockfile.LockError:
            whose = LOCK.read_text().strip() or "unknown"
            raise Busy(f"another run is at work in this folder (process {whose})") from None

    lock = patiently(take, say) if wait else take()
    try:
        yield
    finally:
        lock.close()


def locked(path: Path) -> Any:
    """Takes a lock that ends with this process, with its pid in the file; `close()` gives it back.

    Raises:
        zc.lockfile.LockError: another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return zc.lockfile.LockFile(str(path), content_template="{pid}")


def patiently(ask: Callable[[], Answer], say: Say) -> Answer:
    """Asks, and again as long as something else is at work on the same files."""
    told = False
    while True:
        try:
            return ask()
        except (Busy, LockError) as error:
            if not told:
                whose = error if isinstance(error, Busy) else f"DVC is at work here already ({brief(error)})"
                say(f"{whose}; waiting for its end")
            told = True
            time.sleep(PAUSE)


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


def is_changed(stage: str) -> bool:
    """Whether DVC sees something to do for a stage, which is sooner asked here than by starting DVC."""
    with Repo(".") as repo:  # a new one each time: it keeps what it has once read
        return bool(repo.status(targets=[stage]))


def has_remote() -> bool:
    with Repo(".") as repo:
        return bool(repo.config["remote"])


def unpushed() -> str | None:
    """The first path whose content is in no remote, if there is one.

    Raises:
        DataError: the remote is a folder that isn't there.
        Unreachable: the remote can't be asked.
    """
    try:
        with Repo(".") as repo:
            remote = repo.cloud.get_remote()
            absent = away(remote)
            if not absent:
                forget(remote.odb)  # DVC would go by what was there the last time
                state = repo.status(cloud=True).items()
                return next((path for path, known in state if known == "new"), None)
    except Exception as error:
        if not is_of_a_store(error):
            raise
        raise Unreachable(
            f"DVC's remote can't be asked ({brief(error)}); see that it is there, and that it lets you in"
        ) from None
    raise DataError(absent)


def missing() -> list[str]:
    """Paths of data that DVC tracks by itself and that isn't here; stages bring their own outputs back.

    What is here stays as it is: DVC would refuse to touch a folder with pictures that it doesn't know yet.
    """
    with Repo(".") as repo:
        outs = [out for stage in repo.index.stages if not stage.cmd for out in stage.outs]
        return [str(out) for out in outs if not out.exists]


def inputs() -> str:
    """A digest of all that the stages now read: pictures, parameters, code, and each other's outputs."""
    with Repo(".") as repo:
        found = {}
        for stage in repo.index.stages:
            stage.save_deps(allow_missing=True)
            deps = [(dep.def_path, dep.hash_info.value) for dep in stage.deps]
            found[stage.addressing] = [stage.cmd, deps]
        return fingerprint(found)


def remember_failure(message: str) -> None:
    """Notes what the run that has just failed was given, so that it isn't tried again for nothing."""
    write_json(FAILURE, {"inputs": inputs(), "message": message})


def nothing_new() -> str | None:
    """Why a run would come to nothing that isn't known: all is up to date, or has failed before."""
    if not survey()[1]:
        return "every stage is up to date"
    with suppress(FileNotFoundError, ValueError):
        before = read_json(FAILURE)
        if before["inputs"] == inputs():
            return f"nothing has changed since a run that failed: {before['message']}"
    return None


def override(settings: Sequence[str]) -> None:
    """Sets parameters as `dvc exp run --set-param` does; a slip leaves params.yaml as it is.

    Raises:
        ParamError: names the key, the value and what is allowed.
        DarkroomError: one of the settings is none.
    """
    from dvc.utils.hydra import to_hydra_overrides  # half a second
    from hydra.errors import HydraException

    try:
        parsed = to_hydra_overrides(list(settings))
        values = [(override.key_or_group.split("."), override.value()) for override in parsed]
        if any(override.is_sweep_override() for override in parsed):
            raise DarkroomError(f"set: {' '.join(settings)} is a sweep; `dvc exp run --queue` has those")
    except HydraException:
        raise DarkroomError(f"set: {' '.join(settings)} can't be read; give KEY=VALUE") from None
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / params.FILE.name
        text = params.FILE.read_text("utf-8")
        for path, value in values:
            text = replaced(text, path, value)
        draft.write_text(text, "utf-8")
        try:
            params.read(draft, Params)
        except ParamError as error:
            raise ParamError(str(error).replace(str(draft), "set")) from None
        write_text(params.FILE, text)


def replaced(text: str, path: list[str], value: Any) -> str:
    """A YAML text with another value under a path of keys, and all else as it was, comments included.

    DVC's own `--set-param` writes the whole file anew, and loses those within lists.

    Raises:
        DarkroomError: there is no such key.
    """
    node = YAML(typ="rt", pure=True).compose(text)
    for key in path:
        pairs = node.value if isinstance(node, MappingNode) else []
        inner = {name.value: below for name, below in pairs}
        if key not in inner:
            raise DarkroomError(f"set: {'.'.join(path)} is not in params.yaml; give one of its keys")
        node = inner[key]
    start, end = node.start_mark.index, node.end_mark.index
    end -= len(text[start:end]) - len(text[start:end].rstrip())  # of a list over several lines
    return text[:start] + json.dumps(value, ensure_ascii=False) + text[end:]


def dvc(*words: str, say: Say) -> tuple[int, list[str]]:
    """Runs DVC's command line and passes on its output as it comes; returns exit code and lines.

    It waits while another DVC command is at work on the same files.
    """

    def run() -> tuple[int, list[str]]:
        code, lines = _dvc(words, say)
        errors = [line for line in lines if line.startswith("ERROR: ")]
        if code and any(sign in line for line in errors for sign in BUSY):
            raise Busy("another DVC command is at work here")
        return code, lines

    return patiently(run, say)


def _dvc(words: Sequence[str], say: Say) -> tuple[int, list[str]]:
    own = str(Path(sys.executable).parent)
    child = started(
        "dvc",
        *words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": own + os.pathsep + os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
    )
    lines = []
    running[child] = words
    with child:
        try:
            for line in child.stdout or []:
                if text := line.rstrip():
                    lines.append(text)
                    if not CHATTER.match(text):
                        say(text)
        except BaseException:  # Prefect turns a SIGTERM, and the end of a task's time, into an exception
            stop(child)
            raise
        finally:
            del running[child]
    return child.returncode, lines


def stop(child: subprocess.Popen[str]) -> None:
    """Ends what DVC does for us, once the stage has given its earlier outputs back, or after a while."""
    start = asked = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)  # DVC itself ignores it, and waits for its stage
    output = child.stdout.fileno() if child.stdout else -1
    while child.poll() is None and time.monotonic() < start + GRACE:
        if time.monotonic() > asked + AGAIN:  # a process that is just being started may not have heard it
            asked = time.monotonic()
            os.killpg(child.pid, signal.SIGINT)
        # Read past Python's buffer, which the loop that was interrupted may hold: a full pipe would stop it.
        if select.select([output], [], [], 0.1)[0] and not os.read(output, 65536):
            time.sleep(0.1)
    is_deaf = child.poll() is None
    if is_deaf:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if is_deaf and "repro" in running[child]:
        process.check_out(running[child][-1])


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
    """The exit code of a failed stage, which DVC tells in words only; 2 where it didn't get that far.

    Negative: the number of the signal that ended it.
    """
    found = re.findall(r"exited with (-?\d+)", "\n".join(lines))
    return int(found[-1]) if found else DarkroomError.exit_code
