"""Figure 1 of Gehring et al. 2021: the residual's parts at the start of training."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

PARTS = {
    "residual_ones_norm": r"part along $\mathbf{1}$",
    "residual_ortho_norm": r"rest, $\|\mathbf{r}^\perp\|$",
}


def draw(summary: pd.DataFrame, axes):
    """Both parts of the initial residual against the reward offset, of one domain's settings.

    Args:
        summary: rows of one domain, parameterization, rate and eta.
        axes: where to draw.
    """
    for metric, label in PARTS.items():
        names = (f"{metric}_t0_mean", f"{metric}_t0_std")
        style.band(axes, summary, "reward_offset", *names, style.COLORS[metric], label)
    axes.set_xlabel("reward offset")
    return axes


def run(job: Job) -> None:
    """Draws one panel per domain; every parameterization starts alike, so the first will do."""
    summary = pd.read_csv(job.input("summary"))
    first, domains = (
        next(iter(style.in_order(job.settings["parameterizations"]))),
        job.settings["domains"],
    )
    summary = summary[summary["parameterization"] == first]
    eta = summary["eta"].min()
    figure, axes = style.panels(1, len(domains))
    for ax, (domain, facts) in zip(axes[0], style.in_order(domains).items(), strict=True):
        rows = summary[(summary["domain"] == domain) & (summary["eta"] == eta)]
        rows = rows[rows["learning_rate"] == rows["learning_rate"].min()]
        draw(rows, ax).set_title(facts["LABEL"])
    axes[0, 0].set_ylabel("initial residual norm")
    note = style.protocol(job.settings) + rf" · initial values at $\eta={eta:g}$"
    style.finish(figure, note, job.outputs, legend_from=axes[0])
