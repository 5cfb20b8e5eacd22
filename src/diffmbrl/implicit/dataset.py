"""Reads a dataset back, checks it, and lays it out as arrays for training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diffmbrl.errors import DataError
from diffmbrl.implicit.domains import DOMAINS, features
from diffmbrl.implicit.tables import read_parquet

COLUMNS = ("seed", "split", "trajectory", "t", "action", "reward", "terminated", "truncated",
           "return", "discount_sum")  # fmt: skip

Points = dict[str, np.ndarray]


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
