"""Returns of RP-DP and RP-DR with and without SN, SAC and the likelihood ratio, over steps."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style


def draw(returns: pd.DataFrame, axes):
    """Mean return against steps, a line for each estimator and placement given."""
    for (estimator, horizon, sn), part in returns.groupby(
        ["estimator", "horizon", "sn"], sort=False
    ):
        label = rpg.ESTIMATORS[estimator] + (f", h = {horizon}" if estimator != "sac" else "")
        label += f", {rpg.PLACEMENTS[sn]}" if sn != "none" else ""
        rpg.band(
            axes,
            part,
            "step",
            "return_mean",
            "return_low",
            "return_high",
            label=label,
            color=rpg.ESTIMATOR_COLORS[estimator],
            linestyle="-" if sn == "none" else "--",
        )
    axes.axhline(-200, color="0.6", linewidth=0.8)
    axes.set_xlabel("environment steps")
    return axes


def run(job: Job) -> None:
    """Two panels: all estimators without normalisation; those with it beside them."""
    s = job.settings
    frame = pd.read_csv(job.input("returns"))
    frame = frame[(frame["init"] == "orthogonal") & frame["sn"].isin(["none", "both"])]
    figure, axes = style.panels(1, 2, (4.0, 3.0), sharey=True)
    draw(frame[frame["sn"] == "none"], axes[0, 0]).set_title("without SN")
    paired = frame[frame["estimator"].isin(frame.loc[frame["sn"] == "both", "estimator"])]
    draw(paired, axes[0, 1]).set_title("with SN on model and policy (dashed)")
    axes[0, 0].set_ylabel("return (mean over seeds)")
    text = rpg.note(
        s,
        rpg.seeds(frame),
        f"{s['schedule']['steps']} steps",
        f"{s['schedule']['episodes']} episodes an evaluation",
        "shaded: 95% bootstrap over seeds",
        "line at -200",
    )
    rpg.finish(figure, text, job.outputs, axes[0])
