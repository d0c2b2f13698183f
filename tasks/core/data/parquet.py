"""Tables as Parquet files, with exactly the columns and types that they should have."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.base.errors import DataError, brief
from tasks.core.base.files import replacing

ROWS = 65_536  # of a row group
pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps much of what is freed


def write_parquet(path: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    """Writes a frame with exactly this schema and its metadata, so that an empty column keeps its type."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for begin in range(0, max(len(frame), 1), ROWS):  # or all of it would be in memory once more
            rows = frame.iloc[begin : begin + ROWS]
            table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
            writer.write_table(table.replace_schema_metadata(schema.metadata))


def read_parquet(path: Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Reads a table.

    Args:
        columns: those to read, as far as there are such; by default all.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is damaged.
    """
    try:
        names = None if columns is None else [name for name in pq.read_schema(path).names if name in columns]
        return pd.read_parquet(path, columns=names)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} can't be read as Parquet ({brief(error)}); remove it and make it again"
        ) from None
