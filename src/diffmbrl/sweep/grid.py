"""Grids of hyperparameters: from axes to one flat array of runs per axis."""

from collections.abc import Mapping, Sequence

import numpy as np


def grid(axes: Mapping[str, Sequence | np.ndarray]) -> dict[str, np.ndarray]:
    """Every combination of the axes' values, the last axis varying fastest.

    Returns:
        One array of shape (runs,) per axis, runs = product of the axes' lengths.

    Raises:
        ValueError: an axis has no values.
    """
    for name, values in axes.items():
        if len(values) == 0:
            raise ValueError(f"{name}: has no values; give at least one")
    mesh = np.meshgrid(*(np.asarray(v) for v in axes.values()), indexing="ij")
    return {name: array.reshape(-1) for name, array in zip(axes, mesh, strict=True)}
