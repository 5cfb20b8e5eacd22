"""The best horizon against the paper's formula, with controlled errors in model and critic."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

PANELS = {
    "best_bias_same": "least bias\n(reference: same h)",
    "best_error_same": "least bias and variance of 64\n(reference: same h)",
    "best_bias_full": "least bias\n(reference: whole gradient)",
    "best_error_full": "least bias and variance of 64\n(reference: whole gradient)",
}


def draw(best: pd.DataFrame, axes, column: str):
    """Best h of every problem against e_v / ((1 - gamma)(e_f + e_v)), coloured by gamma.

    Larger marks: medians over random systems of the same errors.
    """
    colors = style.sns.color_palette("colorblind")
    errors = ["formula", "model_error", "critic_error"]
    for i, (gamma, part) in enumerate(best.groupby("gamma")):
        axes.scatter(
            part["formula"], part[column] + 0.5, s=6, alpha=0.3, color=colors[i], linewidths=0
        )
        middle = part.groupby(errors)[column].median().reset_index()
        axes.scatter(
            middle["formula"], middle[column] + 0.5, s=22, facecolors="none",
            edgecolors=[colors[i]], label=rf"$\gamma$ = {gamma:g}",
        )  # fmt: skip
    axes.axhline(best["largest"].max() + 0.5, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(r"$\epsilon_v / ((1-\gamma)(\epsilon_f+\epsilon_v))$")
    return axes


def run(job: Job) -> None:
    """One panel for each meaning of best."""
    s = job.settings
    best = pd.read_csv(job.input("horizon"))
    figure, axes = style.panels(1, len(PANELS), (2.6, 2.5), sharey=True)
    for ax, (column, title) in zip(axes[0], PANELS.items(), strict=True):
        draw(best, ax, column).set_title(title, fontsize=8)
    axes[0, 0].set_ylabel("best h + 1/2")
    text = rpg.note(s, f"{s['plan']['seeds']} random linear systems",
                    f"closed-loop Lipschitz constant {s['plan']['radius']}",
                    "exact means; rings: medians", "dashed: largest h tried")  # fmt: skip
    rpg.finish(figure, text, job.outputs, axes[0])
