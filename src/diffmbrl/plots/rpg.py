"""What the figures of `rpg` share: colours and names of methods, bands, notes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns

from diffmbrl.plots import style

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


def band(axes, frame: pd.DataFrame, x: str, y: str, low: str, high: str, **look):
    """A line with a band between two columns; what either is, the note says."""
    frame = frame.sort_values(x)
    (line,) = axes.plot(frame[x], frame[y], **look)
    axes.fill_between(frame[x], frame[low], frame[high], color=line.get_color(), alpha=0.18,
                      linewidth=0)  # fmt: skip
    return line


def range_band(axes, frame: pd.DataFrame, x: str, y: str, **look):
    """A line of medians with a band from the smallest to the largest seed.

    On a log axis a band cannot reach 0: where the smallest is not above it, the line bounds it.
    """
    low = frame[f"{y}_low"].where((frame[f"{y}_low"] > 0) | (frame[y] <= 0), frame[y])
    frame = frame.assign(**{f"{y}_low": low})
    return band(axes, frame, x, y, f"{y}_low", f"{y}_high", **look)


def note(settings: Mapping[str, Any], *parts: str) -> str:
    """What a figure states of how it was made."""
    return " · ".join([f"scale {settings['scale']}", *parts])


def seeds(frame: pd.DataFrame) -> str:
    """How many runs the rows of a table stand for."""
    counts = sorted(set(frame["n_runs"]))
    return f"{' or '.join(map(str, counts))} seeds"


def finish(figure, text: str, outputs: Mapping[str, Path], axes) -> None:
    """One legend above all panels, and the figure saved."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 4)
    )
    style.finish(figure, text, outputs)
