"""A scan opens what has changed and nothing else, and remembers nothing that was not so."""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tasks.core.data import image_io, parallel
from tasks.core.data.config import Processes
from tasks.core.data.parallel import each, limit_workers
from tasks.core.validation import scan
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
