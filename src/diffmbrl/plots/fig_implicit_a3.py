"""The multi-action case of Gehring et al. 2021: an implicit MDP with several pseudo-actions."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from diffmbrl.implicit.metrics import ETA
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import Facts, chosen, panels


def methods(parameterizations: Facts) -> dict[tuple[str, str], dict[str, Any]]:
    """How each parameterization and backup is drawn; `none` where there is no choice of backup."""
    found = {}
    for name, facts in style.in_order(parameterizations).items():
        for backup, look in sorted(facts.get("BACKUPS", {}).items(), reverse=True):
            label = f"{facts['LABEL']}, {look['LABEL']}"
            found[name, backup] = style.look({**look, "LABEL": label})
        if "BACKUPS" not in facts:
            found[name, "none"] = style.look(facts)
    return found


def draw(
    rows: pd.DataFrame,
    axes,
    looks: Mapping[tuple[str, str], Mapping],
    metric: str = "residual_norm",
):
    """Final residual against the offset, of every parameterization and backup.

    Args:
        rows: one domain and eta at the selected rates.
        axes: where to draw.
        looks: of each parameterization and backup (`methods`).
        metric: residual_norm or residual_norm_learnable.
    """
    for (name, backup), look in looks.items():
        part = rows[(rows["parameterization"] == name) & (rows["backup"] == backup)]
        style.band(axes, part, "reward_offset", f"{metric}_mean", f"{metric}_std", **look)
        style.mark_diverged(axes, part, "reward_offset", f"{metric}_mean")
    axes.set_xlabel("reward offset")
    axes.set_ylim(bottom=0)
    return axes


def run(job: Job) -> None:
    """Draws every domain, and those with a floor once more without it."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    rows = rows[rows["eta"] == ETA]
    shown, looks = panels(job.settings["domains"]), methods(job.settings["parameterizations"])
    figure, axes = style.panels(1, len(shown))
    for ax, (domain, metric, title, _) in zip(axes[0], shown, strict=True):
        draw(rows[rows["domain"] == domain], ax, looks, metric).set_title(title)
    axes[0, 0].set_ylabel("final residual norm")
    actions = job.settings["actions"]
    note = style.protocol(job.settings) + rf" · {actions} pseudo-actions · $\eta={ETA}$"
    style.finish(figure, note, job.outputs, legend_from=axes[0])
