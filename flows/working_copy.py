"""The working copy that a flow runs in: one run at a time, what failed last, and its params.yaml."""

import fcntl
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import zc.lockfile
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode

from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.errors import AGAIN, DarkroomError, ParamError, brief
from tasks.core.base.files import read_json, replacing, write_json
from tasks.core.release import dvc_api

LOCK = Path(".dvc/tmp/pipeline.lock")
SERVICE_LOCK = Path(".dvc/tmp/serve.lock")  # of `make serve`
FAILURE = Path(".dvc/tmp/pipeline.json")  # what the last run that failed was given
PAUSE = 1.0  # seconds between two looks at what is busy

Say = Callable[[str], None]
Answer = TypeVar("Answer")


class Busy(DarkroomError):
    """Something else is at work in this folder."""


def exclusive_run(say: Say, wait: bool) -> AbstractContextManager[Any]:
    """Lets one run at a time into a working copy; the kernel lets go of the lock, however a run ends.

    Raises:
        Busy: there is one, and this one is not to wait.
    """

    def take() -> AbstractContextManager[Any]:
        try:
            return lock(LOCK)
        except zc.lockfile.LockError:
            whose = LOCK.read_text().strip() or "unknown"
            raise Busy(f"another run is at work in this folder (process {whose})") from None

    return retry_while_busy(take, say) if wait else take()


def lock(path: Path) -> AbstractContextManager[Any]:
    """Takes a lock that ends with this process, with its pid in the file; the end of a `with` gives it back.

    Raises:
        zc.lockfile.LockError: another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return closing(zc.lockfile.LockFile(str(path), content_template="{pid}"))


def is_locked(path: Path) -> bool:
    """Whether a process has a lock, which is left to it; no file, or one that is another user's, is none."""
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def retry_while_busy(ask: Callable[[], Answer], say: Say) -> Answer:
    """Asks, and again as long as something else is at work on the same files."""
    is_waiting = False
    while True:
        try:
            return ask()
        except (Busy, dvc_api.Locked) as error:
            if not is_waiting:
                whose = error if isinstance(error, Busy) else f"DVC is at work here already ({brief(error)})"
                say(f"{whose}; waiting for its end")
            is_waiting = True
            time.sleep(PAUSE)


def remember_failure(message: str) -> None:
    """Notes what the run that has just failed was given, so that it isn't tried again for nothing.

    But where it was an input that moved: the next run is given the same, and ends well.
    """
    if message.endswith(AGAIN):
        return
    write_json(FAILURE, {"inputs": dvc_api.inputs(), "message": message})


def nothing_new() -> str | None:
    """Why a run would come to nothing that isn't known: all is up to date, or has failed before."""
    if not dvc_api.survey()[1]:
        return "every stage is up to date"
    with suppress(FileNotFoundError, ValueError):
        before = read_json(FAILURE)
        if before["inputs"] == dvc_api.inputs():
            return f"nothing has changed since a run that failed: {before['message']}"
    return None


def override(settings: Sequence[str]) -> None:
    """Sets parameters as `dvc exp run --set-param` does; a slip leaves params.yaml as it is.

    Raises:
        ParamError: names the key, the value and what is allowed.
        DarkroomError: one of the settings is none.
    """
    text = params.FILE.read_text("utf-8")
    for word, (path, value) in zip(settings, dvc_api.settings(settings), strict=True):
        text = replace_value(text, path, value)
        if isinstance(value, int | float) and params.takes_text(Params, path):  # such as a commit of digits
            text = replace_value(text, path, word.partition("=")[2].strip())
    with replacing(params.FILE) as draft:
        draft.write_text(text, "utf-8", newline="\n")
        try:
            params.read(draft, Params)
        except ParamError as error:
            raise ParamError(str(error).replace(str(draft), "set")) from None


def replace_value(text: str, path: list[str], value: Any) -> str:
    """A YAML text with another value under a path of keys, and all else as it was, comments included.

    DVC's own `--set-param` writes the whole file again, and loses those within lists.

    Raises:
        DarkroomError: there is no such key.
    """
    node = YAML(typ="rt", pure=True).compose(text)
    name: Any = node
    for key in path:
        pairs = node.value if isinstance(node, MappingNode) else []
        inner = {name.value: (name, below) for name, below in pairs}
        if key not in inner:
            raise DarkroomError(f"set: {'.'.join(path)} is not in params.yaml; give one of its keys")
        name, node = inner[key]
    new = json.dumps(value, ensure_ascii=False)
    start, end = node.start_mark.index, node.end_mark.index
    if start < end and (isinstance(node, ScalarNode) or node.flow_style):
        return text[:start] + new + text[end:]
    # What has no value, or a line for each: the new one goes to its key, where it needs no indentation.
    key_end = text.index(":", name.end_mark.index) + 1
    head = f"{text[:key_end]} {new}"
    if start == end:
        return head + text[key_end:]
    return head + text[key_end : text.rindex("\n", 0, start)] + text[_last_line_end(node, text) :]


def _last_line_end(node: Any, text: str) -> int:
    """Where the line of the last value ends, within lists and mappings that have no brackets."""
    while not isinstance(node, ScalarNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(node, MappingNode) else last
    place = text.find("\n", node.end_mark.index)
    return place if place >= 0 else len(text)
