"""Figure 2 of Gehring et al. 2021: the final residual against the reward offset."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from diffmbrl.implicit.published import published
from diffmbrl.implicit.tables import ETA
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

PANELS = (
    ("chain", "residual_norm", "Chain"),
    ("four_rooms", "residual_norm", "Four rooms"),
    ("four_rooms", "residual_norm_learnable", "Four rooms, floor removed"),
    ("mountain_car", "residual_norm", "Mountain car"),
)


def chosen(summary: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """The summary's rows at each family's selected learning rate."""
    keys = ["domain", "parameterization", "backup", "eta", "learning_rate"]
    return summary.merge(selected[keys], on=keys)


def draw(rows: pd.DataFrame, axes, metric: str = "residual_norm"):
    """Final residual of both parameterizations against the offset, with diverged runs counted.

    Args:
        rows: one domain and eta at the selected rates.
        axes: where to draw.
        metric: residual_norm, or residual_norm_learnable (without what no method can remove).
    """
    for name in ("explicit", "implicit"):
        part = rows[rows["parameterization"] == name]
        style.band(axes, part, "reward_offset", f"{metric}_mean", f"{metric}_std",
                   style.COLORS[name], name)  # fmt: skip
        style.mark_diverged(axes, part, "reward_offset", f"{metric}_mean")
    axes.set_xlabel("reward offset")
    axes.set_ylim(bottom=0)
    return axes


def draw_published(rows: pd.DataFrame, axes):
    """The authors' means at their own rates, as crosses."""
    axes.plot(rows["reward_offset"], rows["residual_norm_mean"], "x", markersize=4,
              color=style.COLORS["published"], label="published mean", zorder=3)  # fmt: skip
    return axes


def same_protocol(settings: Mapping[str, Any]) -> bool:
    """Whether published means belong beside these runs: same number of seeds and updates."""
    return len(settings["seeds"]) == 20 and settings["updates"] == 300


def run(job: Job) -> None:
    """Draws the three domains, and four rooms once more without its floor."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    rows, theirs = rows[rows["eta"] == ETA], published()
    theirs = theirs[theirs["eta"] == ETA]
    figure, axes = style.panels(1, len(PANELS))
    for ax, (domain, metric, title) in zip(axes[0], PANELS, strict=True):
        draw(rows[rows["domain"] == domain], ax, metric).set_title(title)
        if metric == "residual_norm" and same_protocol(job.settings):
            draw_published(theirs[theirs["domain"] == domain], ax)
    axes[0, 0].set_ylabel("final residual norm")
    note = style.protocol(job.settings) + rf" · $\eta={ETA}$ · rates selected from these runs"
    style.finish(figure, note, job.outputs, legend_from=axes[0])
