"""Reads a dataset back, checks it, and lays it out as arrays for training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diffmbrl.errors import DataError
from diffmbrl.implicit.domain import Domain
from diffmbrl.tables import read_parquet

COLUMNS = (
    "seed",
    "split",
    "trajectory",
    "t",
    "action",
    "reward",
    "terminated",
    "truncated",
    "return",
    "discount_sum",
)

Points = dict[str, np.ndarray]


def load(path: Path, domain: Domain, seeds: Sequence[int]) -> dict[str, Points]:
    """A domain's training and evaluation points, stacked over seeds.

    Returns:
        For `train` and `evaluation`: features (seeds, n, k), returns and discounts (seeds, n),
        and how many of the n are points, (seeds,); the rest is zero padding.

    Raises:
        DataError: the file is damaged, lacks a column or lacks a seed.
    """
    frame = read_parquet(path, (*COLUMNS, *domain.observation))
    absent = sorted(set(seeds) - set(frame["seed"].unique()))
    if absent:
        raise DataError(f"{path}: has no rows of seed {absent[0]}; rebuild it for these seeds")
    if domain.first_states_only:
        frame = frame[frame["t"] == 0]
    return {
        split: _stack([part[part["seed"] == seed] for seed in seeds], domain)
        for split, part in frame.groupby("split")
    }


def _stack(parts: list[pd.DataFrame], domain: Domain) -> Points:
    count = np.array([len(part) for part in parts])
    shape = (len(parts), count.max())
    points = {
        "features": np.zeros((*shape, domain.n_features)),
        "returns": np.zeros(shape),
        "discounts": np.zeros(shape),
        "count": count,
    }
    for i, part in enumerate(parts):
        observation = part[list(domain.observation)].to_numpy(dtype=float)
        points["features"][i, : len(part)] = domain.features(observation)
        points["returns"][i, : len(part)] = part["return"]
        points["discounts"][i, : len(part)] = part["discount_sum"]
    return points
