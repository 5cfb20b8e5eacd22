"""The multi-action case of Gehring et al. 2021: an implicit MDP with several pseudo-actions."""

import pandas as pd

from diffmbrl.implicit.tables import ETA
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import PANELS, chosen

LABELS = {"explicit": "explicit", "implicit": "implicit, one action",
          "max": "implicit MDP, max", "logsumexp": "implicit MDP, log-sum-exp"}  # fmt: skip


def draw(rows: pd.DataFrame, axes, metric: str = "residual_norm"):
    """Final residual against the offset, of every parameterization and backup.

    Args:
        rows: one domain and eta at the selected rates, with a column `method`.
        axes: where to draw.
        metric: residual_norm or residual_norm_learnable.
    """
    for method, label in LABELS.items():
        part = rows[rows["method"] == method]
        style.band(axes, part, "reward_offset", f"{metric}_mean", f"{metric}_std",
                   style.COLORS[method], label)  # fmt: skip
        style.mark_diverged(axes, part, "reward_offset", f"{metric}_mean")
    axes.set_xlabel("reward offset")
    axes.set_ylim(bottom=0)
    return axes


def run(job: Job) -> None:
    """Draws the three domains, and four rooms once more without its floor."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    rows = rows[rows["eta"] == ETA]
    rows["method"] = rows["backup"].where(rows["backup"] != "none", rows["parameterization"])
    figure, axes = style.panels(1, len(PANELS))
    for ax, (domain, metric, title) in zip(axes[0], PANELS, strict=True):
        draw(rows[rows["domain"] == domain], ax, metric).set_title(title)
    axes[0, 0].set_ylabel("final residual norm")
    actions = job.settings["actions"]
    note = style.protocol(job.settings) + rf" · {actions} pseudo-actions · $\eta={ETA}$"
    style.finish(figure, note, job.outputs, legend_from=axes[0])
