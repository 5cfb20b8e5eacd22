"""Tables on disk: how Parquet and CSV are read, checked and written, in one way everywhere."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from diffmbrl.errors import DataError


def read_parquet(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table with at least the given columns.

    Raises:
        DataError: the file is damaged, or lacks a column.
    """
    try:
        frame = pq.read_table(path).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: not a whole Parquet file ({str(error).splitlines()[0]}); delete it and "
            "run again to rebuild it"
        ) from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(columns)}")
    return frame


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table; floating columns are stored byte plane by byte plane, which packs best."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    planes = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [field.name for field in table.schema if field.name not in planes]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=9,
        use_dictionary=others,
        use_byte_stream_split=planes,
    )


def write_json(value: Any, path: Path) -> None:
    """Writes a value as text that diffs well."""
    text = json.dumps(value, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes statistics as text, numbers to nine significant digits, so that they diff well."""
    frame.to_csv(path, index=False, float_format="%.9g")
