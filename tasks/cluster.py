"""Groups images without labels by what they show, for a person to look at and to name.

  python -m tasks.cluster folder/             as many clusters as tell them apart best
  python -m tasks.cluster folder/ --k 10 --output reports/ten

The output folder gets clusters.csv (path and label, the most typical images first), which you can edit
and use as `data.labels`; a contact sheet of each cluster, the most typical images first; and index.html,
which shows them all. An image that can't be read is named on stderr and left out.
"""

import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from tasks.core.backbones import store
from tasks.core.backbones.config import Model
from tasks.core.base import cli, console, params
from tasks.core.base.contract import Resize
from tasks.core.base.errors import DataError
from tasks.core.base.files import replacing, sha256, write_text
from tasks.core.base.params import Data
from tasks.core.data import image_io
from tasks.core.data.config import Build
from tasks.core.data.listing import list_images
from tasks.core.inference.target import check_target
from tasks.core.reporting import html
from tasks.core.reporting.contact_sheet import box, contact_sheet

OUTPUT = Path("reports/clusters")
TABLE = "clusters.csv"
PAGE = "index.html"
WRITTEN = "clusters.sha256"  # the table's digest as it was written, in the form of `sha256sum --check`
# And file managers'.
OURS = re.compile(r"clusters\.csv|clusters\.sha256|index\.html|cluster-\d+\.png|\.DS_Store|Thumbs\.db")
TEMPLATE = html.TEMPLATES / "cluster.html"

SEED = 123
BATCH = 64
MAX_SIZED = 256  # images that the backbone's image size is chosen by
SAMPLE = 64 * BATCH  # images that the components, and the number of clusters, are found on
COMPONENTS = 32
STARTS = 10  # of k-means, of which the best is kept
MIN_SILHOUETTE = 0.25  # a silhouette that says nothing of structure (Kaufman and Rousseeuw 1990)
MAX_SHOWN = 40  # images on a contact sheet
DECIMALS = 4  # of a distance, which is 2 at the most

Points = npt.NDArray[np.float32]
Batch = tuple[list[str], Points]


@dataclass(frozen=True)
class Clusters:
    """What came out: `rows` of path, label, distance, the most typical images of each cluster first."""

    rows: pd.DataFrame
    silhouette: float | None
    tried: dict[int, float]  # the silhouette of each number of clusters that was tried


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    build: Build
    model: Model


def shuffle_paths(folder: Path) -> list[str]:
    """Paths of all images below a folder, in a seeded order, of which any beginning is a fair sample.

    Raises:
        DataError: no such folder, or no image in it.
    """
    paths = list_images(folder)
    return [paths[place] for place in np.random.default_rng(SEED).permutation(len(paths))]


def typical_side(folder: Path, paths: Iterable[str]) -> float:
    """Median of the shorter sides, in pixels, of up to `MAX_SIZED` images by their headers; 0 of none."""
    sides: list[int] = []
    for path in paths:
        with suppress(DataError):  # named when its pixels are read
            sides.append(min(image_io.open_image(_content(folder, path)).size))
        if len(sides) == MAX_SIZED:
            break
    return statistics.median(sides or [0])


def _content(folder: Path, path: str) -> bytes:
    file = folder / path
    if path != path.encode(errors="replace").decode():
        raise DataError(f"{file} has a name that is not UTF-8; rename it")  # no CSV could hold it
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is no regular file; leave it out")  # reading a pipe would wait for ever
    return image_io.content(file)


def read_images(
    folder: Path, paths: list[str], size: int, how: Resize
) -> Iterator[tuple[str, image_io.Pixels]]:
    """Reads images at the size that the backbone takes; those that can't be read are named on stderr."""
    for path in tqdm(paths, "cluster", unit=" images", disable=None, leave=False):
        try:
            yield path, image_io.pixels(_content(folder, path), folder / path, size, how)
        except DataError as error:
            tqdm.write(f"cluster: {error}".replace("\n", "\\n"), file=sys.stderr)


def features(images: Iterator[tuple[str, image_io.Pixels]], model: Model) -> Iterator[Batch]:
    """Paths and what the backbone says of their images: up to `BATCH` rows of length 1.

    Raises:
        BackboneError: it can't be fetched or loaded, or is not the one that was pinned.
    """
    from tasks.core.backbones import tensorflow_setup
    from tasks.core.backbones.layer import backbone_layer, to_float

    tensorflow_setup.deterministic(SEED)
    layer = backbone_layer(model.backbone, trainable=False, sha256=model.sha256)
    while batch := list(islice(images, BATCH)):
        paths, pixels = zip(*batch, strict=True)
        values = layer(to_float(np.stack(pixels))).numpy()
        # Of length 1, so that a distance says how much directions differ, as the cosine does.
        yield list(paths), values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12)


def reduce(batches: Iterator[Batch]) -> Batch:
    """Projects features on the main directions of the first `SAMPLE`, so that no more are held in memory.

    In the many dimensions of a backbone Euclidean distances, which k-means uses, say little; scikit-learn's
    guide to clustering advises PCA before it for that reason, and for speed.

    Returns:
        Paths, and points of float32 (n, at most `COMPONENTS`); of a single image, 0.
    """
    from sklearn.decomposition import PCA

    first = list(islice(batches, SAMPLE // BATCH))
    paths = [path for names, _ in first for path in names]
    if len(paths) < 2:
        return paths, np.zeros((len(paths), 1), np.float32)
    sample = np.concatenate([values for _, values in first])
    pca = PCA(min(COMPONENTS, *sample.shape), svd_solver="covariance_eigh").fit(sample)
    points = [pca.transform(sample)]
    for names, values in batches:
        paths += names
        points.append(pca.transform(values))
    return paths, np.concatenate(points)


def kmeans(points: Points, k: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=STARTS, random_state=SEED).fit(points)


def silhouette(points: Points, labels: npt.NDArray[np.int32]) -> float | None:
    """How well clusters are separated, -1 to 1 (Rousseeuw 1987), on the first `SAMPLE` points.

    None where it isn't defined: for one cluster, or where each point is one.
    """
    from sklearn.metrics import silhouette_score

    labels = labels[:SAMPLE]
    defined = 2 <= len(set(labels)) < len(labels)
    return float(silhouette_score(points[:SAMPLE], labels)) if defined else None


def silhouettes(points: Points, max_k: int) -> dict[int, float]:
    """The silhouette of each number of clusters up to `max_k` that the first `SAMPLE` points allow."""
    sample = points[:SAMPLE]
    numbers = range(2, min(max_k, different(sample), len(sample) - 1) + 1)
    progress = tqdm(numbers, "choose k", disable=None, leave=False)
    scores = {k: silhouette(sample, kmeans(sample, k).labels_) for k in progress}
    return {k: score for k, score in scores.items() if score is not None}


def different(points: Points) -> int:
    """How many points are not copies of others."""
    return len(np.unique(points.round(DECIMALS), axis=0))


def find_clusters(paths: list[str], points: Points, k: int | None, max_k: int) -> Clusters:
    """Shares the images out to `k` clusters, or to as many as have the highest silhouette."""
    tried = {} if k else silhouettes(points, max_k)
    model = kmeans(points, k or max(tried, key=lambda k: tried[k], default=2))
    distances = model.transform(points).min(axis=1)
    return Clusters(_rows(paths, model.labels_, distances), silhouette(points, model.labels_), tried)


def _rows(paths: list[str], numbers: npt.NDArray[np.int32], distances: npt.NDArray[Any]) -> pd.DataFrame:
    """Names clusters by their size, the largest first."""
    frame = pd.DataFrame({"path": paths, "number": numbers, "distance": distances.round(DECIMALS)})
    sizes = frame.groupby("number")["path"].agg(["size", "min"])
    order = sizes.sort_values(["size", "min"], ascending=[False, True]).index
    width = max(2, len(str(len(order) - 1)))
    names = {number: f"cluster-{place:0{width}}" for place, number in enumerate(order)}
    frame["label"] = frame["number"].map(names)
    return frame.sort_values(["label", "distance", "path"])[["path", "label", "distance"]]


def check_output(output: Path, folder: Path) -> None:
    """Refuses, before any work, to write where something else would be lost or taken for an image.

    Raises:
        DataError: names what is there.
    """
    check_target("--output", output, folder)
    others = sorted(file.name for file in output.glob("*") if not OURS.fullmatch(file.name))
    if others:
        raise DataError(
            f"--output {output} holds {others[0]}, which is not of a clustering; give another folder"
        )
    table, written = output / TABLE, output / WRITTEN
    if table.exists() and not (written.is_file() and written.read_text() == _digest(table)):
        raise DataError(
            f"{table} has been edited, and would be lost; move it away, or give another folder as --output"
        )


def _digest(table: Path) -> str:
    return f"{sha256(table)}  {TABLE}\n"


def write(output: Path, folder: Path, rows: pd.DataFrame) -> None:
    """Writes the table, a contact sheet of each cluster and the page that shows them."""
    clusters: list[dict[str, Any]] = [
        {"label": label, "size": len(members), "shown": members["path"][:MAX_SHOWN].tolist()}
        for label, members in rows.groupby("label")
    ]
    page = html.render(TEMPLATE, box=box, clusters=clusters, images=len(rows))
    with replacing(output) as temporary:
        temporary.mkdir()
        write_text(temporary / TABLE, rows[["path", "label"]].to_csv(index=False, lineterminator="\n"))
        write_text(temporary / WRITTEN, _digest(temporary / TABLE))
        write_text(temporary / PAGE, page)
        for one in clusters:
            contact_sheet(folder / path for path in one["shown"]).save(temporary / f"{one['label']}.png")


def cluster(folder: Path, output: Path, k: int | None, max_k: int, model: Model, how: Resize) -> Clusters:
    """Clusters the images below a folder, and writes what a person needs to look at them and name them.

    Raises:
        DataError: too few images, or an output folder that holds something else.
        ParamError, BackboneError: the backbone can't be used.
    """
    import sklearn.cluster  # noqa: F401, only libraries that are loaded are kept to one thread

    check_output(output, folder)
    paths = shuffle_paths(folder)
    side = typical_side(folder, paths)
    size = store.image_sizes(model.backbone, model.image_size, side, model.sha256)[0]
    with threadpool_limits(1):  # more add up in the order they end in, and round as that falls
        paths, points = reduce(features(read_images(folder, paths, size, how), model))
        least, count = k or 2, different(points)
        if count < least:
            raise DataError(
                f"{folder} has {len(points)} images that can be read, {count} of them different: too few for "
                f"{least} clusters; give more images{' or a smaller --k' if least > 2 else ''}"
            )
        clusters = find_clusters(paths, points, k, max_k)
    write(output, folder, clusters.rows)
    return clusters


def summary(clusters: Clusters) -> Iterator[str]:
    """What came out, in lines: how well it is separated, and each cluster's size and first image."""
    rows = clusters.rows.groupby("label")["path"].agg(["size", "first"])
    if clusters.tried:
        yield "silhouette by k: " + ", ".join(f"{k} {score:.3f}" for k, score in clusters.tried.items())
    apart = "is not defined" if clusters.silhouette is None else f"{clusters.silhouette:.3f} (-1 to 1)"
    yield f"{len(clusters.rows)} images, {len(rows)} clusters, silhouette {apart}"
    if clusters.silhouette is not None and clusters.silhouette < MIN_SILHOUETTE:
        yield (
            f"below {MIN_SILHOUETTE} no clear groups stand out: "
            "look at the sheets, and try other numbers with --k"
        )
    yield f"{'cluster':<12} {'images':>8}  most typical"
    for label, size, first in rows.itertuples():
        yield f"{label:<12} {size:>8}  {first}"


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("folder", type=cli.path, metavar="FOLDER", help="images, at any depth")
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--k", type=cli.whole(2), help="how many clusters (default: by their silhouette)")
    number.add_argument(
        "--max-k", type=cli.whole(2), default=20, metavar="K", help="how many to try at most (default 20)"
    )
    parser.add_argument(
        "--output", type=cli.path, default=OUTPUT, metavar="FOLDER", help=f"where to write (default {OUTPUT})"
    )
    a = parser.parse_args()
    p = params.load(Params)
    check_target("--output", a.output, Path(p.data.images))
    for line in summary(cluster(a.folder, a.output, a.k, a.max_k, p.model, p.build.resize)):
        console.say(line)
    console.say(
        f"look at {a.output / PAGE} and edit the labels in {a.output / TABLE}; to train on them, copy that "
        f"file to {p.data.labels} (data.labels) and set data.images: {a.folder} in params.yaml"
    )
    return 0


if __name__ == "__main__":
    cli.command(main)
