"""Tables as Parquet files, with exactly the columns and types that they should have."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.base.errors import DataError, brief
from tasks.core.base.files import replacing


def write_parquet(path: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    """Writes a frame with exactly this schema and its metadata, so that an empty column keeps its type."""
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(schema.metadata), temporary, compression="zstd")


def read_parquet(path: Path) -> pd.DataFrame:
    """Reads a table.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is damaged.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} can't be read as Parquet ({brief(error)}); remove it and make it again"
        ) from None
