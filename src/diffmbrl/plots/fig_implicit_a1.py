"""Appendix of Gehring et al. 2021: final residual against the offset, every rate and eta."""

import numpy as np
import pandas as pd
import seaborn as sns

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

LIMITS = {"chain": 15.0, "four_rooms": 50.0, "mountain_car": 700.0}


def draw(rows: pd.DataFrame, axes, limit: float):
    """One line a learning rate; means above `limit` leave the panel, as in the paper.

    Args:
        rows: one domain, parameterization and eta.
        axes: where to draw.
        limit: top of the vertical axis.
    """
    rates = np.sort(rows["learning_rate"].unique())
    colors = sns.color_palette("viridis", len(rates))
    for row, (rate, color) in enumerate(zip(rates, colors, strict=True)):
        part = rows[rows["learning_rate"] == rate].sort_values("reward_offset")
        lost = int(part["n_diverged"].sum())
        label = rf"rate $2^{{{np.log2(rate):.0f}}}$"
        part = part.assign(**{
            name: part[f"residual_norm_{name}"].clip(upper=10 * limit) for name in ("mean", "std")
        })  # fmt: skip
        style.band(axes, part, "reward_offset", "mean", "std", color, label)
        if lost:
            axes.annotate(f"{label}: {lost} diverged", (0.02, 0.98 - 0.07 * row),
                          xycoords="axes fraction", va="top", fontsize=6, color=color,
                          bbox={"color": "white", "alpha": 0.8, "pad": 0.5}, zorder=5)  # fmt: skip
    axes.set_ylim(0, limit)
    axes.set_xlabel("reward offset")
    return axes


def run(job: Job) -> None:
    """Draws one panel an eta, of one domain and parameterization."""
    domain, parameterization = job.settings["domain"], job.settings["parameterization"]
    summary = pd.read_csv(job.input("summary"))
    rows = summary[
        (summary["domain"] == domain) & (summary["parameterization"] == parameterization)
    ]
    etas = sorted(rows["eta"].unique())
    figure, axes = style.panels(1, len(etas), sharey=True)
    for ax, eta in zip(axes[0], etas, strict=True):
        draw(rows[rows["eta"] == eta], ax, LIMITS[domain]).set_title(rf"$\eta={eta:g}$")
    axes[0, 0].set_ylabel("final residual norm")
    figure.suptitle(f"{style.DOMAINS[domain]}, {parameterization}", fontsize=10)
    spread = "shaded: sample sd over finite seeds · curves that leave the panel are above its top"
    style.finish(figure, style.protocol(job.settings, spread), job.outputs, legend_from=axes[0])
