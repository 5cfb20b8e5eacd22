"""Figure 2 of Nikishin et al. 2022: returns against the bound on the model's norm."""

from collections.abc import Mapping

import pandas as pd

from diffmbrl.omd.compare import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

OPTIMUM = 1.0272727
PROJECTIONS = {
    "published": "each array bounded (as published)",
    "joint": "joint norm bounded (as stated)",
}


def draw(rows: pd.DataFrame, axes, looks: Mapping[str, Mapping], metric: str = "return"):
    """A metric of both agents against the bound: interquartile mean, interval, mean.

    Args:
        rows: one table and projection of the tabular summary.
        axes: where to draw.
        looks: of each agent (`style.looks`).
        metric: a metric of the summary.
    """
    for agent in ("mle", "omd"):
        part = rows[rows["agent"] == agent]
        style.estimate(axes, part, "norm_bound", metric, **looks[agent])
        style.mark_diverged(axes, part, "norm_bound", f"{metric}_mean")
    axes.set_xlabel(r"bound on the model's norm $\kappa$")
    return axes


def draw_published(rows: pd.DataFrame, axes):
    """The published means, as crosses."""
    axes.plot(
        rows["x"],
        rows["mean"],
        "x",
        color=style.COLORS["published"],
        markersize=4,
        label="published mean",
        zorder=3,
    )
    return axes


def run(job: Job) -> None:
    """Draws both projections; published means where they were made with that projection."""
    summary = pd.read_csv(job.input("tabular"))
    summary = summary[summary["table"] == "misspecification"]
    shown = [name for name in PROJECTIONS if name in set(summary["projection"])]
    figure, axes = style.panels(1, len(shown), (3.6, 2.8), sharey=True)
    theirs, looks = published(), style.looks(job.settings["agents"])
    for ax, name in zip(axes[0], shown, strict=True):
        draw(summary[summary["projection"] == name], ax, looks).set_title(PROJECTIONS[name])
        ax.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1, label="optimum")
        if name == "published":
            draw_published(theirs[theirs["figure"] == "figure 2"], ax)
    axes[0, 0].set_ylabel("expected return")
    style.finish(figure, style.tabular_note(job.settings), job.outputs, legend_from=axes[0])
