"""Figure T4: figure 2 of Gehring et al. 2021 with semi-gradient TD(0) targets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from diffmbrl.implicit.metrics import ETA
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import compared

METRICS = {
    "residual_norm": "final residual norm",
    "trained": "trained features",
    "untrained": "hardly trained ones",
}


def draw(rows: pd.DataFrame, axes, metric: str, looks: Mapping[str, Mapping[str, Any]]):
    """Final residual against the offset, median and quartiles: a single run may blow up.

    Args:
        rows: last step of one domain's runs at the selected rates.
        axes: where to draw.
        metric: a column.
        looks: of each parameterization.
    """
    for way, look in looks.items():
        part = rows[rows["parameterization"] == way].replace([np.inf, -np.inf], np.nan)
        low, middle, high = (
            part.groupby("reward_offset")[metric].quantile(q) for q in (0.25, 0.5, 0.75)
        )
        axes.plot(middle.index, middle, "o-", **look)
        axes.fill_between(low.index, low, high, color=look["color"], alpha=0.2, linewidth=0)
    axes.set_ylim(0, None if rows[metric].max() > 0 else 1)
    axes.set_xlabel("reward offset")
    return axes


def run(job: Job) -> None:
    """Draws one column of panels per domain: all features, trained ones and the others."""
    table = pd.concat([pd.read_parquet(path) for path in job.inputs["td"]], ignore_index=True)
    bar = table["untrained_below"].max()
    table = table[table["selected"] & (table["step"] == table["step"].max())]
    looks = compared(job.settings["parameterizations"])
    looks = {name: look for name, look in looks.items() if name in set(table["parameterization"])}
    domains = {
        name: facts
        for name, facts in style.in_order(job.settings["domains"]).items()
        if name in set(table["domain"])
    }
    figure, axes = style.panels(len(METRICS), len(domains), size=(2.9, 1.9))
    for column, (domain, facts) in zip(axes.T, domains.items(), strict=True):
        rows = table[table["domain"] == domain]
        for ax, metric in zip(column, METRICS, strict=True):
            draw(rows, ax, metric, looks)
        rates = ", ".join(f"{rate:g}" for rate in rows["learning_rate"].unique())
        column[0].set_title(f"{facts['LABEL']} (rates {rates})")
    for ax, label in zip(axes[:, 0], METRICS.values(), strict=True):
        ax.set_ylabel(label)
    note = style.protocol(job.settings, "median, shaded: quartiles over finite seeds") + (
        rf" · TD(0) on all transitions · $\eta={ETA}$"
        f"\nhardly trained: summed over all drawn points a feature comes to less than {bar:g} · "
        "rates selected from these runs"
    )
    style.finish(figure, note, job.outputs, legend_from=axes[0])
