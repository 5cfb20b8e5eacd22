"""Appendix of Gehring et al. 2021: final residual against the offset, every rate and eta."""

import numpy as np
import pandas as pd
import seaborn as sns

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style


def draw(rows: pd.DataFrame, axes, limits: tuple[float, float] | None):
    """One line per learning rate; means above the axis leave the panel, as in the paper.

    Args:
        rows: one domain, parameterization and eta.
        axes: where to draw.
        limits: of the vertical axis; None for all that is finite.
    """
    rates = np.sort(rows["learning_rate"].unique())
    colors = sns.color_palette("viridis", len(rates))
    for row, (rate, color) in enumerate(zip(rates, colors, strict=True)):
        part = rows[rows["learning_rate"] == rate].sort_values("reward_offset")
        lost = int(part["n_diverged"].sum())
        label = rf"rate $2^{{{np.log2(rate):.0f}}}$"
        highest = None if limits is None else 10 * limits[1]
        part = part.assign(
            **{n: part[f"residual_norm_{n}"].clip(upper=highest) for n in ("mean", "std")}
        )
        style.band(axes, part, "reward_offset", "mean", "std", color, label)
        if lost:
            axes.annotate(
                f"{label}: {lost} diverged",
                (0.02, 0.98 - 0.07 * row),
                xycoords="axes fraction",
                va="top",
                fontsize=6,
                color=color,
                bbox={"color": "white", "alpha": 0.8, "pad": 0.5},
                zorder=5,
            )
    axes.set_ylim((0, None) if limits is None else limits)
    axes.set_xlabel("reward offset")
    return axes


def run(job: Job) -> None:
    """Draws one panel per eta, of one domain and parameterization."""
    domain, parameterization = job.settings["domain"], job.settings["parameterization"]
    summary = pd.read_csv(job.input("summary"))
    rows = summary[
        (summary["domain"] == domain) & (summary["parameterization"] == parameterization)
    ]
    facts = job.settings["domains"][domain]
    etas = sorted(rows["eta"].unique())
    figure, axes = style.panels(1, len(etas), sharey=True)
    for ax, eta in zip(axes[0], etas, strict=True):
        draw(rows[rows["eta"] == eta], ax, facts.get("LIMITS")).set_title(rf"$\eta={eta:g}$")
    axes[0, 0].set_ylabel("final residual norm")
    figure.suptitle(f"{facts['LABEL']}, {parameterization}", fontsize=10)
    spread = "shaded: sample sd over finite seeds · curves that leave the panel are above its top"
    style.finish(figure, style.protocol(job.settings, spread), job.outputs, legend_from=axes[0])
