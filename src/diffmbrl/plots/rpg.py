"""What the figures of `rpg` share: colours and names of arms, dots of single runs, notes."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns

from diffmbrl.plots import style
from diffmbrl.rpg.aggregate import interval

_PALETTE = sns.color_palette("colorblind")


class Look(NamedTuple):
    """How an entry appears in figures."""

    label: str
    color: tuple[float, float, float]


ARMS = {  # sn, layers, clipped
    ("none", "hidden", False): Look("no SN", _PALETTE[0]),
    ("both", "hidden", False): Look("SN on both", _PALETTE[1]),
    ("model", "hidden", False): Look("SN on model", _PALETTE[2]),
    ("policy", "hidden", False): Look("SN on policy", _PALETTE[4]),
    ("both", "all", False): Look("SN on both, all layers", _PALETTE[3]),
    ("none", "hidden", True): Look("no SN, gradient clipped", _PALETTE[7]),
}
MEASURES = {  # columns of runs and gradients: title, log axis
    "ratio": ("tr $\\Sigma$ / |mean|$^2$\nby weights", True),
    "action_ratio": ("tr $\\Sigma$ / |mean|$^2$\nby actions before the tanh", True),
    "cosine": ("cosine of a batch's gradient\nwith the true one", False),
}


def looks(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """Of each entry of a registry, in the order of legends."""
    return {
        name: Look(facts["LABEL"], _PALETTE[facts["COLOR"]])
        for name, facts in style.in_order(entries).items()
    }


def tasks(frame: pd.DataFrame, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The labels of the tasks in a table, in the order of the registry."""
    here = set(frame["task"])
    return {name: look.label for name, look in looks(entries).items() if name in here}


def arms(frame: pd.DataFrame) -> dict[Look, pd.DataFrame]:
    """The rows of each arm that starts orthogonal, in the order of legends."""
    frame = frame[frame["init"] == "orthogonal"]
    parts = {
        look: frame[
            (frame["sn"] == sn) & (frame["layers"] == layers) & ((frame["clip"] > 0) == clipped)
        ]
        for (sn, layers, clipped), look in ARMS.items()
    }
    return {look: part for look, part in parts.items() if len(part)}


def band(axes, frame: pd.DataFrame, x: str, y: str, low: str, high: str, **look):
    """A line with a band between two columns; what either is, the note says."""
    frame = frame.sort_values(x)
    (line,) = axes.plot(frame[x], frame[y], **look)
    axes.fill_between(
        frame[x], frame[low], frame[high], color=line.get_color(), alpha=0.18, linewidth=0
    )
    return line


def range_band(axes, frame: pd.DataFrame, x: str, y: str, **look):
    """A line of medians over the rows at each x, with a band from the smallest to the largest."""
    groups = frame.groupby(x)[y]
    table = groups.agg(["median", "min", "max"]).reset_index()
    return band(axes, table, x, "median", "min", "max", **look)


def by_h(axes, runs: pd.DataFrame, measure: str, log: bool, look: Look, shift: float) -> None:
    """Dots of single runs at each horizon, and a line through their means (of logs on a log axis).

    Args:
        axes: where to draw; h is spaced evenly.
        runs: one row per run.
        measure: column.
        log: whether the axis is logarithmic.
        look: of the arm.
        shift: sideways, so that arms do not hide each other.
    """
    horizons = sorted(runs["horizon"].unique())
    at = runs["horizon"].map({h: i + shift for i, h in enumerate(horizons)})
    axes.scatter(at, runs[measure], s=8, alpha=0.5, color=[look.color], linewidths=0)
    values = np.log(runs[measure].where(runs[measure] > 0)) if log else runs[measure]
    means = values.groupby(at).mean()
    axes.plot(means.index, np.exp(means) if log else means, color=look.color, label=look.label)
    axes.set_xticks(range(len(horizons)), [f"{h}" for h in horizons])
    axes.set_xlabel("model steps h")
    if log:
        axes.set_yscale("log")


def by_arm(
    axes, groups: Sequence[tuple[Look, pd.DataFrame]], measure: str, log: bool = False
) -> None:
    """A column of dots, one per run, for each arm; beside it the mean with its 95% t interval."""
    for i, (look, part) in enumerate(groups):
        values = part[measure].dropna()
        axes.scatter([i - 0.12] * len(values), values, s=9, alpha=0.6, color=[look.color])
        mean, low, high = interval(np.log(values) if log else values)
        back = np.exp if log else np.asarray
        mean, low, high = (float(back(x)) for x in (mean, low, high))
        axes.errorbar(
            [i + 0.12], [mean], [[mean - low], [high - mean]], color=look.color, marker="o",
            capsize=2, label=look.label,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    if log:
        axes.set_yscale("log")


def note(settings: Mapping[str, Any], *parts: str) -> str:
    """What a figure states of how it was made."""
    return " · ".join([f"scale {settings['scale']}", *parts])


def seeds(frame: pd.DataFrame) -> str:
    """How many runs stand behind each arm."""
    if "n_runs" in frame:
        counts = set(frame["n_runs"])
    else:
        counts = set(frame.groupby([c for c in ("task", "horizon", "sn", "layers", "clip", "model")
                                    if c in frame])["seed"].nunique())  # fmt: skip
    return f"{' or '.join(map(str, sorted(counts)))} seeds"


def finish(figure, text: str, outputs: Mapping[str, Path], axes: Sequence = ()) -> None:
    """The note, wrapped to the figure's width, one legend for `axes` below it; and both files."""
    lines = textwrap.wrap(text, int(14 * figure.get_figwidth()))
    style.finish(figure, "\n".join(lines), outputs, list(axes) or None)
