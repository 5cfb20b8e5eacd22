"""Appendix of Gehring et al. 2021: the comparison of figure 2 at every eta."""

import pandas as pd

from diffmbrl.implicit.published import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import (
    chosen,
    compared,
    draw,
    draw_published,
    panels,
    same_protocol,
)


def run(job: Job) -> None:
    """Draws one row per domain (two where it has a floor), one column per eta."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    shown, looks = panels(job.settings["domains"]), compared(job.settings["parameterizations"])
    rows, theirs = rows[rows["parameterization"].isin(looks)], published()
    etas = sorted(rows["eta"].unique())
    figure, axes = style.panels(len(shown), len(etas), sharex=True, sharey="row")
    for line, (domain, metric, title, _) in zip(axes, shown, strict=True):
        for ax, eta in zip(line, etas, strict=True):
            draw(rows[(rows["domain"] == domain) & (rows["eta"] == eta)], ax, looks, metric)
            if metric == "residual_norm" and same_protocol(job.settings):
                draw_published(theirs[(theirs["domain"] == domain) & (theirs["eta"] == eta)], ax)
            ax.label_outer()
        line[0].set_ylabel(f"{title}\nfinal residual norm")
    for ax, eta in zip(axes[0], etas, strict=True):
        ax.set_title(rf"$\eta={eta:g}$")
    note = style.protocol(job.settings) + " · rates selected from these runs"
    style.finish(figure, note, job.outputs, legend_from=axes.ravel())
