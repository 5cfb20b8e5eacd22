"""Figure T5: what rules for choosing the internal discount eta cost."""

import numpy as np
import pandas as pd

from diffmbrl.implicit.names import CHOOSERS
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style


def draw(rows: pd.DataFrame, axes):
    """Regret of each rule, and of each fixed eta, with 99% t intervals; rows of one domain."""
    fixed = rows[~rows["rule"].isin(CHOOSERS)].sort_values("eta")
    chosen = rows.set_index("rule").loc[list(CHOOSERS)].reset_index()
    for part, color, first in ((chosen, "C0", 0), (fixed, "0.5", len(CHOOSERS))):
        x = first + np.arange(len(part))
        spread = [part["regret"] - part["low"], part["high"] - part["regret"]]
        axes.errorbar(x, 100 * part["regret"], 100 * np.abs(spread), fmt="o", color=color)
    labels = [f"{r.rule}\n({r.eta:.3g})" for r in chosen.itertuples()] + list(fixed["rule"])
    axes.set_xticks(np.arange(len(labels)), labels, rotation=60, ha="right", fontsize=7)
    axes.set_ylim(bottom=0)
    return axes


def run(job: Job) -> None:
    """Draws one panel per domain."""
    regret, domains = pd.read_csv(job.input("regret")), style.in_order(job.settings["domains"])
    figure, axes = style.panels(1, len(domains), size=(2.9, 2.9))
    for ax, (domain, facts) in zip(axes[0], domains.items(), strict=True):
        draw(regret[regret["domain"] == domain], ax).set_title(f"{facts['LABEL']}")
    axes[0, 0].set_ylabel("regret, % of the best residual")
    note = style.protocol(job.settings, "bars: 99% t intervals over seeds") + (
        "\nregret against each run's best eta in hindsight, mean over offsets · in brackets: mean "
        r"of the chosen $\eta$"
    )
    style.finish(figure, note, job.outputs)
