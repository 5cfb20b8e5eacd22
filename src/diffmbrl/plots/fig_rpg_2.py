"""Variance and bias of the gradient against h, with and without SN, initialisation matched."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

METRICS = {
    "trace": r"tr $\Sigma$", "ratio": r"tr $\Sigma$ / |mean|$^2$",
    "relative_bias_model": "|bias|$^2$ / |gradient|$^2$, same h",
    "relative_bias_reference": "|bias|$^2$ / |gradient|$^2$, whole",
}  # fmt: skip


def draw(rows: pd.DataFrame, axes, metric: str):
    """A metric against h: colour by placement, solid for orthogonal and dotted for uniform init."""
    for (sn, init), part in rows.groupby(["sn", "init"], sort=False):
        rpg.range_band(axes, part[part[metric] > 0], "horizon", metric,
                       color=rpg.PLACEMENT_COLORS[sn], linestyle=rpg.INITS[init], marker=".",
                       label=f"{rpg.PLACEMENTS[sn]}, {init} init")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("model steps h")
    return axes


def run(job: Job) -> None:
    """Rows: the first and the last snapshot; columns: the metrics."""
    s = job.settings
    frame = pd.read_csv(job.input("gradients"))
    frame = frame[(frame["estimator"] == "rp_dp") & (frame["starts"] == "fixed")
                  & frame["sn"].isin(["none", "both"])]  # fmt: skip
    snapshots = sorted(frame["snapshot"].unique())
    snapshots = [snapshots[0], snapshots[-1]]
    figure, axes = style.panels(2, len(METRICS), (2.5, 2.3))
    for row, snapshot in zip(axes, snapshots, strict=True):
        for ax, (metric, label) in zip(row, METRICS.items(), strict=True):
            draw(frame[frame["snapshot"] == snapshot], ax, metric)
            ax.set_title(label, fontsize=9)
        row[0].set_ylabel(f"step {snapshot}")
    plan = s["plan"]
    text = rpg.note(s, f"{plan['seeds']} seeds",
                    f"{plan['states']} fixed states x {plan['samples']} gradients",
                    f"whole: true dynamics for {plan['reference_horizon']} steps",
                    "median, smallest to largest seed; values at or below 0 left out")  # fmt: skip
    rpg.finish(figure, text, job.outputs, axes[0])
