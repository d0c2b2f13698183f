"""Images without labels fall into the groups that an eye would make, and no hand's work is lost."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import cluster
from tasks.core.backbones.config import Model
from tasks.core.base.errors import DataError
from tasks.core.base.files import sha256
from tasks.core.data import discovery
from tasks.core.reporting.contact_sheet import COLUMNS, box, contact_sheet
from tests.backbone import save_tiny_backbone
from tests.images import write_classes
from tests.structure import ROOT

COUNTS = {"red": 14, "green": 12, "blue": 10}


@dataclass(frozen=True)
class World:
    """A small backbone, and noisy images of three colours in a flat folder, their colour in their names."""

    folder: Path

    @property
    def backbone(self) -> Path:
        return self.folder / "backbone"

    @property
    def images(self) -> Path:
        return self.folder / "pictures"

    def cluster(self, output: Path, k: int | None = None, images: Path | None = None) -> cluster.Clusters:
        model = Model(str(self.backbone), "none", 32, "last", dropout=0, l2=0)
        return cluster.cluster(images or self.images, output, k, 6, model, "stretch")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("cluster"))
    save_tiny_backbone(world.backbone)
    world.images.mkdir()
    for colour, count in COUNTS.items():
        write_classes(world.folder / "classes", [colour], count)
        for file in (world.folder / "classes" / colour).iterdir():
            file.rename(world.images / f"{colour}-{file.name}")
    return world


@pytest.fixture(scope="module")
def done(world: World) -> Path:
    """The output of a clustering whose number of clusters was chosen by silhouette."""
    world.cluster(world.folder / "output")
    return world.folder / "output"


def colours(rows: pd.DataFrame) -> dict[str, set[str]]:
    """The colours of the images in each cluster."""
    named = rows["path"].str.split("-").str[0]
    return {str(label): set(members) for label, members in named.groupby(rows["label"])}


THREE = {"cluster-00": {"red"}, "cluster-01": {"green"}, "cluster-02": {"blue"}}


def test_three_colours_are_three_clusters_named_by_their_size(done: Path) -> None:
    rows = pd.read_csv(done / "clusters.csv")
    assert colours(rows) == THREE
    assert sorted(rows["path"]) == [f"{c}-{n:03d}.png" for c in sorted(COUNTS) for n in range(COUNTS[c])]
    assert list(rows) == ["path", "label"], "any other column of a labels file makes slices"


def test_as_many_clusters_as_asked_for(world: World, tmp_path: Path) -> None:
    found = world.cluster(tmp_path / "output", k=2)
    assert set(found.rows["label"]) == {"cluster-00", "cluster-01"}
    assert found.tried == {}
    assert all(members["distance"].is_monotonic_increasing for _, members in found.rows.groupby("label"))
    assert found.silhouette is not None and found.silhouette > 0.25


def test_what_is_found_on_a_sample_holds_for_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 36 images and a sample of 16, most are projected, and named, by what the sample taught."""
    monkeypatch.setattr(cluster, "BATCH", 4)
    monkeypatch.setattr(cluster, "SAMPLE", 16)
    assert colours(world.cluster(tmp_path / "output").rows) == THREE


def test_the_table_is_a_labels_file_also_after_an_edit(done: Path, world: World, tmp_path: Path) -> None:
    edited = tmp_path / "labels.csv"
    edited.write_text((done / "clusters.csv").read_text().replace("cluster-00", "rose"))
    entries, _ = discovery.discover(world.images, edited)
    assert {entry.label for entry in entries if entry.path.startswith("red")} == {"rose"}
    assert len(entries) == sum(COUNTS.values())


def test_the_page_shows_a_sheet_of_each_cluster_and_every_image_by_name(done: Path) -> None:
    page = (done / "index.html").read_text()
    assert re.findall(r'img src="([^"]+)"', page) == [f"{label}.png" for label in THREE]
    rows = pd.read_csv(done / "clusters.csv")
    assert re.findall(r'title="([^"]+)"', page) == rows["path"].tolist()
    assert not re.search(r"https?://", page), "it needs no network"


def test_a_sheet_shows_its_own_cluster_in_the_order_of_the_table(done: Path, world: World) -> None:
    paths = pd.read_csv(done / "clusters.csv").groupby("label")["path"].agg(list)
    for label, members in paths.items():
        with Image.open(done / f"{label}.png") as sheet:
            wanted = contact_sheet(world.images / path for path in members)
            assert (sheet.size, sheet.tobytes()) == (wanted.size, wanted.tobytes())


def test_a_contact_sheet_has_each_image_in_its_box_row_by_row(tmp_path: Path) -> None:
    shades = [10 * place for place in range(COLUMNS + 2)]
    for shade in shades:
        Image.new("L", (30, 30), shade).save(tmp_path / f"{shade}.png")
    sheet = contact_sheet(tmp_path / f"{shade}.png" for shade in shades)
    assert [sheet.crop(box(place)).getcolors() for place in range(len(shades))] == [
        [(112 * 112, (shade, shade, shade))] for shade in shades
    ]
    assert box(COLUMNS)[0] == box(0)[0] and box(COLUMNS)[1] > box(0)[3]


def test_an_image_that_can_not_be_read_is_named_and_left_out(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "pictures"
    shutil.copytree(world.images, images)
    (images / "empty\nfile.png").touch()
    (images / "note.jpg").write_text("no image")
    os.mkfifo(images / "pipe.png")
    Path(os.fsdecode(bytes(images) + b"/b\xe9.png")).write_bytes(b"")
    found = world.cluster(tmp_path / "output", 3, images)
    assert colours(found.rows) == THREE
    named = {
        "empty\\nfile.png is empty",
        "note.jpg is not an image",
        "pipe.png is no regular",
        ".png has a name that is not UTF-8",
    }
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith(f"cluster: {images}") for line in lines)
    assert {word for word in named if any(word in line for line in lines)} == named


def test_a_folder_without_a_readable_image_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").touch()
    with pytest.raises(DataError, match="pictures has 0 images that can be read"):
        world.cluster(tmp_path / "output", None, tmp_path / "pictures")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(("copies", "k"), [(1, None), (5, None), (5, 3)])
def test_copies_of_one_image_are_no_clusters(
    world: World, tmp_path: Path, copies: int, k: int | None
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(copies):
        shutil.copy(world.images / "red-000.png", tmp_path / f"pictures/{number}.png")
    with pytest.raises(DataError, match=f"{copies} images that can be read, 1 of them different"):
        world.cluster(tmp_path / "output", k, tmp_path / "pictures")


def test_two_images_are_two_clusters_without_a_silhouette(world: World, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("red-000.png", "blue-000.png"):
        shutil.copy(world.images / name, tmp_path / "pictures")
    found = world.cluster(tmp_path / "output", None, tmp_path / "pictures")
    assert (len(set(found.rows["label"])), found.silhouette) == (2, None)
    assert "silhouette is not defined" in "".join(cluster.summary(found))


def test_an_edited_table_is_not_lost(world: World, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(done, output)
    edited = (output / "clusters.csv").read_text().replace("cluster-00", "rose")
    (output / "clusters.csv").write_text(edited)
    before = sha256(output)
    with pytest.raises(DataError, match=r"output/clusters\.csv has been edited.*--output"):
        world.cluster(output)
    assert sha256(output) == before


def test_a_table_that_nobody_edited_makes_way_for_another(world: World, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "output")
    world.cluster(tmp_path / "output", k=2)
    assert set(pd.read_csv(tmp_path / "output/clusters.csv")["label"]) == {"cluster-00", "cluster-01"}


@pytest.mark.parametrize("name", ["clusters-mine.csv", "holiday.png", ".git"])
def test_an_output_folder_with_anything_else_in_it_is_left_alone(
    world: World, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"holds {re.escape(name)}"):
        world.cluster(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_features_have_the_length_of_one_however_small_they_are(world: World) -> None:
    """So that a distance is one of directions."""
    model = Model(str(world.backbone), "none", 32, "last", dropout=0, l2=0)
    pixels = np.random.default_rng(1).integers(0, 3, (4, 32, 32, 3)).astype(np.uint8)
    ((_, values),) = cluster.features(
        iter([(f"{place}.png", one) for place, one in enumerate(pixels)]), model
    )
    assert np.linalg.norm(values, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_output_is_not_put_among_the_images(world: World) -> None:
    with pytest.raises(DataError, match=r"--output .*/pictures/found lies among the images of"):
        world.cluster(world.images / "found")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tasks.cluster", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def test_the_command_gives_the_same_bytes_again_and_says_what_is_there(
    world: World, done: Path, tmp_path: Path
) -> None:
    text = (ROOT / "params.yaml").read_text("utf-8").replace("efficientnet_lite0 ", f"{world.backbone} ")
    (tmp_path / "params.yaml").write_text(text.replace("image_size: auto", "image_size: 32"), "utf-8")
    shutil.copytree(done, tmp_path / "reports/clusters")
    ended = run(tmp_path, str(world.images), "--max-k", "6")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.search(r"36 images, 3 clusters, silhouette 0\.\d+", ended.stdout)
    assert re.search(r"cluster-02 +10  blue-\d+\.png", ended.stdout)
    assert "reports/clusters/clusters.csv" in ended.stdout
    assert sha256(tmp_path / "reports/clusters") == sha256(done)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["empty"], "cluster: empty holds no images; give a folder that does"),
        (["nowhere"], "cluster: nowhere is not a folder; give one with images"),
        (["empty", "--output", "params.yaml"], "cluster: --output params.yaml is a file; give a folder"),
        (["empty", "--k", "1"], "argument --k: '1' must be a whole number of at least 2"),
        (["empty", "--max-k", "x"], "argument --max-k: 'x' must be a whole number of at least 2"),
        (["empty", "--k", "3", "--max-k", "5"], "argument --max-k: not allowed with argument --k"),
    ],
)
def test_a_slip_is_exit_2_and_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "empty").mkdir()
    ended = run(tmp_path, *words)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(line)
    assert "Traceback" not in ended.stderr


def test_help_comes_without_tensorflow(tmp_path: Path) -> None:
    show = "import sys, runpy; sys.argv = ['cluster', '--help']"
    code = (
        f"{show}\ntry: runpy.run_module('tasks.cluster', run_name='__main__')\nfinally: print(*sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "--max-k" in ended.stdout
    assert not {"tensorflow", "sklearn"} & set(ended.stdout.split())
