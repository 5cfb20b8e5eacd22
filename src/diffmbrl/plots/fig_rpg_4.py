"""The best horizon against the paper's formula, with controlled errors in model and critic."""

import numpy as np
import pandas as pd
from scipy import stats

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

ROWS = {
    "best_error_full": "best h + 1/2\nreference: whole gradient",
    "best_error_same": "best h + 1/2\nreference: same h",
}


def draw(best: pd.DataFrame, axes, column: str):
    """Best h of every problem, coloured by gamma, and the formula times the constant that fits."""
    colors = style.sns.color_palette("colorblind")
    y = best[column] + 0.5
    for i, (gamma, part) in enumerate(best.groupby("gamma")):
        axes.scatter(part["formula"] * 1.03**i, y[part.index], s=10, alpha=0.5, color=colors[i],
                     linewidths=0, label=rf"$\gamma$ = {gamma:g}")  # fmt: skip
    ends = np.array([best["formula"].min(), best["formula"].max()])
    constant = np.exp(np.mean(np.log(y / best["formula"])))
    axes.plot(ends, constant * ends, "k-", linewidth=0.8, label="formula, times a constant")
    axes.axhline(best["largest"].max() + 0.5, color="0.6", linewidth=0.8, linestyle="--",
                 label="largest h tried")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    return axes


def run(job: Job) -> None:
    """Rows: references; columns: Lipschitz constants of the closed loop."""
    s = job.settings
    best = pd.read_csv(job.input("horizon"))
    radii = sorted(best["radius"].unique())
    figure, axes = style.panels(len(ROWS), len(radii), (2.9, 2.3), sharex=True, sharey=True)
    for row, (column, label) in zip(axes, ROWS.items(), strict=True):
        row[0].set_ylabel(label)
        for ax, radius in zip(row, radii, strict=True):
            part = best[best["radius"] == radius]
            draw(part, ax, column)
            vary = part["formula"].nunique() > 1 and part[column].nunique() > 1
            rank = stats.spearmanr(part["formula"], part[column]).statistic if vary else np.nan
            ax.set_title(f"L = {radius:g}: rank correlation {rank:.2f}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel(r"$\epsilon_v / ((1-\gamma)(\epsilon_f+\epsilon_v))$")
    text = rpg.note(
        s,
        f"{s['plan']['seeds']} random linear systems, exact means",
        f"best: smallest h with an error within 10% of the least; a mean of {s['plan']['batch']}",
        "errors: of the critic relative to it, of the model's Jacobian absolute",
    )
    rpg.finish(figure, text, job.outputs, axes.ravel())
