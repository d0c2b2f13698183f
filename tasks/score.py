"""Predicts a whole folder of images into a table, with what is to be seen of their quality.

  python -m tasks.score export/model.onnx folder/ --output reports/monitor
  python -m tasks.score production folder/

The second asks the version that is in that stage. Made for many images: it works in processes, or on the
Dask cluster that `compute.scheduler` names, and goes on where an earlier run was ended. `tasks.predict` is
for a few. An image that can't be read has a row that says why. Beside predictions.parquet comes
reference.parquet, of the test images, for `tasks.drift`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from tasks.core.base import cli, console, params
from tasks.core.base.errors import DataError
from tasks.core.base.files import remove
from tasks.core.base.params import Data
from tasks.core.base.paths import MANIFEST, PREDICTIONS
from tasks.core.data.config import Processes
from tasks.core.data.manifest import readable
from tasks.core.inference import scoring
from tasks.core.inference.config import Monitor
from tasks.core.inference.scoring import MONITORED, REFERENCE, TABLE
from tasks.core.inference.target import check_target
from tasks.core.release import deployment
from tasks.core.release.deployment import Model


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    monitor: Monitor
    compute: Processes


def score(model: Model, folder: Path, images: Path, output: Path, batch_size: int, compute: Processes) -> str:
    """Predicts all images below a folder; returns a line that says what came of it.

    Args:
        images: the folder that the manifest's paths are from.
        output: a folder for both tables.

    Raises:
        DataError: no such folder, or no image in it, or the output is a file or has other tables.
        ModelError: the artifact can't be loaded.
        WorkerError: processes or a cluster failed.
    """
    _check_output(output, folder, images)
    table = scoring.score(model.artifact, folder, scoring.describe(folder, compute), batch_size, compute)
    now = datetime.now(UTC).isoformat(timespec="minutes")
    facts = {"folder": str(folder), "model": model.name, "version": model.version, "scored": now}
    remove(output / REFERENCE)  # an earlier model's is no reference
    scoring.write(output / TABLE, table, **facts)
    reference = test_images(model)
    if reference is not None:
        place = model.images(images)
        answered = scoring.score(model.artifact, place, reference, batch_size, compute)
        scoring.write(output / REFERENCE, answered, folder=str(place))
    unread = int(table["predicted"].isna().sum())
    return (
        f"{len(table)} images of {folder}, {unread} unreadable; "
        f"{output / TABLE} has the answers of {model.name}"
    )


def _check_output(output: Path, *images: Path) -> None:
    """Refuses, before any work, to write over what isn't ours, or where a run would meet it."""
    check_target("--output", output, *images)
    for name in (TABLE, REFERENCE) if output != MONITORED else ():
        if (output / name).exists() and not scoring.is_ours(output / name):
            raise DataError(f"{output / name} is not a table of tasks.score; give another folder")


def test_images(model: Model) -> pd.DataFrame | None:
    """The rows of a model's manifest that are test images; none where they are not known."""
    try:
        rows = readable(model.table(MANIFEST))
        tested = rows["path"].isin(model.table(PREDICTIONS)["path"])
    except FileNotFoundError:
        return None
    return rows.loc[tested, list(scoring.DESCRIBED)].reset_index(drop=True)


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "model", type=cli.given, metavar="MODEL", help="an artifact of export/, or staging or production"
    )
    parser.add_argument("folder", type=cli.path, metavar="FOLDER", help="images, at any depth")
    parser.add_argument(
        "--output", type=cli.path, default=MONITORED, metavar="FOLDER", help=f"default {MONITORED}"
    )
    given = parser.parse_args()
    p = params.load(Params)
    model = deployment.resolve_model(given.model, console.warn)
    said = score(model, given.folder, Path(p.data.images), given.output, p.monitor.batch_size, p.compute)
    console.say(f"score: {said}")
    return 0


if __name__ == "__main__":
    cli.command(main)
