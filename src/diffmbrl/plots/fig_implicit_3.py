"""Figure 3 of Gehring et al. 2021: the final residual against the internal discount eta."""

import matplotlib as mpl
import pandas as pd
import seaborn as sns

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import chosen, panels

DRAWN = "implicit"  # the parameterization that this figure is about
MAP = sns.cubehelix_palette(start=-0.2, rot=0.6, light=0.75, as_cmap=True)


def draw(rows: pd.DataFrame, axes, gamma: float, metric: str = "residual_norm"):
    """Final residual of the implicit parameterization against eta, one line per offset.

    Args:
        rows: one domain at the selected rates.
        axes: where to draw.
        gamma: the true discount, marked where it lies among the etas.
        metric: residual_norm or residual_norm_learnable.
    """
    for offset, part in rows.groupby("reward_offset"):
        part = part.sort_values("eta")
        axes.plot(part["eta"], part[f"{metric}_mean"], marker="o", color=MAP(float(offset)))
        style.mark_diverged(axes, part, "eta", f"{metric}_mean")
    etas = sorted(rows["eta"].unique())
    if etas[0] <= gamma <= etas[-1]:
        axes.axvline(gamma, color="0.3", linestyle=":", linewidth=1.2)
    axes.set_xscale("logit")
    axes.set_xticks(etas, [f"{eta:g}" for eta in etas])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlabel(r"$\eta$ (logit axis)")
    axes.set_ylim(bottom=0)
    return axes


def run(job: Job) -> None:
    """Draws every domain, and those with a floor once more without it."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    rows = rows[rows["parameterization"] == DRAWN]
    shown = panels(job.settings["domains"])
    figure, axes = style.panels(1, len(shown))
    for ax, (domain, metric, title, gamma) in zip(axes[0], shown, strict=True):
        draw(rows[rows["domain"] == domain], ax, gamma, metric).set_title(title)
    axes[0, 0].set_ylabel("final residual norm")
    offsets = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), MAP)
    figure.colorbar(offsets, ax=axes[0, -1], label="reward offset")
    spread = r"means over finite runs · dotted: true $\gamma$ · rates selected from these runs"
    style.finish(figure, style.protocol(job.settings, spread), job.outputs)
