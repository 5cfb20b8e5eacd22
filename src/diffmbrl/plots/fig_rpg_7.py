"""Spectral normalisation on the model, the policy, or both: variance, bias and returns."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style
from diffmbrl.plots.fig_rpg_2 import draw as draw_gradients

METRICS = {
    "trace": r"tr $\Sigma$",
    "ratio": r"tr $\Sigma$ / |mean|$^2$",
    "relative_bias_model": "|bias|$^2$ / |gradient|$^2$, same h",
}


def draw_returns(rows: pd.DataFrame, axes):
    """Mean return against steps, a line for each placement."""
    for sn, part in rows.groupby("sn", sort=False):
        rpg.band(
            axes,
            part,
            "step",
            "return_mean",
            "return_low",
            "return_high",
            color=rpg.PLACEMENT_COLORS[sn],
        )
    axes.set_xlabel("environment steps")
    return axes


def run(job: Job) -> None:
    """Gradients at the last snapshot, and returns; orthogonal initialisation everywhere."""
    s = job.settings
    frame = pd.read_csv(job.input("gradients"))
    frame = frame[
        (frame["estimator"] == "rp_dp")
        & (frame["starts"] == "fixed")
        & (frame["init"] == "orthogonal")
        & (frame["snapshot"] == frame["snapshot"].max())
    ]
    returns = pd.read_csv(job.input("returns"))
    returns = returns[(returns["estimator"] == "rp_dp") & (returns["init"] == "orthogonal")]
    figure, axes = style.panels(1, len(METRICS) + 1, (2.6, 2.4))
    for ax, (metric, title) in zip(axes[0], METRICS.items(), strict=False):
        draw_gradients(frame, ax, metric).set_title(title, fontsize=9)
    draw_returns(returns, axes[0, -1]).set_title("return", fontsize=9)
    text = rpg.note(
        s,
        f"gradients: {s['plan']['seeds']} seeds, step {s['schedule']['steps']}, median,"
        " smallest to largest seed",
        f"returns: {rpg.seeds(returns)}, 95% bootstrap",
    )
    rpg.finish(figure, text, job.outputs, axes[0])
