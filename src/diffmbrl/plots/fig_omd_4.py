"""Figure 4 of Nikishin et al. 2022: final returns against model width and distractors."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

OPTIMUM = 500
AGENTS = ("omd", "mle", "vep")
LABELS = {"width": "hidden units of the model", "distractors": "number of distractors"}


def draw(rows: pd.DataFrame, axes, axis: str):
    """Final return of the agents against an axis, on a logarithmic scale of base 2.

    Args:
        rows: one experiment of the summary, at the selected rates.
        axes: where to draw.
        axis: `width` or `distractors`.
    """
    for agent in AGENTS:
        part = rows[rows["agent"] == agent]
        if not part.empty:
            style.estimate(axes, part, axis, "eval_return", agent)
            style.mark_diverged(axes, part, axis, "eval_return_mean")
    ticks = sorted(rows[axis].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1, label="optimum")
    axes.set_ylim(0, OPTIMUM * 1.08)
    return axes


def run(job: Job) -> None:
    """Draws the experiments that were run, at the rates selected for each setting."""
    summary = pd.read_csv(job.input("cartpole"))
    summary = summary[summary["selected"]]
    shown = [axis for axis in LABELS if (summary["experiment"] == axis).any()]
    figure, axes = style.panels(1, len(shown), (7.2 / len(shown), 2.8), sharey=True)
    for ax, axis in zip(axes[0], shown, strict=True):
        draw(summary[summary["experiment"] == axis], ax, axis).set_xlabel(LABELS[axis])
    axes[0, 0].set_ylabel("final return")
    style.finish(figure, style.cartpole_note(job.settings), job.outputs, legend_from=axes[0])
