"""A pipeline over pictures and labels of a stranger, with secrets beside it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import in_a_browser
from tests.project import Project

pytestmark = pytest.mark.slow

SECRET = "planted-" + "4f1d7e"  # in two, for this file is in the project too
HTML = '<script>document.title = "run"</script>'
NAME = '"><img src=x onerror=document.title=1>.png'
COLOURS = {HTML: (200, 40, 40), "=1+1": (40, 60, 200)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run that has ended well, its remotes' addresses and its environment full of secrets."""
    top = tmp_path_factory.mktemp("stranger")
    rng = np.random.default_rng(3)
    rows = ["path,label"]
    (top / "pictures").mkdir()
    for place, (label, colour) in enumerate(COLOURS.items()):
        for number in range(24):
            name = NAME if (place, number) == (0, 0) else f"{place}-{number}.png"
            noise = rng.integers(-30, 30, (40, 48, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            if name == NAME:
                pixels[:] = 0  # dark and empty, which Data Docs say of it
            Image.fromarray(pixels).save(top / "pictures" / name)
            quoted = [part.replace('"', '""') for part in (name, label)]
            rows.append(",".join(f'"{part}"' for part in quoted))
    project = Project.small(top)
    project.set(formats="[onnx]", robustness="0")
    (project.folder / "data/labels.csv").write_text("\n".join(rows) + "\n")
    project.git("remote", "add", "origin", f"https://somebody:{SECRET}@127.0.0.1:9/r.git")
    done = project.run(
        "dvc", "remote", "add", "--default", "store", f"https://somebody:{SECRET}@127.0.0.1:9/s"
    )
    assert done.returncode == 0, done.stdout
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("AWS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "GITHUB_TOKEN", "KAGGLE_KEY"):
            patch.setenv(variable, SECRET)
        done = project.run("dvc", "repro")
    assert done.returncode == 0, done.stdout
    (top / "said").write_text(done.stdout)
    return project


def pages(project: Project) -> list[Path]:
    found = sorted((project.folder / "reports").rglob("*.html"))
    assert len(found) > 1, "the report, and Data Docs"
    return found


def test_no_secret_is_written_anywhere(project: Project) -> None:
    known = {project.folder / ".git/config", project.folder / ".dvc/config"}  # where it was planted
    files = [file for file in project.folder.parent.rglob("*") if file.is_file() and file not in known]
    holding = [file for file in files if SECRET.encode() in file.read_bytes()]
    assert not [file for file in holding if ".git" not in file.parts], "but in what git keeps of .dvc/config"
    assert SECRET in (project.folder / ".git/config").read_text(), "it is there"
    assert any((project.folder / "export").iterdir()) and (project.folder.parent / "said").stat().st_size


def test_names_that_are_html_are_no_markup(project: Project) -> None:
    metrics = json.loads((project.folder / "reports/metrics.json").read_text())
    assert HTML in json.dumps(metrics, ensure_ascii=False).replace('\\"', '"'), "the class is there"
    for page in pages(project):
        text = page.read_text("utf-8")
        assert HTML not in text and "<img src=x" not in text, page
    assert "&lt;script&gt;document.title" in (project.folder / "reports/index.html").read_text("utf-8")


@in_a_browser
def test_names_that_are_html_are_text_on_every_page(project: Project, browser: Any) -> None:
    for page in pages(project):
        tab = browser.new_page()
        tab.goto(page.as_uri())
        title = tab.title()
        tab.wait_for_timeout(200)
        assert tab.title() == title and title not in ("run", "1"), page
        assert tab.locator("img[src=x]").count() == 0
        tab.close()


def test_the_command_shows_names_as_text(project: Project) -> None:
    images = os.fspath(project.folder.parent / "pictures")
    done = project.run("tasks.predict", "export/model.onnx", images, "--json", apart=True)
    assert done.returncode == 0, done.stderr
    assert {row["class"] for row in json.loads(done.stdout)} == set(COLOURS)
