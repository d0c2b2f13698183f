"""What a stage was given, its code, parameters and inputs, and whether that is what DVC has recorded.

DVC reads them once a stage has ended. If they were edited meanwhile, it would put the new text beside the old
result, and find nothing to do from then on. So a stage looks at them when it begins and when it ends, and at
what it has written, and leaves a note; whoever comes next holds that against dvc.lock: the next stage, DVC at
its end, the flow. As a module that is run it does so for the DVC whose process id it is given.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pathspec import PathSpec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.base import console, process
from tasks.core.base.errors import AGAIN, DarkroomError
from tasks.core.base.files import code_files, is_json, read_json, remove, write_json
from tasks.core.base.mending import LOCK

Written = dict[str, str | dict[str, str]]  # DVC's digest of a file; of a folder those of its files, by path
Seen = dict[str, list[Any]]  # of a file, DVC's digest and its time; of a folder a digest, of a value its text
IGNORED = Path(".dvcignore")
PIPELINE, PARAMS = Path("dvc.yaml"), Path("params.yaml")
CODE = "tasks/"
TEMPLATE = re.compile(r"\$\{(.+?)\}")  # of dvc.yaml, for a value of params.yaml


def look(stage: str) -> Seen:
    """Looks at what DVC will record beside a stage's outputs, as it is now."""
    facts = _facts(stage)
    values = _yaml(PARAMS) if "params" in facts else {}

    def value(key: str) -> Any:
        return reduce(getitem, key.split("."), values)

    paths = [_local(TEMPLATE.sub(lambda found: str(value(found[1])), dep)) for dep in facts["deps"]]
    inputs = {name: seen for path in paths for name, seen in _look_at(path).items()}
    keys = [key for key in facts.get("params", ()) if isinstance(key, str)]  # else of a file of its own
    return inputs | {f"{PARAMS}: {key}": [_text(value(key))] for key in keys}


def check_unchanged(stage: str, before: Seen) -> None:
    """Looks again when a stage has done its work.

    Raises:
        DarkroomError: something is not as it was.
    """
    try:
        now = look(stage)
    except FileNotFoundError as error:
        raise DarkroomError(f"{error.filename} went away while this stage ran; {AGAIN}") from None
    except OSError as error:
        what = f"{error.filename or PARAMS} can't be read any more ({error.strerror})"
        raise DarkroomError(f"{what}; mend it and run this stage again") from None
    except (LookupError, TypeError, YAMLError):
        raise DarkroomError(f"{PARAMS} can't be read any more; mend it and run this stage again") from None
    if changed := _changed(before, now):
        raise DarkroomError(f"{changed} was changed while this stage ran; {AGAIN}")


def _changed(before: Seen, now: Seen) -> str | None:
    """The first that is not as it was, or is code that was edited while it was imported."""

    def is_newer(name: str) -> bool:
        file = Path(name)
        return name.startswith(CODE) and file.is_file() and file.stat().st_mtime > process.started[-1]

    names = sorted(before | now)
    return next((name for name in names if now.get(name) != before.get(name) or is_newer(name)), None)


def blame(stage: str, before: Seen) -> str | None:
    """Finds an input at fault for what a stage could not do: it isn't as it was, or as it was made."""
    with suppress(OSError, LookupError, TypeError, YAMLError):
        if changed := _changed(before, look(stage)):
            return changed
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # half a second

    with suppress(OSError, DvcException), Repo(".") as repo:
        made = {str(out): out for each in repo.index.stages for out in each.outs if out.hash_info}
        inputs = [dep.def_path for dep in repo.stage.load_one(name=stage).deps]
        return next((path for path in inputs if path in made and made[path].changed_checksum()), None)
    return None


def look_at_outputs(stage: str) -> Written:
    """Looks at what a stage has written, before anything else can have changed it."""
    written: Written = {}
    for path in sorted(outputs(stage)):
        if Path(path).is_dir():
            written[path] = {name.removeprefix(f"{path}/"): _md5(Path(name)) for name in _files_below(path)}
        elif Path(path).exists():
            written[path] = _md5(Path(path))
    return written


def leave_note(stage: str, seen: Seen, written: Written) -> None:
    """Notes what a stage was given, and gives: DVC reads it a moment later, a long one for many images."""
    note = {"dvc": process.dvc_pid(), "head": _head(), "before": _entry(stage)}
    note |= {"seen": seen, "written": written}
    write_json(process.RECORDS / f"{stage}.json", note)


def withdraw_false_records(dvc: int | None = None) -> list[str]:
    """Takes back what dvc.lock and DVC's run cache say of a stage that wasn't given what they say.

    Args:
        dvc: the process of DVC that has done with the stages before; by default that of this stage.

    Returns:
        A line for each such stage, which then runs again.
    """
    notes = sorted(process.RECORDS.glob("*.json"))
    if not notes:
        return []
    from dvc.exceptions import DvcException  # half a second

    lines, own, head = [], dvc or process.dvc_pid(), _head()
    for file in notes:
        note: dict[str, Any] = read_json(file) if is_json(file) else {"dvc": None}
        if note["dvc"] != own and process.is_alive(note["dvc"] or 0):
            continue  # it may be reading them now
        stage = file.stem
        if note["dvc"] and note["head"] == head:  # else another dvc.lock came from git
            with suppress(DvcException):  # of which DVC itself tells
                entry = _entry(stage)
                if entry and entry != note["before"] and (path := _changed_since(stage, entry, note)):
                    _withdraw(stage, entry, note["before"])
                    lines.append(f"{path} was changed while {stage} ran; {AGAIN}")
        file.unlink(missing_ok=True)
    return lines


def _changed_since(stage: str, entry: dict[str, Any], note: dict[str, Any]) -> str | None:
    """What of an entry of dvc.lock isn't as its stage has left it in a note; an older one has no outputs."""
    return _false(stage, entry, note["seen"]) or _damaged(stage, entry, note.get("written", {}))


def _false(stage: str, entry: dict[str, Any], seen: Seen) -> str | None:
    """What of an entry of dvc.lock isn't what its stage has seen.

    Of what stages write nothing is said: who edits that is not after another result.
    """
    written = outputs()
    for dep in entry.get("deps", ()):
        path = dep["path"]
        # Of code each file is known; what else lies in a folder, as a labels file may, is an input by itself.
        below = f"{path}/" if path.startswith(CODE) else None
        known = {n: there for n, there in seen.items() if n == path or (below and n.startswith(below))}
        if path in written or not known:
            continue
        if not dep.get("md5", "").endswith(".dir"):
            if dep.get("md5") != known.get(path, [None])[0]:
                return str(path)
        elif known != _look_at(path) and _is_recorded_as_it_is(stage, path):
            return str(path)
    values = entry.get("params", {}).get(str(PARAMS), {})
    names = {f"{PARAMS}: {key}": _text(value) for key, value in values.items()}
    return next((name for name, digest in names.items() if seen.get(name, [digest]) != [digest]), None)


def _damaged(stage: str, entry: dict[str, Any], written: Written) -> str | None:
    """An output that DVC has recorded otherwise than its stage has written it."""
    for out in entry.get("outs", ()):
        path, digest = out["path"], out.get("md5")
        known = written.get(path, digest)
        if isinstance(known, dict):
            listed = [{"md5": known[name], "relpath": name} for name in sorted(known)]
            text = json.dumps(listed, sort_keys=True)  # as DVC writes it
            of_folder = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
            if of_folder != digest and _differs(stage, path, known):
                return str(path)
        elif known != digest:
            return str(path)
    return None


def _differs(stage: str, path: str, known: dict[str, str]) -> bool:
    """Whether DVC has a file in a folder otherwise, or not at all; it may have more, such as hidden ones."""
    from dvc.repo import Repo  # half a second

    with Repo(".") as repo:
        outs = repo.stage.load_one(name=stage).outs
        listed = next((out.get_obj() for out in outs if out.def_path == path), None)
        recorded = {"/".join(key): info.value for key, _, info in listed or ()}
        return bool(recorded) and any(recorded.get(name) != digest for name, digest in known.items())


def _is_recorded_as_it_is(stage: str, path: str) -> bool:
    """Whether DVC finds a dependency as dvc.lock has it; else it was edited later, and the stage will run."""
    from dvc.repo import Repo  # half a second

    with Repo(".") as repo:
        return all(not dep.status() for dep in repo.stage.load_one(name=stage).deps if dep.def_path == path)


def _withdraw(stage: str, entry: dict[str, Any], before: dict[str, Any] | None) -> None:
    """First from the run cache: it would restore what is missing from dvc.lock alone."""
    from dvc.repo import Repo
    from dvc.utils.serialize import modify_yaml

    with Repo(".") as repo, repo.lock:
        for run in list(Path(repo.stage_cache.cache_dir).glob("*/*/*")):
            if run.is_file() and _is_of(run, entry):
                remove(run)
                with suppress(OSError):  # DVC can't have it empty; there may be another
                    run.parent.rmdir()
        with modify_yaml(str(LOCK)) as lock:
            if before:
                lock["stages"][stage] = before
            else:
                del lock["stages"][stage]


def _is_of(run: Path, entry: dict[str, Any]) -> bool:
    """Whether DVC's run cache has this of a run with the same command, inputs and parameters."""
    with suppress(OSError, ValueError, YAMLError):
        known = _yaml(run)
        keys = ("cmd", "deps", "params")
        return isinstance(known, dict) and all(known.get(key) == entry.get(key) for key in keys)
    return False


def _head() -> str:
    """The commit that git is at; nothing where there is none."""
    git = shutil.which("git")
    words = [str(git), "rev-parse", "--verify", "--quiet", "HEAD"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip() if git else ""


def _local(path: str) -> str:
    """A path as dvc.lock has it: relative, if it lies in the project."""
    here = Path.cwd()
    return Path(path).relative_to(here).as_posix() if Path(path).is_relative_to(here) else path


def _look_at(path: str) -> Seen:
    """A file; or the files of code in a folder; or a folder as one, by the names, sizes and times in it."""
    if path.startswith(CODE):
        return {str(file): [_md5(file)] for file in code_files(Path(path))}
    try:
        if Path(path).is_dir():
            return {path: [_look_into(path)]}
        return {path: [_md5(Path(path)), Path(path).stat().st_mtime_ns]}
    except FileNotFoundError:
        return {path: []}


def _look_into(folder: str) -> str:
    found = hashlib.sha256()
    for name in _files_below(folder):
        status = os.stat(name)  # noqa: PTH116, a third of Path's time
        found.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
    return found.hexdigest()


def _files_below(folder: str) -> Iterator[str]:
    """Paths of the files in a folder, but those that .dvcignore names: `latency` writes one into export/."""
    patterns = IGNORED.read_text("utf-8").splitlines() if IGNORED.is_file() else ()
    ignored = PathSpec.from_lines("gitignore", patterns)
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not (name.startswith(".") or ignored.match_file(f"{top}/{name}")):
                yield f"{top}/{name}"


def _md5(file: Path) -> str:
    """As DVC has it in dvc.lock."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _text(value: Any) -> str:
    """A value of params.yaml, without the order of its keys, which dvc.lock doesn't keep."""
    return json.dumps(value, sort_keys=True, default=str)


def _entry(stage: str) -> dict[str, Any] | None:
    """What dvc.lock says of a stage. To read all of it takes a fifth of a second."""
    text = LOCK.read_text("utf-8") if LOCK.is_file() else ""
    found = re.search(rf"(?ms)^  {re.escape(stage)}:\n(.*?)(?=^ {{0,2}}\S|\Z)", text)
    entry: dict[str, Any] | None = YAML(typ="safe", pure=True).load(found[1]) if found else None
    return entry


@cache
def _facts(stage: str) -> dict[str, Any]:
    """What dvc.yaml says of the stage that this process is."""
    facts: dict[str, Any] = _yaml(PIPELINE)["stages"][stage]
    return facts


def outputs(*names: str) -> set[str]:
    """Paths of the outputs of some stages, or of all; none where dvc.yaml can't be read."""
    with suppress(OSError, YAMLError, LookupError, TypeError, AttributeError):
        stages = _yaml(PIPELINE)["stages"]
        all_facts = [stages[name] for name in names or stages]
        outs = [out for facts in all_facts for kind in ("outs", "metrics") for out in facts.get(kind, ())]
        return {out if isinstance(out, str) else next(iter(out)) for out in outs}  # else with options
    return set()


def _yaml(file: Path) -> Any:
    return _parsed(file.read_text("utf-8"))


@lru_cache(8)
def _parsed(text: str) -> Any:
    """What no caller changes; dvc.yaml takes a thirtieth of a second, and is read five times in a stage."""
    return YAML(typ="safe", pure=True).load(text)


if __name__ == "__main__":
    found = []
    with suppress(OSError):  # what hinders this has hindered DVC, which has told of it
        found = withdraw_false_records(int(sys.argv[1]))
    for line in found:
        console.warn(line)
    sys.exit(DarkroomError.exit_code if found else 0)
