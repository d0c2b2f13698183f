"""What the last run that ended well left: outputs that dvc.lock names, wherever their files are now.

DVC takes a stage's outputs away before it starts the stage, and what a rejected run leaves in their place is
not what later runs should go by. Both are still in DVC's cache.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

Name = TypeVar("Name")


def last_output(path: Path) -> Path | None:
    """The content of an output that is a file; none where nothing was accepted, or it isn't in the cache."""
    with _open_output(path) as out:
        return _present(out.cache, {path: out.hash_info.value}).get(path) if out else None


def is_another(path: Path) -> bool:
    """Whether dvc.lock names another content of an output than the file has now."""
    with _open_output(path) as out:
        return out is not None and out.changed_checksum()


def last_output_files(path: Path) -> dict[str, Path]:
    """The files of an output that is a folder, by their names in it; those that are in the cache."""
    with _open_output(path) as out:
        tree = out.get_obj() if out else None
        if tree is None:
            return {}
        return _present(out.cache, {"/".join(key): oid.value for key, (_, oid) in tree.iteritems()})


def last_inputs(stage: str, paths: list[Path]) -> tuple[dict[Path, Path], dict[str, Any]]:
    """What a stage was given when it last ended well.

    Returns:
        The contents of those of its dependencies that are files and in the cache, by their paths, and its
        parameters by their dotted keys. Nothing where it never ended well.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageNotFound

    with suppress(NotDvcRepoError, StageNotFound), Repo(".") as repo:
        found = repo.stage.load_one(name=stage)
        known = {Path(dep.def_path): dep.hash_info.value for dep in found.deps if dep.hash_info}
        files = {path: known[path] for path in paths if path in known}
        values = {key: value for dep in found.params for key, value in (dep.hash_info.value or {}).items()}
        return _present(repo.cache.local, files), values
    return {}, {}


@contextmanager
def _open_output(path: Path) -> Iterator[Any]:
    """DVC's own entry of an output that dvc.lock has a digest of."""
    from dvc.exceptions import NotDvcRepoError, OutputNotFoundError
    from dvc.repo import Repo  # half a second

    try:
        with Repo(".") as repo:
            (out,) = repo.find_outs_by_path(str(path))
            yield out if out.hash_info else None
    except (NotDvcRepoError, OutputNotFoundError):
        yield None


def _present(cache: Any, digests: Mapping[Name, str]) -> dict[Name, Path]:
    """The files of those contents that are in the cache."""
    files = {name: Path(cache.oid_to_path(digest)) for name, digest in digests.items()}
    return {name: file for name, file in files.items() if file.is_file()}
