"""A scan opens what has changed and nothing else, and remembers nothing that was not so."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tasks.core.data import image_io, parallel
from tasks.core.data.config import Processes
from tasks.core.data.parallel import each, limit_workers
from tasks.core.validation import scan, scan_cache
from tests import workers
from tests.images import ALONE, scanned, write_classes

TWO = Processes(2, "none")


class Place:
    """Images of an old date, and the names of those that were opened."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.reads: list[str] = []
        monkeypatch.setenv("DARKROOM_CACHE", str(folder / "cache"))
        write_classes(folder / "pictures", count=4)
        for file in self.files:
            Image.open(file).save(file.with_suffix(".bmp"))
            file.unlink()
        for file in self.files:
            os.utime(file, (0, 0))
        (folder / "labels.csv").write_text("path,label\n")
        content = scan._content

        def noted(job: scan.Job) -> bytes:
            self.reads.append(job.entry.path)
            return content(job)

        monkeypatch.setattr(scan, "_content", noted)

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "pictures").glob("*/*"))

    def scanned(self, compute: Processes = ALONE) -> pd.DataFrame:
        self.reads.clear()
        return scanned(self.folder / "pictures", self.folder / "labels.csv", compute).set_index("path")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_what_has_not_changed_is_not_opened_again(place: Place) -> None:
    first = place.scanned()
    assert len(place.reads) == 12
    pd.testing.assert_frame_equal(place.scanned(), first)
    assert place.reads == []


def test_images_that_change_places_are_seen_though_size_and_date_are_equal(place: Place) -> None:
    before = place.scanned()["sha256"]
    one, other, aside = place.files[0], place.files[-1], place.folder / "aside"
    assert one.stat().st_size == other.stat().st_size
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    after = place.scanned()["sha256"]
    assert len(place.reads) == 2
    assert (after.iloc[0], after.iloc[-1]) == (before.iloc[-1], before.iloc[0])


def test_running_out_of_memory_is_not_remembered_of_an_image(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_io, "_rgb", lambda _: bytearray(1 << 62))
        assert place.scanned()["error"].str.contains("memory").all()
    assert place.scanned()["error"].isna().all()


def flip(file: Path, part: bytes, other: bytes) -> None:
    data = file.read_bytes()
    assert part in data
    file.write_bytes(data.replace(part, other))


def of_another_version(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE images (file BLOB PRIMARY KEY, what TEXT)")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: flip(file, b'"width": 40', b'"width": 41'),
        lambda file: flip(file, b'"format": "BMP"', b'"format": "B\xffP"'),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(b"no database at all"),
        lambda file: file.write_bytes(file.read_bytes()[:100] + bytes(5000)),
        of_another_version,
    ],
    ids=["a digit", "a byte", "cut short", "text", "zeros", "version"],
)
def test_a_damaged_cache_is_made_again_and_never_believed(
    place: Place, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    first = place.scanned()
    file = place.folder / "cache/scan.sqlite"
    assert not file.with_name("scan.sqlite-wal").exists(), "all of it is in the file"
    damage(file)
    pd.testing.assert_frame_equal(place.scanned(), first)
    assert len(place.reads) == 12
    assert len(capsys.readouterr().err.splitlines()) <= 1
    pd.testing.assert_frame_equal(place.scanned(), first)
    assert place.reads == [], "the new one is whole"


def test_a_cache_that_can_not_be_written_costs_time_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a disk that is full, or that only root may write to; a folder stands in for these here."""
    first = place.scanned()
    file = place.folder / "cache/scan.sqlite"
    file.unlink()
    file.mkdir()
    pd.testing.assert_frame_equal(place.scanned(), first)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file} can't be used" in line and line.endswith("the next scan will open it again")
    file.rmdir()
    assert len(place.reads) == 12 and len(place.scanned()) == 12
    monkeypatch.setattr(scan_cache, "TIMEOUT", 0.1)
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for changed in place.files:
            os.utime(changed, (1, 1))
        pd.testing.assert_frame_equal(place.scanned(), first)
    assert "locked" in capsys.readouterr().err
    assert file.is_file(), "it is another process's, too"


def test_what_an_earlier_version_of_our_code_found_is_found_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.scanned()
    monkeypatch.setattr("tasks.core.validation.scan_cache._code", lambda: "another")
    place.scanned()
    assert len(place.reads) == 12


def test_changed_images_here_and_there_share_the_processes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that has not changed waits for none."""
    monkeypatch.setattr(scan, "CHUNK", 1)
    monkeypatch.setattr(parallel, "MIN_SHARED_WORK", 0)
    place.scanned()
    changed = [file for number, file in enumerate(place.files) if number % 3 == 0]
    for file in changed:
        os.utime(file, (1, 1))
    started: list[object] = []
    submit = parallel._Processes.submit

    def counted(pool: parallel._Processes, work: object, item: object) -> object:
        started.append(pool)
        return submit(pool, work, item)

    monkeypatch.setattr("tasks.core.data.parallel._Processes.submit", counted)
    place.scanned(TWO)
    assert len(started) == len(changed)
    assert len(set(map(id, started))) == 1


def numbered(count: int, taken: list[int]) -> Iterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


def test_no_more_is_given_out_than_a_few_for_each_process() -> None:
    taken: list[int] = []
    results = each(workers.double, numbered(400, taken), TWO)
    assert next(results) == 0
    assert len(taken) <= 8
    assert list(results) == [2 * number for number in range(1, 400)]


def test_deaths_over_different_work_do_not_add_up(tmp_path: Path) -> None:
    items = [str(tmp_path / f"{number}") for number in range(31)]
    assert list(each(workers.dying_at_every_tenth, items, TWO)) == items
    assert len(list(tmp_path.iterdir())) == 4 > parallel.TRIES, "each of them once"


def test_a_few_small_images_are_read_before_processes_would_have_started() -> None:
    compute = Processes(8, "none")
    assert limit_workers(compute, [200] * 1797).workers == 1
    assert limit_workers(compute, [200] * 3000) is compute
    assert limit_workers(compute, [4_000_000] * 50) is compute, "photographs take longer"
