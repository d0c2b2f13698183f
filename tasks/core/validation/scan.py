"""The scan that fills the manifest: every image opened once, and not again while it stays the same."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from tasks.core.base.errors import DataError
from tasks.core.data import archives, image_io
from tasks.core.data.config import Processes
from tasks.core.data.entries import Entry
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parallel import each, limit_workers
from tasks.core.validation.image_quality import SAMPLE, measures
from tasks.core.validation.scan_cache import ScanCache, Status

CHUNK = 128  # images that a process takes at a time

Facts = dict[str, Any]  # the columns that depend on a file's content alone


@dataclass(frozen=True)
class Job:
    """An image to describe, and what is known of it from an earlier scan."""

    entry: Entry
    file: str
    status: Status | None  # none where it can't be asked
    known: Facts | None = None  # what an earlier scan found
    trusted: bool = False  # size and times say that the file is still the same


def scan(folder: Path, entries: Iterable[Entry], compute: Processes) -> pd.DataFrame:
    """Opens every image once and describes it: a manifest, in the order of `entries`.

    A file that was described before and has the same size and times is not opened again; one whose times
    alone have changed is read, and decoded only if its content is another. An image that can't be read gets
    a row too, with `error` saying why. Few small images are read in this process alone.
    """
    batches = _batches(folder, entries, compute)
    return pd.DataFrame(pa.Table.from_batches(batches, SCHEMA).to_pandas())


def _batches(folder: Path, entries: Iterable[Entry], compute: Processes) -> Iterator[pa.RecordBatch]:
    with ScanCache.open() as cache:
        start = time.time_ns()
        source = iter(entries)
        chunks = iter(lambda: list(islice(source, CHUNK)), [])
        jobs, ahead = tee(_jobs(folder, chunk, cache) for chunk in chunks)
        compute = limit_workers(
            compute, (job.status.size if job.status else 0 for chunk in ahead for job in chunk)
        )
        del ahead  # or all jobs would be kept for it
        for chunk in each(describe, jobs, compute, is_done=_is_known):
            if not _is_known(chunk):
                cache.add([(job.file, job.status, job.known) for job in chunk if not job.trusted], start)
            yield _batch(chunk)


def _is_known(chunk: list[Job]) -> bool:
    return all(job.trusted for job in chunk)


def _jobs(folder: Path, entries: list[Entry], cache: ScanCache) -> list[Job]:
    top = os.path.abspath(folder)  # noqa: PTH100, a hundredth of Path's time
    files = [f"{top}/{entry.path}" for entry in entries]
    known = cache.look_up(files)
    jobs = []
    for entry, file in zip(entries, files, strict=True):
        status = _status(file)
        facts, seen = known.get(file, (None, None))
        jobs.append(Job(entry, file, status, facts, trusted=status is not None and status == seen))
    return jobs


def _status(file: str) -> Status | None:
    try:
        found = os.stat(file)  # noqa: PTH116
    except OSError:
        return _status_in_archive(file)
    if not stat.S_ISREG(found.st_mode):
        return None
    return Status(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _status_in_archive(file: str) -> Status | None:
    if not (inner := archives.find(file)):
        return None
    archive, name = inner
    member = archive.members.get(name)
    return Status(member.size, archive.modified, archive.changed) if member else None


def describe(chunk: list[Job]) -> list[Job]:
    """Fills in what is not known of these images."""
    return [job if job.trusted else Job(job.entry, job.file, job.status, _facts(job)) for job in chunk]


def _facts(job: Job) -> Facts:
    facts: Facts = {}
    try:
        data = _content(job)
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if job.known and job.known.get("sha256") == facts["sha256"]:
            return job.known
        image = image_io.open_image(data)
        facts |= {"format": image.format, "mode": image.mode}
        rgb, (width, height) = image_io.shrink(image, SAMPLE)
    except DataError as error:
        return facts | {"error": str(error).removeprefix(f"{job.file} ")}  # the row names it
    except MemoryError:  # of this moment and not of the file: without its digest it is not kept
        return {"error": "needs more memory than there is; lower compute.workers"}
    except OSError as error:
        return facts | {"error": f"can't be read ({error.strerror})"}
    return facts | {"width": width, "height": height} | measures(rgb, facts["mode"])


def _content(job: Job) -> bytes:
    file = Path(job.file)
    try:
        job.file.encode()
    except UnicodeEncodeError:
        raise DataError("has a name that is not UTF-8; rename it") from None
    if inner := archives.find(file):
        archive, name = inner
        return archive.read(name)
    if job.status is None:
        if file.is_symlink() and not file.exists():
            raise DataError("is a link to nothing")
        if not file.is_file():
            raise DataError("is no regular file")  # reading a pipe would wait for ever
    return image_io.read_file(file)


def _batch(chunk: list[Job]) -> pa.RecordBatch:
    rows = [
        {
            "path": _shown(job.entry.path),
            "label": _shown(job.entry.label),
            "group": job.entry.group,
            "given_group": job.entry.group,
            "split_hint": job.entry.split_hint,
            **(job.known or {}),
        }
        for job in chunk
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def _shown(name: str) -> str:
    """A name as UTF-8 can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()
