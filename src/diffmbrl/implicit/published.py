"""The published numbers that the project carries."""

import importlib.resources

import numpy as np
import pandas as pd


def published() -> pd.DataFrame:
    """The authors' summary at their selected rates, over 20 seeds.

    Means and sample standard deviations of the run logs released with Gehring et al. 2021.
    """
    with importlib.resources.files("diffmbrl.implicit").joinpath("published.csv").open() as file:
        frame = pd.read_csv(file)
    rates = 2.0 ** np.log2(frame["learning_rate"]).round()  # powers of two, written to 6 digits
    return frame.assign(learning_rate=rates)
