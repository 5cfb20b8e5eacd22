"""Appendix of Gehring et al. 2021: the comparison of figure 2 at every eta."""

import pandas as pd

from diffmbrl.implicit.published import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import PANELS, chosen, draw, draw_published, same_protocol


def run(job: Job) -> None:
    """Draws one row a domain (four rooms twice, once without its floor), one column an eta."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    rows, theirs = rows[rows["parameterization"].isin(["explicit", "implicit"])], published()
    etas = sorted(rows["eta"].unique())
    figure, axes = style.panels(len(PANELS), len(etas), sharex=True, sharey="row")
    for line, (domain, metric, title) in zip(axes, PANELS, strict=True):
        for ax, eta in zip(line, etas, strict=True):
            draw(rows[(rows["domain"] == domain) & (rows["eta"] == eta)], ax, metric)
            if metric == "residual_norm" and same_protocol(job.settings):
                draw_published(theirs[(theirs["domain"] == domain) & (theirs["eta"] == eta)], ax)
            ax.label_outer()
        line[0].set_ylabel(f"{title}\nfinal residual norm")
    for ax, eta in zip(axes[0], etas, strict=True):
        ax.set_title(rf"$\eta={eta:g}$")
    note = style.protocol(job.settings) + " · rates selected from these runs"
    style.finish(figure, note, job.outputs, legend_from=axes.ravel())
