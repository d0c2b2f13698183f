"""Predicts a whole folder of pictures into a table, with what is to be seen of their quality.

  python -m tasks.score export/model.onnx folder/ --output reports/monitor

Made for many pictures: it works in processes, or on the Dask cluster that `compute.scheduler` names, and goes
on where an earlier run was ended. `tasks.predict` is for a few. A picture that can't be read has a row that
says why. Beside predictions.parquet comes reference.parquet, of the test pictures, for `tasks.drift`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from tasks.core import cli, params, scoring
from tasks.core.errors import DataError
from tasks.core.manifest import readable
from tasks.core.paths import MANIFEST, PREDICTIONS
from tasks.core.scoring import MONITORED, REFERENCE, TABLE
from tasks.core.serialize import remove
from tasks.core.tables import read_parquet


def score(
    model: Path, folder: Path, images: Path, output: Path, batch_size: int, compute: params.Processes
) -> str:
    """Predicts all pictures below a folder; returns a line that says what came of it.

    Args:
        images: the folder that the manifest's paths are from.
        output: a folder for both tables.

    Raises:
        DataError: no such folder, or no picture in it, or the output is a file.
        ModelError: the artifact can't be loaded.
        WorkerError: processes or a cluster failed.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; give a folder for the tables")
    table = scoring.scored(model, folder, scoring.described(folder, compute), batch_size, compute)
    remove(output / REFERENCE)  # an earlier model's is no reference
    reference = test_pictures()
    if reference is not None:
        scoring.write(output / REFERENCE, scoring.scored(model, images, reference, batch_size, compute))
    now = datetime.now(timezone.utc).isoformat(timespec="minutes")
    scoring.write(output / TABLE, table, folder=str(folder), model=str(model), scored=now)
    unread = int(table["predicted"].isna().sum())
    return (
        f"{len(table)} pictures of {folder}, {unread} unreadable; {output / TABLE} has the answers of {model}"
    )


def test_pictures() -> pd.DataFrame | None:
    """The rows of the manifest that are test pictures; none where they are not known."""
    if not (MANIFEST.exists() and PREDICTIONS.exists()):
        return None
    rows = readable(read_parquet(MANIFEST))
    tested = rows["path"].isin(read_parquet(PREDICTIONS)["path"])
    return rows.loc[tested, list(scoring.DESCRIBED)].reset_index(drop=True)


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="an artifact of export/")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="pictures, at any depth")
    parser.add_argument(
        "--output", type=Path, default=MONITORED, metavar="FOLDER", help=f"default {MONITORED}"
    )
    given = parser.parse_args()
    p = params.load()
    said = score(
        given.model, given.folder, Path(p.data.images), given.output, p.monitor.batch_size, p.compute
    )
    cli.say(f"score: {said}")
    return 0


if __name__ == "__main__":
    cli.command(main)
