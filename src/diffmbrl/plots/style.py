"""One look for every figure: palette, sizes, labels, and how a figure is saved."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

_PALETTE = sns.color_palette("colorblind")
COLORS = {
    "residual_ones_norm": _PALETTE[2],
    "residual_ortho_norm": _PALETTE[3],
    "published": "0.15",
    "exact": _PALETTE[0],
    "iterative": _PALETTE[2],
    "identity": _PALETTE[3],
    **{f"variant_{i}": _PALETTE[color] for i, color in enumerate((3, 0, 2, 4))},
}
RC: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "diffmbrl",
    "path.simplify": False,
}


def look(facts: Mapping[str, Any]) -> dict[str, Any]:
    """How something with a LABEL and a COLOR is drawn: its `color` and `label`."""
    return {"color": _PALETTE[facts["COLOR"]], "label": facts["LABEL"]}


def in_order(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The facts of a registry's entries by their ORDER, which settings, being JSON, do not keep."""
    return dict(sorted(entries.items(), key=lambda entry: entry[1]["ORDER"]))


def looks(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How each entry of a registry is drawn, in their order."""
    return {name: look(facts) for name, facts in in_order(entries).items()}


def panels(rows: int, columns: int, size: tuple[float, float] = (2.6, 2.3), **kwargs):
    """A grid of axes, each `size` inches; axes come as an array of shape (rows, columns)."""
    mpl.rcParams.update(RC)  # type: ignore[arg-type]
    width, height = size
    return plt.subplots(
        rows, columns, figsize=(width * columns, height * rows + 0.5), squeeze=False, **kwargs
    )


def band(
    axes, frame: pd.DataFrame, x: str, mean: str, spread: str, color, label: str, **kwargs
) -> None:
    """A line of means with a band of one spread either side."""
    frame = frame.sort_values(x)
    low, high = frame[mean] - frame[spread], frame[mean] + frame[spread]
    axes.plot(frame[x], frame[mean], color=color, label=label, marker="o", **kwargs)
    axes.fill_between(frame[x], low, high, color=color, alpha=0.2, linewidth=0)


def estimate(
    axes, frame: pd.DataFrame, x: str, metric: str, color, label: str, marker: str = "o", **kwargs
) -> None:
    """Interquartile mean with its 95% interval, and the mean with one standard error.

    The line and its marks are the interquartile mean, the band its bootstrap interval; the
    thin line is the mean, its bars one standard error.
    """
    frame = frame.sort_values(x)
    axes.plot(frame[x], frame[f"{metric}_iqm"], color=color, marker=marker, label=label, **kwargs)
    axes.fill_between(
        frame[x],
        frame[f"{metric}_iqm_low"],
        frame[f"{metric}_iqm_high"],
        color=color,
        alpha=0.18,
        linewidth=0,
    )
    axes.errorbar(
        frame[x],
        frame[f"{metric}_mean"],
        frame[f"{metric}_stderr"],
        color=color,
        linewidth=0.6,
        elinewidth=0.6,
        capsize=1.5,
        alpha=0.7,
        errorevery=max(1, len(frame) // 20),
    )


def mark_diverged(axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Writes how many runs diverged below each mean that leaves some out."""
    for _, row in frame[frame["n_diverged"] > 0].iterrows():
        if np.isfinite(row[y]):
            axes.annotate(
                f"{int(row['n_diverged'])} div.",
                (row[x], row[y]),
                fontsize=6,
                textcoords="offset points",
                xytext=(3, -9),
                ha="left",
            )


def protocol(settings: Mapping[str, Any], spread: str = "shaded: sample sd over seeds") -> str:
    """What a figure states of how it was made: scale, seeds, updates, and its intervals."""
    return (
        f"scale {settings['scale']} · {len(settings['seeds'])} seeds · "
        f"{settings['updates']} updates · {spread}"
    )


INTERVALS = "thick: IQM, band: its 95% bootstrap interval; thin: mean, bars: s.e."


def tabular_note(settings: Mapping[str, Any]) -> str:
    """What a figure of the two-state MDP states of how it was made."""
    return (
        f"scale {settings['scale']} · {settings['seeds']} seeds · at most "
        f"{settings['steps']} steps · float64\n{INTERVALS}"
    )


def span(values: Iterable[int]) -> str:
    """`5`, or `5 to 10` where values differ."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def cartpole_note(settings: Mapping[str, Any], shown: pd.DataFrame) -> str:
    """What a CartPole figure states of how it was made, reductions included.

    Args:
        settings: of the figure.
        shown: the rows that it draws, with their numbers of runs and of pairs of rate and tau
            that were tried.
    """
    sweep = (
        "one rate and tau per agent"
        if shown["tried"].max() == 1
        else f"best of {span(shown['tried'])} rates and taus"
    )
    return (
        f"scale {settings['scale']} · {span(shown['n_runs'])} seeds (paper: 10) · "
        f"{settings['steps']:,} steps (paper: 200,000) · {settings['precision']} (paper: "
        f"float64)\n{sweep} (paper: best of 6) · final: mean of the last "
        f"{settings['final_evaluations']} evaluations\n{INTERVALS}"
    )


def _legend_below(figure, handles: Mapping[str, Any], note: str):
    """A legend titled by the note, in as many columns, up to 6, as the figure has room for."""
    for columns in range(min(len(handles), 6), 0, -1):
        legend = figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=columns,
            title=note,
            title_fontsize=7,
        )
        legend.get_title().set(color="0.35", multialignment="center")
        figure.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def finish(figure, note: str, outputs: Mapping[str, Path], legend_from: Sequence | None = None):
    """Adds the note and a legend below the panels, and saves PDF and PNG without a date.

    With a legend the note is its title: two things outside the panels would overlap.
    """
    if legend_from is None:
        figure.supxlabel(note, fontsize=7, color="0.35")
    else:
        handles: dict[str, Any] = {}
        for axes in legend_from:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        _legend_below(figure, handles, note)
    figure.savefig(outputs["pdf"], format="pdf", metadata={"CreationDate": None})
    figure.savefig(outputs["png"], format="png", metadata={"Software": None})
    plt.close(figure)
