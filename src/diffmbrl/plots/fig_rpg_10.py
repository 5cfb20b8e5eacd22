"""Corollary 5.9: mean |grad J|^2 over plain gradient ascent against progress, bias and noise."""

import numpy as np
import pandas as pd
from scipy import stats

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

TITLES = {"linear_quadratic": "linear-quadratic systems", "hybrid": "bouncing ball"}


def draw(rows: pd.DataFrame, axes):
    """Measured against predicted, colour by target, and the line on which they are equal."""
    targets = sorted(rows["target"].unique())
    colors = style.sns.color_palette("colorblind", len(targets))
    for target, color in zip(targets, colors, strict=True):
        part = rows[rows["target"] == target]
        label = f"SN to {target:g}" if target > 0 else "no SN"
        axes.scatter(part["predicted"], part["grad_square"], s=10, alpha=0.6, color=[color],
                     linewidths=0, label=label)  # fmt: skip
    ends = np.array([rows["predicted"].min(), rows["predicted"].max()])
    axes.plot(ends, ends, "k--", linewidth=0.8, label="equal")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(r"progress/$\eta T$ + |bias|$^2$ + tr $\Sigma$/N")
    return axes


def beyond(rows: pd.DataFrame, axes):
    """Measured over predicted by target: what normalisation does beyond bias and variance."""
    ratio = rows["grad_square"] / rows["predicted"]
    means = np.log10(ratio).groupby([rows["target"], rows["seed"]]).mean().reset_index(name="log10")
    targets = sorted(rows["target"].unique())
    colors = style.sns.color_palette("colorblind", len(targets))
    groups = [(rpg.Look(f"SN to {t:g}" if t > 0 else "no SN", c), means[means["target"] == t])
              for t, c in zip(targets, colors, strict=True)]  # fmt: skip
    rpg.by_arm(axes, groups, "log10")
    axes.axhline(0, color="0.4", linewidth=0.8, linestyle="--")
    return axes


def run(job: Job) -> None:
    """Two panels per system."""
    s = job.settings
    frame = pd.read_csv(job.input("convergence"))
    frame = frame[~frame["diverged"] & (frame["grad_square"] > 0)]
    figure, axes = style.panels(1, 4, (2.8, 2.5))
    for i, (task, title) in enumerate(TITLES.items()):
        part = frame[frame["task"] == task]
        left, right = axes[0, 2 * i : 2 * i + 2]
        rank = stats.spearmanr(part["predicted"], part["grad_square"]).statistic
        draw(part, left).set_title(f"{title}\nrank correlation {rank:.2f}", fontsize=9)
        left.set_ylabel(r"mean |grad J|$^2$")
        beyond(part, right).set_title("log10 of measured / predicted", fontsize=9)
    plan = s["plan"]
    text = rpg.note(
        s,
        f"{plan['seeds'] - 1} seeds, h in {plan['horizons']}, N in {plan['batches']}",
        f"T = {plan['updates']}, rates chosen by another seed",
        "right: dots: seeds; bars: 95% t intervals",
    )
    rpg.finish(figure, text, job.outputs, axes[0])
