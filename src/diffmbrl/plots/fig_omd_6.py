"""Figure 6 of Nikishin et al. 2022: returns when the inner solution is noisy."""

import pandas as pd

from diffmbrl.omd.compare import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_omd_2 import OPTIMUM

LABELS = {
    "exact": "exact inverse Jacobian",
    "iterative": "iterative inverse Jacobian",
    "identity": "identity",
}


def draw(rows: pd.DataFrame, axes):
    """Return against the sd of the noise on Q*, a line per adjoint."""
    for adjoint, part in rows.groupby("adjoint"):
        color, label = style.COLORS[str(adjoint)], LABELS[str(adjoint)]
        style.estimate(axes, part, "sigma", "return", color, label)
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1, label="optimum")
    axes.set_xscale("log")
    axes.set_xlabel(r"sd of the noise on the inner solution $\sigma$")
    axes.set_ylabel("expected return")
    return axes


def run(job: Job) -> None:
    """Draws both adjoints and the published means."""
    summary = pd.read_csv(job.input("tabular"))
    figure, axes = style.panels(1, 1, (6.4, 3.2))
    draw(summary[summary["table"] == "noise"], axes[0, 0])
    theirs = published()
    theirs = theirs[theirs["figure"] == "figure 6"]
    for adjoint, marker in (("exact", "x"), ("identity", "+")):
        part = theirs[theirs["adjoint"] == adjoint]
        axes[0, 0].plot(
            part["x"],
            part["mean"],
            marker,
            color=style.COLORS["published"],
            markersize=5,
            label=f"published mean, {LABELS[adjoint]}",
            zorder=3,
        )
    note = style.tabular_note(job.settings)
    style.finish(figure, note, job.outputs, legend_from=axes[0])
