"""What the figures of `rpg` share: colours and names of methods, bands, notes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns

_PALETTE = sns.color_palette("colorblind")
ESTIMATORS = {"sac": "SAC (h = 0)", "rp_dp": "RP-DP", "rp_dr": "RP-DR", "lr": "likelihood ratio"}
ESTIMATOR_COLORS = dict(zip(ESTIMATORS, [_PALETTE[i] for i in (7, 0, 2, 4)], strict=True))
PLACEMENTS = {
    "none": "no SN",
    "model": "SN on model",
    "policy": "SN on policy",
    "both": "SN on both",
}
PLACEMENT_COLORS = dict(zip(PLACEMENTS, [_PALETTE[i] for i in (0, 2, 8, 1)], strict=True))
INITS = {"orthogonal": "-", "uniform": ":"}


def band(axes, frame: pd.DataFrame, x: str, y: str, low: str, high: str, **style):
    """A line with a band between two columns; what either is, the note says."""
    frame = frame.sort_values(x)
    (line,) = axes.plot(frame[x], frame[y], **style)
    axes.fill_between(frame[x], frame[low], frame[high], color=line.get_color(), alpha=0.18,
                      linewidth=0)  # fmt: skip
    return line


def range_band(axes, frame: pd.DataFrame, x: str, y: str, **style):
    """A line of medians with a band from the smallest to the largest seed."""
    return band(axes, frame, x, y, f"{y}_low", f"{y}_high", **style)


def note(settings: Mapping[str, Any], *parts: str) -> str:
    """What a figure states of how it was made."""
    return " · ".join([f"scale {settings['scale']}", *parts])


def seeds(frame: pd.DataFrame) -> str:
    """How many runs the rows of a table stand for."""
    counts = sorted(set(frame["n_runs"]))
    return f"{' or '.join(map(str, counts))} seeds"
