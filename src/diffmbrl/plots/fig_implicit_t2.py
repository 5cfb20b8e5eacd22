"""Figure T2: figure 2 of Gehring et al. 2021 on features that were trained, and on the others."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from diffmbrl.implicit.judges_runs import with_ends
from diffmbrl.implicit.metrics import ETA
from diffmbrl.implicit.names import ALL, PUBLISHED
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import Facts, compared

METRICS = {"trained": "trained features", "untrained": "hardly trained features"}


def shown(domains: Facts, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and rows of each line of panels: the domains, and those trained on all states."""
    for name, facts in style.in_order(domains).items():
        for data in (PUBLISHED, ALL):
            rows = table[(table["domain"] == name) & (table["data"] == data)]
            if len(rows):
                yield facts["LABEL"] + ("" if data == PUBLISHED else f",\n{ALL}"), rows


def draw_residual(rows: pd.DataFrame, axes, metric: str, looks: Mapping[str, Mapping[str, Any]]):
    """Final residual on a part of the features against the offset, mean and sd over seeds."""
    for way, look in looks.items():
        part = rows[rows["parameterization"] == way].replace([np.inf, -np.inf], np.nan)
        groups = part.groupby("reward_offset")[metric]
        line = pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=1)}).reset_index()
        line["n_diverged"] = part.groupby("reward_offset")["diverged"].sum().to_numpy()
        style.band(axes, line, "reward_offset", "mean", "std", **look)
        style.mark_diverged(axes, line, "reward_offset", "mean")
    axes.set_ylim(0, None if rows[metric].max() > 0 else 1)
    axes.set_xlabel("reward offset")
    return axes


def draw_pairs(rows: pd.DataFrame, axes):
    """By seed, how much more the explicit residual rises, against the untrained share."""
    easy, hard = rows["easy"].iloc[0], rows["hard"].iloc[0]
    wide = rows.pivot_table(
        index=["seed", "untrained_share"],
        columns=["parameterization", "reward_offset"],
        values="residual_norm",
    )
    explicit, implicit = wide["explicit"], wide["implicit"]
    rise = (explicit[hard] - explicit[easy]) - (implicit[hard] - implicit[easy])
    axes.plot(100 * rise.index.get_level_values(1), rise, "o", color="0.25", alpha=0.6)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_xlim(-0.5, max(2.0, 105 * rise.index.get_level_values(1).max()))
    axes.set_xlabel("hardly trained share of features, %")
    return axes


def run(job: Job) -> None:
    """Draws one line of panels per domain and choice of data."""
    table = with_ends(pd.read_parquet(job.inputs["coverage"]), pd.read_parquet(job.input("ends")))
    bar = table["untrained_below"].max()
    lines = list(shown(job.settings["domains"], table[table["untrained_below"] == bar]))
    looks = compared(job.settings["parameterizations"])
    figure, axes = style.panels(len(lines), 3, size=(2.9, 1.9))
    for line, (title, rows) in zip(axes, lines, strict=True):
        for ax, metric in zip(line, METRICS, strict=False):
            draw_residual(rows, ax, metric, looks)
        draw_pairs(rows, line[2])
        line[0].set_ylabel(f"{title}\nfinal residual norm")
    for ax, title in zip(axes[0], (*METRICS.values(), "rise, explicit - implicit"), strict=True):
        ax.set_title(title)
    note = style.protocol(job.settings) + (
        rf" · $\eta={ETA}$, published rates · hardly trained: summed over all drawn"
        f"\npoints a feature comes to less than {bar:g} · right: one dot per seed, rise from the "
        "easiest to the hardest offset"
    )
    style.finish(figure, note, job.outputs, legend_from=axes[:, 0])
