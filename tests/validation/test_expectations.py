import html
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from great_expectations.expectations.row_conditions import Column
from great_expectations.render.view.view import DefaultJinjaPageView

from tasks.core.validation import expectations
from tasks.core.validation.data_docs import RESULTS_PAGE, SUITE_PAGE
from tasks.core.validation.expectations import SHOWN, Check, ExpectNumberToBeAtMost, gxe, tolerating
from tasks.core.validation.outcome import Outcome
from tests.browser import in_a_browser

ROOT = Path(__file__).resolve().parents[2]

ODD_NAMES = [
    "plain",
    "with space",
    " leading",
    "o'clock",
    'say "cheese"',
    "both ' and \"",
    "`tick`",
    "back\\slash",
    "new\nline",
    "x' or label == label or 'x",
    "<b>bold</b> & co",
    "$label ${label} $$",
    "{{ braces }} {% raw %}",
    "@name #1 %s",
    "42",
    "nan",
    "None",
    "größe",
    "猫",
    "🐈",
]


def manifest(labels: list[str], **columns: list[Any]) -> pd.DataFrame:
    """One readable image for each label, all different, 8 pixels wide."""
    count = len(labels)
    made: dict[str, list[Any]] = {
        "path": [f"{number:03}.png" for number in range(count)],
        "label": labels,
        "sha256": [str(number) for number in range(count)],
        "width": [8.0] * count,
        "error": [None] * count,
    }
    return pd.DataFrame(made | columns)


def readable(mostly: float = 1) -> Check:
    null = gxe.ExpectColumnValuesToBeNull(column="error", mostly=mostly)
    return Check("unreadable", "readable", "every image can be read", null, "mend or remove them")


def wide(minimum: int = 8) -> Check:
    between = gxe.ExpectColumnValuesToBeBetween(column="width", min_value=minimum)
    return Check(
        "small", "wide", f"every image is {minimum} pixels wide", between, "take larger ones", "warning"
    )


def distinct(column: str = "sha256") -> Check:
    unique = gxe.ExpectColumnValuesToBeUnique(column=column)
    return Check("duplicate", "distinct", "every image is there once", unique, "remove the copies")


def floor(label: str, minimum: int = 2) -> Check:
    readable_of = (Column("label") == label) & Column("error").is_null()
    rows = gxe.ExpectTableRowCountToBeBetween(min_value=minimum, row_condition=readable_of)
    return Check("too_few", "floor", f"class {label!r} has at least {minimum} images", rows, "add images")


def classes() -> Check:
    count = gxe.ExpectColumnUniqueValueCountToBeBetween(column="label", min_value=2)
    return Check("too_few", "classes", "there are two classes or more", count, "add a class")


def run_one(frame: pd.DataFrame, check: Check, site: Path) -> Outcome:
    (outcome,) = expectations.run(frame, [check], site)
    return outcome


def test_a_sound_manifest_passes_every_check(tmp_path: Path) -> None:
    checks = [readable(), wide(), distinct(), distinct("path"), classes(), floor("cat"), floor("dog")]
    outcomes = expectations.run(manifest(["cat", "dog"] * 2), checks, tmp_path / "site")
    assert [outcome.name for outcome in outcomes] == [check.name for check in checks]
    assert all(outcome.passed and outcome.count == 0 and outcome.paths == () for outcome in outcomes)


def test_each_failed_check_names_its_images_in_path_order(tmp_path: Path) -> None:
    frame = manifest(
        ["cat"] * 4,
        path=["d.png", "c.png", "b.png", "a.png"],
        sha256=["1", "2", "1", "3"],
        width=[7.0, 9.0, 9.0, 5.0],
        error=[None, "it is cut off", None, None],
    )
    outcomes = expectations.run(frame, [readable(), wide(), distinct(), classes()], tmp_path / "site")
    found = {outcome.name: outcome for outcome in outcomes}
    assert not any(outcome.passed for outcome in outcomes)
    assert found["readable"].paths == ("c.png",)
    assert found["wide"].paths == ("a.png", "d.png")
    assert found["distinct"].paths == ("b.png", "d.png")
    assert (found["distinct"].count, found["distinct"].observed) == (2, 2)
    assert (found["classes"].observed, found["classes"].paths) == (1, ())
    assert [outcome.severity for outcome in outcomes] == ["error", "warning", "error", "error"]


def test_a_path_that_is_there_twice_is_named(tmp_path: Path) -> None:
    outcome = run_one(manifest(["a"] * 3, path=["x", "y", "x"]), distinct("path"), tmp_path / "site")
    assert (outcome.passed, outcome.paths) == (False, ("x", "x"))


def test_a_number_of_all_images_is_held_against_its_limit_and_shown(tmp_path: Path) -> None:
    def at_most(limit: float) -> Check:
        expectation = ExpectNumberToBeAtMost(column="skill", value=0.8, max_value=limit)
        return Check("shortcut", f"skill {limit}", "a low skill", expectation, "look at it")

    outcomes = expectations.run(manifest(["cat"]), [at_most(0.8), at_most(0.7)], tmp_path / "site")
    assert [(outcome.passed, outcome.observed, outcome.count) for outcome in outcomes] == [
        (True, 0.8, 0),
        (False, 0.8, 0),
    ]
    page = (tmp_path / "site" / RESULTS_PAGE).read_text(encoding="utf-8")
    assert "skill 0.7 (error): a low skill" in page and "0.8" in page


def test_an_outcome_is_plain_json(tmp_path: Path) -> None:
    outcomes = expectations.run(
        manifest(["cat"], width=[7.0]), [wide(), classes(), floor("cat")], tmp_path / "site"
    )
    again = json.loads(json.dumps([asdict(outcome) for outcome in outcomes], allow_nan=False))
    assert [row["observed"] for row in again] == [1, 1, 1]


def test_all_offenders_are_counted_and_the_first_named(tmp_path: Path) -> None:
    many = SHOWN + 5
    outcome = run_one(manifest(["a"] * many, error=["no"] * many), readable(), tmp_path / "site")
    assert outcome.count == many
    assert outcome.paths == tuple(f"{number:03}.png" for number in range(many))


def test_as_many_may_offend_as_are_tolerated_and_not_one_more(tmp_path: Path) -> None:
    frame = manifest(["a"] * 7, error=["no"] * 3 + [None] * 4)
    checks = [readable(tolerating(count, 7)) for count in (2, 3, 4, 9)]
    outcomes = expectations.run(frame, checks, tmp_path / "site")
    assert [outcome.passed for outcome in outcomes] == [False, True, True, True]
    assert all(outcome.paths == ("000.png", "001.png", "002.png") for outcome in outcomes)


@pytest.mark.parametrize("rows", [1, 3, 7, 10, 49, 1000, 99991, 10_000_019])
def test_tolerance_is_exact_in_floating_point(rows: int) -> None:
    for count in {0, 1, rows // 3, rows - 1}:
        assert (float(rows) - float(count)) / float(rows) >= tolerating(count, rows)
        assert (float(rows) - float(count + 1)) / float(rows) < tolerating(count, rows)


def test_a_class_is_found_by_any_name_and_counts_readable_images_alone(tmp_path: Path) -> None:
    labels = [name for name in ODD_NAMES for _ in range(3)]
    errors = [None, None, "it is cut off"] * len(ODD_NAMES)
    checks = [floor(name, minimum) for name in ODD_NAMES for minimum in (2, 3)]
    outcomes = expectations.run(manifest(labels, error=errors), checks, tmp_path / "site")
    assert [outcome.observed for outcome in outcomes] == [2] * len(checks)
    assert [outcome.passed for outcome in outcomes] == [True, False] * len(ODD_NAMES)
    page = (tmp_path / "site" / RESULTS_PAGE).read_text(encoding="utf-8")
    assert "<b>bold" not in page
    assert all(html.escape(repr(name)) in page for name in ODD_NAMES)


def test_a_class_without_images_is_empty_rather_than_an_error(tmp_path: Path) -> None:
    outcome = run_one(manifest(["cat"]), floor("dog", 1), tmp_path / "site")
    assert (outcome.passed, outcome.observed) == (False, 0)


def test_images_that_cannot_be_read_have_no_width_to_offend_by(tmp_path: Path) -> None:
    frame = manifest(["cat", "dog"], error=["no", "no"], width=[None, None], sha256=[None, None])
    outcomes = expectations.run(frame, [readable(), wide(), distinct()], tmp_path / "site")
    assert [outcome.passed for outcome in outcomes] == [False, True, True]


@pytest.mark.parametrize("column", ["nowhere", "no 'where'"])
def test_a_check_that_cannot_be_computed_is_no_verdict(tmp_path: Path, column: str) -> None:
    with pytest.raises(RuntimeError, match=f"(?s)'distinct' can't be computed.*{column}"):
        run_one(manifest(["cat"]), distinct(column), tmp_path / "site")


def test_the_frame_and_the_checks_are_left_as_they_were(tmp_path: Path) -> None:
    frame, check = manifest(["cat", "dog"], path=["b", "a"]), readable()
    before, described = frame.copy(), check.expectation.copy()
    run_one(frame, check, tmp_path / "site")
    pd.testing.assert_frame_equal(frame, before)
    assert check.expectation == described


def test_a_page_that_there_is_no_room_for_is_an_error_and_not_half_of_one(tmp_path: Path) -> None:
    """GX logs it with a traceback, and goes on; a limit to the size of files stands for a full disk."""
    code = f"""
        import resource, sys
        from pathlib import Path
        from tasks.core.validation import expectations
        from tests.validation.test_expectations import floor, manifest
        frame, checks = manifest(["a", "b"]), [floor("a"), floor("b")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        try:
            expectations.run(frame, checks, Path({str(tmp_path / "site")!r}))
        except OSError as error:
            sys.exit(0 if error.errno == 27 else str(error))
        sys.exit("no error")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr[-500:]


def test_data_docs_say_what_was_asked_and_name_the_offenders(tmp_path: Path) -> None:
    site = tmp_path / "site"
    frame = manifest(["cat"] * 3, width=[8.0, 7.0, 8.0], error=[None, None, "it is <cut> off"])
    expectations.run(frame, [readable(), wide(), floor("cat", 9)], site)
    page = (site / RESULTS_PAGE).read_text(encoding="utf-8")
    assert "readable (error): every image can be read" in page
    assert "wide (warning): every image is 8 pixels wide" in page
    assert html.escape("class 'cat' has at least 9 images") in page
    assert "001.png" in page and "002.png" in page and "000.png" not in page
    suite = (site / SUITE_PAGE).read_text(encoding="utf-8")
    assert "mend or remove them" in suite


def test_names_that_are_html_are_text(tmp_path: Path) -> None:
    """GX has what fails a check as HTML. A page that runs nothing is the second line of defence."""
    odd = "<img src=x onerror=alert(1)>"
    frame = manifest([odd, "cat"], path=[f"{odd}.png", "1.png"], width=[7.0, 8.0], error=[odd, None])
    expectations.run(frame, [readable(), wide(), classes(), floor(odd, 9)], tmp_path / "site")
    page = (tmp_path / "site" / RESULTS_PAGE).read_text("utf-8")
    assert html.escape(odd) in page
    for file in (tmp_path / "site").rglob("*.html"):
        text = file.read_text("utf-8")
        assert odd not in text and text.index("Content-Security-Policy") < text.index("</head>")


def test_every_page_is_reached_by_plain_links_that_lead_somewhere(tmp_path: Path) -> None:
    site = tmp_path / "$HOME of 'a' größe"  # as odd as a folder's name may be
    expectations.run(manifest(["cat"]), [readable()], site)
    pages = sorted(site.rglob("*.html"))
    assert {page.relative_to(site).as_posix() for page in pages} == {
        "index.html",
        SUITE_PAGE,
        RESULTS_PAGE,
    }
    for page in pages:
        text = page.read_text(encoding="utf-8")
        linked = {(page.parent / link).resolve() for link in re.findall(r'<a[^>]*href="([^"#:]+)"', text)}
        assert set(pages) <= linked
        assert all(target.is_file() for target in linked)
        assert "<img" not in text and "newsletter" not in text


def test_a_page_that_can_not_be_written_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GX logs the fault, and writes a page of nothing."""

    def failing(*_: Any, **__: Any) -> str:
        raise OSError("no room")

    monkeypatch.setattr(DefaultJinjaPageView, "render", failing)
    with pytest.raises(OSError, match="no room"):
        expectations.run(manifest(["cat"]), [readable()], tmp_path / "site")


@in_a_browser
def test_a_browser_fetches_nothing_from_elsewhere(browser: Any, tmp_path: Path) -> None:
    """GX's own pages ask seven hosts for styles, scripts and fonts, which then know who looks at the data."""
    frame = manifest(["cat", "dog"], width=[4.0, 8.0])
    expectations.run(frame, [readable(), wide(), floor("cat", 9)], tmp_path / "site")
    for file in (tmp_path / "site").rglob("*.html"):
        asked: list[str] = []
        page = browser.new_page(color_scheme="dark")
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(file.as_uri(), wait_until="networkidle")
        assert asked == [file.as_uri()]


ELSEWHERE = """
import socket, sys, time
from pathlib import Path

def refuse(*_):
    print("reached for the network", file=sys.stderr)
    raise OSError

socket.socket.connect = socket.getaddrinfo = refuse
from tests.validation import test_expectations as ours
time.sleep(float(sys.argv[2]))
widths, errors = [4.0, 9.0, 5.0] * 9, [None, None, "it is cut off"] * 9
frame = ours.manifest(["cat", "dog", "猫"] * 9, sha256=list("abc") * 9, width=widths, error=errors)
checks = [ours.readable(), ours.wide(), ours.distinct(), ours.classes(), ours.floor("猫", 99)]
ours.expectations.run(frame, checks, Path(sys.argv[1]))
"""


def start(folder: Path, zone: str, seed: str, delay: float) -> subprocess.Popen[str]:
    """Runs the same checks in a process with a home, a place for temporary files and a zone of its own."""
    for name in ("home", "temporary", "work"):
        (folder / name).mkdir(parents=True)
    own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary"), "TZ": zone}
    python = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, "site", str(delay)],
        cwd=folder / "work",
        env=os.environ | own | python,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@pytest.mark.slow
def test_anywhere_and_at_any_time_the_site_is_the_same_bytes_and_all_that_is_written(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / "here", tmp_path / "there" / "deeper"]
    started = [start(folders[0], "Asia/Tokyo", "1", 0), start(folders[1], "America/New_York", "2", 1.1)]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert said == ["", ""]
    assert [process.returncode for process in started] == [0, 0]
    here, there = (tree(folder) for folder in folders)
    assert here == there
    assert set(here) == {f"work/site/{page}" for page in ("index.html", SUITE_PAGE, RESULTS_PAGE)}
