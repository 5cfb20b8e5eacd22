"""Reads a dataset back, checks it, and lays it out as arrays for training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from diffmbrl.errors import DataError
from diffmbrl.implicit.domains import DOMAINS, features

COLUMNS = ("seed", "split", "trajectory", "t", "action", "reward", "terminated", "truncated",
           "return", "discount_sum")  # fmt: skip

Points = dict[str, np.ndarray]


def read_parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
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
    pq.write_table(table, path, compression="zstd", compression_level=9,
                   use_dictionary=others, use_byte_stream_split=planes)  # fmt: skip


def load(path: Path, domain: str, seeds: Sequence[int]) -> dict[str, Points]:
    """A domain's training and evaluation points, stacked over seeds.

    Returns:
        For `train` and `evaluation`: features (seeds, n, k), returns and discounts (seeds, n),
        and how many of the n are points, (seeds,); the rest is zero padding.

    Raises:
        DataError: the file is damaged, lacks a column or lacks a seed.
    """
    frame = read_parquet(path, (*COLUMNS, *DOMAINS[domain].observation))
    absent = sorted(set(seeds) - set(frame["seed"].unique()))
    if absent:
        raise DataError(f"{path}: has no rows of seed {absent[0]}; rebuild it for these seeds")
    if domain == "chain":
        frame = frame[frame["t"] == 0]  # deviation 3: the published data are first states only
    return {
        split: _stack([part[part["seed"] == seed] for seed in seeds], domain)
        for split, part in frame.groupby("split")
    }


def _stack(parts: list[pd.DataFrame], domain: str) -> Points:
    count = np.array([len(part) for part in parts])
    shape = (len(parts), count.max())
    points = {
        "features": np.zeros((*shape, DOMAINS[domain].n_features)),
        "returns": np.zeros(shape),
        "discounts": np.zeros(shape),
        "count": count,
    }
    for i, part in enumerate(parts):
        observation = part[list(DOMAINS[domain].observation)].to_numpy(dtype=float)
        points["features"][i, : len(part)] = features(domain, observation)
        points["returns"][i, : len(part)] = part["return"]
        points["discounts"][i, : len(part)] = part["discount_sum"]
    return points
